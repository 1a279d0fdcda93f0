"""The examples of the docs run as they stand."""

import re
from pathlib import Path

import keras
import numpy as np

from kbl.attacks import predict

DOCS = Path(__file__).parents[2] / "docs"


def test_an_attack_of_ones_own() -> None:
    text = (DOCS / "attacks.md").read_text(encoding="utf-8")
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.S) if "@dataclass" in code]
    names: dict = {}
    exec(example, names)
    network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(size=weight.shape) for weight in network.get_weights()])
    x = rng.random((8, 4, 4, 1)).astype("float32")
    y = predict(network, x).argmax(axis=1)
    attack = names["SignOfNoise"](0.3)
    found = attack.search(network, x, y)
    assert np.abs(found.x_adv - x).max() <= 0.3
    assert found.backward == 0
    np.testing.assert_array_equal(found.fooled, predict(network, found.x_adv).argmax(axis=1) != y)
    assert found.fooled.any()
