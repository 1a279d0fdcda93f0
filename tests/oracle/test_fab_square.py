"""FAB and Square beside torchattacks on a network trained here: distances and robust accuracy."""

import keras
import numpy as np
import pytest
from keras import layers

from kbl.attacks import predict
from kbl.attacks.fab import FAB
from kbl.attacks.square import Square
from kbl.data import load

if keras.backend.backend() != "torch":
    pytest.skip("torchattacks attacks torch networks", allow_module_level=True)
try:
    import torchattacks
except ImportError:
    pytest.skip("torchattacks is not installed (pip install 'kbl[bench]')", allow_module_level=True)

import torch

NAMES = {"linf": "Linf", "l2": "L2"}
NORMS = pytest.mark.parametrize("norm", NAMES)
CLASSES = 10


class ChannelsFirst(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images.permute(0, 2, 3, 1), training=False)


@pytest.fixture(scope="module")
def trained() -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A network, and the images of the test set that it gets right."""
    data = load("digits")
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(CLASSES),
        ]
    )
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(data.x_train, data.y_train, batch_size=64, epochs=12, verbose=0)
    right = np.flatnonzero(predict(network, data.x_test).argmax(axis=1) == data.y_test)[:150]
    assert len(right) == 150
    return network, data.x_test[right], data.y_test[right]


def to_torch(x: np.ndarray, y: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(y).long()


def to_numpy(x_adv: torch.Tensor) -> np.ndarray:
    return x_adv.detach().permute(0, 2, 3, 1).contiguous().numpy()


def distances(network, x: np.ndarray, y: np.ndarray, x_adv: np.ndarray, norm: str) -> np.ndarray:
    """How far the adversarial images are; infinitely where they do not fool."""
    offset = (x_adv.astype("float64") - x).reshape(len(x), -1)
    length = np.abs(offset).max(axis=1) if norm == "linf" else np.linalg.norm(offset, axis=1)
    return np.where(predict(network, x_adv).argmax(axis=1) != y, length, np.inf)


def fab_of_torchattacks(
    network, x: np.ndarray, y: np.ndarray, norm: str, steps: int, targets: int
) -> np.ndarray:
    """The distances that one start finds, or one start for each target."""
    peer = torchattacks.FAB(
        ChannelsFirst(network),
        norm=NAMES[norm],
        eps=0.3 if norm == "linf" else 1.0,
        steps=steps,
        multi_targeted=targets > 0,
        n_classes=CLASSES,
    )
    images = to_torch(x, y)
    if not targets:
        return distances(network, x, y, to_numpy(peer.attack_single_run(*images)), norm)
    found = []
    for rank in range(2, 2 + targets):
        peer.target_class = rank
        found.append(distances(network, x, y, to_numpy(peer.attack_single_run_targeted(*images)), norm))
    return np.min(found, axis=0)


@NORMS
@pytest.mark.parametrize("targets", [0, 9])
def test_fab_comes_as_near_and_fools_as_many(norm: str, targets: int, trained) -> None:
    network, x, y = trained
    theirs = fab_of_torchattacks(network, x, y, norm, steps=15, targets=targets)
    assert np.isfinite(theirs).mean() > 0.95
    attack = FAB(steps=15, targets=targets, norm=norm)
    ours = distances(network, x, y, attack(network, x, y, batch_size=150), norm)
    assert np.median(ours) == pytest.approx(np.median(theirs), rel=0.03)
    assert np.median(ours) <= 1.001 * np.median(theirs)
    assert (ours <= 1.03 * theirs).mean() > 0.97
    assert (ours >= 0.9 * theirs).mean() > 0.9  # the same boundaries
    # In the ball of the median: as many fooled.
    epsilon = float(np.median(theirs))
    x_adv = FAB(epsilon, steps=15, targets=targets, norm=norm)(network, x, y, batch_size=150)
    ours = distances(network, x, y, x_adv, norm)
    assert (ours[np.isfinite(ours)] <= epsilon).all()
    assert (ours == np.inf).mean() <= (theirs > epsilon).mean() + 0.01


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.08), ("linf", 0.1), ("l2", 0.4), ("l2", 0.55)])
def test_square_fools_as_many_with_equal_queries(norm: str, epsilon: float, trained) -> None:
    """The mean of two seeds each."""
    network, x, y = trained
    right = {"ours": [], "theirs": []}
    for seed in range(2):
        x_adv = Square(epsilon, 200, norm=norm)(network, x, y, batch_size=150, seed=seed)
        right["ours"].append((predict(network, x_adv).argmax(axis=1) == y).mean())
        peer = torchattacks.Square(
            ChannelsFirst(network), norm=NAMES[norm], eps=epsilon, n_queries=199, seed=seed
        )
        x_adv = to_numpy(peer(*to_torch(x, y)))  # it does not count the first query
        right["theirs"].append((predict(network, x_adv).argmax(axis=1) == y).mean())
    ours, theirs = np.mean(right["ours"]), np.mean(right["theirs"])
    assert 0.2 < theirs < 0.9
    assert ours <= theirs + 0.02
