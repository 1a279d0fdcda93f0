"""On a GPU: the device is used, and attacks find what they find on a CPU."""

import keras
import numpy as np
import pytest

from kbl import attacks, data, methods, networks
from kbl.backend import devices
from kbl.training import RobustModel

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not any(name.startswith(("cuda", "gpu", "GPU")) for name in devices()), reason="no GPU here"
    ),
]


def test_training_and_attack_run_on_the_gpu() -> None:
    digits = data.load("digits", 512)
    network = networks.build(
        "digits_convnet",
        head="gmm",
        num_classes=10,
        image_shape=digits.image_shape,
        batch_normalization=False,
        seed=0,
    )
    attack = attacks.PGD(0.1, 0.025, 5)
    model = RobustModel(network)
    model.compile(keras.optimizers.Adam(0.003), method=methods.AdversarialTraining(attack=attack))
    history = model.fit(digits.x_train, digits.y_train, batch_size=64, epochs=5, verbose=0).history
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    tensor = keras.ops.convert_to_tensor(digits.x_test)
    x_adv = attack(network, tensor, digits.y_test)
    assert "cpu" not in str(getattr(x_adv, "device", "")).lower()
    distance = np.abs(keras.ops.convert_to_numpy(x_adv).astype("float64") - digits.x_test)
    assert distance.max() <= 0.1
