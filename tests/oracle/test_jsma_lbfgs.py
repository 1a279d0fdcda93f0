"""JSMA beside torchattacks', L-BFGS beside SciPy's L-BFGS-B and foolbox' Carlini & Wagner."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from kbl.attacks import predict
from kbl.attacks.jsma import JSMA
from kbl.attacks.lbfgs import LBFGS

if keras.backend.backend() != "torch":
    pytest.skip("the peers attack torch networks", allow_module_level=True)

import torch


class ChannelsFirst(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images.permute(0, 2, 3, 1), training=False)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    network = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3, padding="same", activation="tanh"),
            layers.Flatten(),
            layers.Dense(8, activation="tanh"),
            layers.Dense(4),
        ]
    )
    rng = np.random.default_rng(1)
    network.set_weights([rng.normal(size=w.shape) * 0.3 for w in network.weights])
    return network


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).random((16, 6, 6, 1)).astype("float32") * 0.98


def import_peer(name: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


@pytest.mark.parametrize("gamma", [0.2, 0.6])
def test_jsma_returns_what_torchattacks_does(gamma: float, network, images) -> None:
    """With θ = 1 both change the same pairs for as long as there is an admissible one."""
    torchattacks = import_peer("torchattacks")
    target = (predict(network, images).argmax(axis=1) + 1) % 4
    peer = torchattacks.JSMA(ChannelsFirst(network), theta=1.0, gamma=gamma)
    peer.set_mode_targeted_by_label(quiet=True)
    expected = peer(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(target))
    expected = expected.detach().permute(0, 2, 3, 1).numpy()
    theirs = predict(network, expected).argmax(axis=1) == target
    outcome = JSMA(gamma=gamma, targeted=True).search(network, images, target)
    assert 3 < theirs.sum() < 16
    assert (outcome.fooled >= theirs).all()
    np.testing.assert_array_equal(outcome.x_adv[theirs], expected[theirs])


def test_lbfgs_is_never_far_behind_lbfgsb(network, images) -> None:
    """The same search over c with SciPy's bounded minimiser, from the image, in float64."""
    optimize = import_peer("scipy.optimize")
    images = images[:8]
    logits = predict(network, images)
    y = logits.argmax(axis=1)
    outcome = LBFGS(initial_c=0.1, binary_search_steps=9).search(network, images, y)
    distances = [
        distance_by_scipy(optimize, network, *image) for image in zip(images, y, second(logits), strict=True)
    ]
    assert np.isfinite(distances).sum() > 6
    assert outcome.fooled[np.isfinite(distances)].all()
    ratios = (-outcome.score / distances)[np.isfinite(distances)]
    assert np.median(ratios) < 1.01
    assert np.quantile(ratios, 0.9) < 1.05


def second(logits: np.ndarray) -> np.ndarray:
    """The likeliest class but for the first."""
    return np.argsort(-logits, axis=1)[:, 1]


def distance_by_scipy(optimize, network: keras.Model, image: np.ndarray, label: int, target: int) -> float:
    x = image.reshape(-1).astype("float64")
    c, lower, upper, nearest = 0.1, 0.0, np.inf, np.inf

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        z = torch.tensor(point.reshape(1, 6, 6, 1), dtype=torch.float32, requires_grad=True)
        loss = torch.nn.functional.cross_entropy(network(z, training=False), torch.tensor([target]))
        (gradient,) = torch.autograd.grad(loss, z)
        r = point - x
        return float(r @ r + c * loss.item()), 2 * r + c * gradient.numpy().reshape(-1).astype("float64")

    for _ in range(9):
        found = optimize.minimize(objective, x, jac=True, method="L-BFGS-B", bounds=[(0, 1)] * x.size)
        logits = network(ops.convert_to_tensor(found.x.reshape(1, 6, 6, 1), "float32"), training=False)
        if int(logits.argmax()) != label:
            nearest, upper = min(nearest, float(np.linalg.norm(found.x - x))), min(upper, c)
        else:
            lower = max(lower, c)
        c = (lower + upper) / 2 if np.isfinite(upper) else 10 * c
    return nearest


def test_lbfgs_is_never_far_behind_foolbox_carlini_wagner(network, images) -> None:
    foolbox = import_peer("foolbox")
    target = second(predict(network, images))
    outcome = LBFGS(targeted=True).search(network, images, target)
    model = foolbox.PyTorchModel(ChannelsFirst(network).eval(), bounds=(0, 1), device="cpu")
    peer = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=6, steps=150, stepsize=0.03, initial_const=0.1
    )
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    goal = foolbox.criteria.TargetedMisclassification(torch.from_numpy(target))
    _, found, success = peer(model, x, goal, epsilons=None)
    theirs = torch.linalg.vector_norm((found - x).flatten(1), dim=1).detach().numpy()
    success = success.numpy()
    assert success.sum() > 12
    assert outcome.fooled[success].all()
    assert np.median((-outcome.score / theirs)[success]) < 1.05
