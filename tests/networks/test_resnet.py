"""Residual networks: the published numbers of weights, their structure, and that attacks and training go through."""

import keras
import numpy as np
import pytest
from keras import ops

from kbl import networks
from kbl.attacks import PGD
from kbl.layers import Denoise
from kbl.methods import AdversarialTraining
from kbl.training import RobustModel

# What is trained, with a dense head for ten classes: as counted for the authors' or the field's own code.
TRAINABLE = {
    "resnet8": 75_290,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet18": 11_173_962,
    "preactresnet18": 11_172_170,
    "wide_resnet8": 292_954,
    "wide_resnet32": 45_901_914,
    "wide_resnet34_10": 46_160_474,
}


def trainable(network: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)


@pytest.mark.parametrize("name", TRAINABLE)
def test_size(name: str) -> None:
    network = getattr(networks, name)("dense")
    assert trainable(network) == TRAINABLE[name]
    assert network.name == name
    assert network.input_shape == (None, 32, 32, 3)
    assert network.output_shape == (None, 10)
    features = network.get_layer("features").output
    assert features.shape == (None, network.layers[-1].kernel.shape[0])


def test_a_gaussian_head_has_no_bias() -> None:
    assert trainable(networks.resnet32("gmm", 100)) == TRAINABLE["resnet32"] - 650 + 6400


@pytest.mark.parametrize("name", ["resnet32", "wide_resnet32"])
def test_depth(name: str) -> None:
    """32 layers with weights on the way from the image to the logits, whatever the shortcuts."""
    convolutions = [
        layer for layer in getattr(networks, name)("dense").layers if isinstance(layer, keras.layers.Conv2D)
    ]
    assert len(convolutions) + 1 == 32


def test_shortcuts_without_weights() -> None:
    """Where the image is halved a shortcut takes every other pixel and puts zeros around the channels."""
    network = networks.build("resnet8", head="dense", num_classes=3, image_shape=(8, 8, 1), seed=0)
    before = network.get_layer("stage1_block1_relu").output
    after = network.get_layer("stage2_block1_unflat").output
    x = np.random.default_rng(0).random((2, 8, 8, 1), dtype="float32")
    small, padded = keras.Model(network.inputs, [before, after])([x])
    small, padded = ops.convert_to_numpy(small), ops.convert_to_numpy(padded)
    assert padded.shape == (2, 4, 4, 32)
    np.testing.assert_array_equal(padded[..., 8:24], small[:, ::2, ::2])
    assert not padded[..., :8].any()
    assert not padded[..., 24:].any()


def test_denoising_blocks_end_the_stages() -> None:
    network = networks.build(
        "resnet8", head="gmm", num_classes=10, image_shape=(8, 8, 1), seed=0, denoise="softmax"
    )
    found = [layer for layer in network.layers if isinstance(layer, Denoise)]
    assert [layer.name for layer in found] == [f"stage{stage}_denoise" for stage in (1, 2, 3)]
    with pytest.raises(ValueError, match=r"only residual networks.*denoise='mean'"):
        networks.build(
            "digits_convnet", head="gmm", num_classes=10, image_shape=(8, 8, 1), seed=0, denoise="mean"
        )


# The same on every backend: mean and spread of the logits of one seed.
LOGITS = {
    ("resnet8", "softmax"): (0.097553, 0.465306),
    ("wide_resnet8", "median"): (0.056423, 0.242488),
}


@pytest.mark.parametrize(("name", "denoise"), LOGITS)
def test_training_and_attacks_go_through(name: str, denoise: str, tmp_path) -> None:
    network = networks.build(
        name, head="dense", num_classes=10, image_shape=(8, 8, 1), seed=0, denoise=denoise
    )
    for layer in network.layers:
        if isinstance(layer, Denoise):
            layer.normalisation.gamma.assign(np.full(layer.normalisation.gamma.shape, 0.5))
    rng = np.random.default_rng(0)
    x, y = rng.random((8, 8, 8, 1), dtype="float32"), (np.arange(8) % 10).astype("int32")
    logits = ops.convert_to_numpy(network(x, training=False))
    np.testing.assert_allclose([logits.mean(), logits.std()], LOGITS[name, denoise], rtol=1e-3, atol=1e-5)
    attack = PGD(0.1, 0.05, 2)
    model = RobustModel(network)
    model.compile(keras.optimizers.Adam(0.003), method=AdversarialTraining(attack=attack))
    history = model.fit(x, y, batch_size=8, epochs=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    x_adv = attack(network, x, y)
    assert np.isfinite(x_adv).all()
    assert 0 < np.abs(x_adv - x).max() <= 0.1
    network.save(tmp_path / "network.keras")
    restored = keras.saving.load_model(tmp_path / "network.keras")
    again, once = (ops.convert_to_numpy(each(x, training=False)) for each in (restored, network))
    np.testing.assert_allclose(again, once, rtol=1e-4, atol=1e-6)
