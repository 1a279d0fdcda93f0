"""The examples of the docs run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np

import kbl
from kbl.attacks import predict
from kbl.layers import GMMHead, Purify

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


def test_loading_what_a_run_saved(tmp_path) -> None:
    """In a process that has imported nothing of kbl yet."""
    text = (DOCS / "recipes.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), GMMHead(3)])
    pixelcnn = kbl.networks.pixelcnn((8, 8, 1), 4, 2, 1)
    purified = keras.Sequential([keras.Input((8, 8, 1)), Purify(pixelcnn, 0.1), network])
    robust = kbl.RobustModel(network)
    robust.compile(
        "adam", method=kbl.methods.ATBLR(attack=kbl.attacks.PGD(0.1, 0.1, 2), likelihood_weight=0.1)
    )
    (tmp_path / "run").mkdir()
    saved = {"model": network, "pixelcnn": pixelcnn, "purified": purified, "robust": robust}
    for name, model in saved.items():
        model.save(tmp_path / "run" / f"{name}.keras")
    load = "keras.saving.load_model('run/{}.keras')\n"
    code = example + load.format("pixelcnn") + load.format("purified")
    code += "import kbl.training\n" + load.format("robust")
    environment = {**os.environ, "PYTHONPATH": str(DOCS.parent)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
