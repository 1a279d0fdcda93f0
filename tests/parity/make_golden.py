"""Numbers that must be the same on every backend, and the file that keeps them.

    KERAS_BACKEND=torch python tests/parity/make_golden.py

writes golden.json; any backend will do, as `test_parity.py` holds each of them to the same file. Run it again, and say
why in the commit, only when a number is meant to change: the recipe `digits`, a loss, the attack, the first weights.
"""

import hashlib
import json
import math
import tempfile
from pathlib import Path
from unittest import mock

import keras
import numpy as np
from keras import layers, ops

from kbl import backend, fitting, losses, networks, random, recipe
from kbl.attacks import PGD
from kbl.data import load
from kbl.layers import GMMHead
from kbl.methods import ATBLR
from kbl.training import Batches, ProgressBar, RobustModel

FILE = Path(__file__).with_name("golden.json")
RECIPE = Path(__file__).parents[2] / "recipes" / "digits.toml"


def compute() -> dict[str, object]:
    """Return every number by its name: arrays, or a checksum where bits must agree."""
    return {
        "head": head(),
        **{f"loss {name}": value for name, value in loss_values().items()},
        **{f"attack {norm}": attack(norm) for norm in ("linf", "l2")},
        **{f"step {form}": step(form) for form in ("exact", "bound", "means")},
        "first weights": checksum(*digits_convnet(0).get_weights()),
        "batch order": checksum(*batch_order()),
        "training losses": training_losses(),
    }


def waves(*shape: int) -> np.ndarray:
    """Return numbers of [-1, 1] that no generator has to agree upon."""
    return np.sin(1.7 * np.arange(1, math.prod(shape) + 1)).reshape(shape).astype("float32")


def numbers(tensor) -> np.ndarray:
    return ops.convert_to_numpy(ops.convert_to_tensor(tensor))


def checksum(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def head() -> np.ndarray:
    layer = GMMHead(4)
    layer.build((None, 6))
    layer.means.assign(waves(4, 6))
    return numbers(layer(3 * waves(5, 6)[::-1].copy()))


def loss_values() -> dict[str, np.ndarray]:
    """Return (batch, 1 + K) for each loss: its values and their gradients with respect to the logits."""
    y = ops.convert_to_tensor(np.array([0, 1, 2, 3, 1], "int32"))
    logits = ops.convert_to_tensor(-4 - 4 * waves(5, 4))  # all negative, as of a Gaussian head
    found = {}
    for name, loss in {
        "cross-entropy": losses.cross_entropy,
        "margin": losses.margin,
        "margin, kappa 1": lambda y, z: losses.margin(y, z, 1.0),
        "dlr": losses.dlr,
        "likelihood": losses.likelihood_regularization,
        "ATBLR clean": lambda y, z: losses.atblr_clean(y, z, 0.1),
        "ATBLR adversarial": lambda y, z: losses.atblr_adversarial(y, z, 0.1),
        "ATBLR adversarial, bound 8": lambda y, z: losses.atblr_adversarial(y, z, 0.1, 8.0),
    }.items():

        def total(z, loss=loss):
            values = loss(y, z)
            return ops.sum(values), values

        values, gradient = backend.value_and_grad(total, logits)
        found[name] = np.column_stack([numbers(values), numbers(gradient)])
    return found


def digits_convnet(seed: int) -> keras.Model:
    return networks.build(
        "digits_convnet",
        head="gmm",
        num_classes=10,
        image_shape=(8, 8, 1),
        batch_normalization=False,
        seed=seed,
    )


def attack(norm: str) -> np.ndarray:
    """Return what one step from a random start makes of three digits."""
    network, digits = digits_convnet(3), load("digits")
    x = ops.convert_to_tensor(digits.x_train[:3])
    pgd = PGD(0.15 if norm == "linf" else 1.0, 0.03 if norm == "linf" else 0.5, 1, norm=norm)
    y, index = ops.convert_to_tensor(digits.y_train[:3]), ops.arange(3, dtype="int32")
    return numbers(pgd.craft(lambda z: network(z, training=False), x, y, index, random.key(5, 6)))[..., 0]


def step(form: str) -> np.ndarray:
    """Return all weights, end to end, after one step of ATBLR with plain gradient descent."""
    network = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3, strides=2, padding="same", activation="relu"),
            layers.BatchNormalization(momentum=0.9),
            layers.Flatten(),
            layers.Dense(5),
            GMMHead(4),
        ]
    )
    for weight in network.trainable_weights:
        weight.assign(0.5 * waves(*weight.shape))
    method = ATBLR(
        attack=PGD(0.1, 0.05, 2),
        likelihood_weight=0.1,
        bound=3.0 if form == "bound" else None,
        gradient_through="means" if form == "means" else "features and means",
    )
    model = RobustModel(network, seed=4)
    model.compile(keras.optimizers.SGD(0.5), method=method)
    model.train_on_batch(0.5 + 0.5 * waves(8, 6, 6, 1), np.arange(8) % 4)
    return np.concatenate([weight.ravel() for weight in network.get_weights()])


def batch_order() -> list[np.ndarray]:
    """Return the images of two epochs of 1,000."""
    rows = np.arange(1000)
    found = []
    for epoch in range(2):
        batches = Batches(rows, rows, 64, seed=0, epoch=epoch)
        found += [batches[index][1].astype("<i8") for index in range(len(batches))]
    return found


def training_losses() -> np.ndarray:
    """Return the loss of each of the first 20 batches that `kbl run digits` trains on: its first epoch."""

    def stop(self, epoch, logs=None):
        self.model.stop_training = True

    chosen = recipe.load(RECIPE)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(ProgressBar, "on_epoch_end", stop):
        fitting.train(chosen, load(chosen.data.name), Path(folder), quiet=True)
        table = np.genfromtxt(Path(folder) / "batches.csv", delimiter=",", names=True)
    return table["loss"][:20]


if __name__ == "__main__":
    golden = {
        name: value if isinstance(value, str) else np.vectorize(lambda v: float(f"{v:.8g}"))(value).tolist()
        for name, value in compute().items()
    }
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in golden.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
