"""What is measured: the same work by hand, by kbl and by its peers, on the same weights and images."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

import kbl
from kbl import networks

SHAPES = {"mnist_convnet": (28, 28, 1), "mnist_small_convnet": (28, 28, 1), "resnet32": (32, 32, 3)}
EPSILON = {"mnist_convnet": 0.3, "mnist_small_convnet": 0.08, "resnet32": 8 / 255}
CW = {"steps": 10, "phases": 3, "c": 1.0, "rate": 0.05}


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Args:
        name: how the table calls it.
        network: of `kbl.networks`.
        kind: "pgd", "cw", "at" or "atblr" (a training step), "worst" (20 restarts of PGD-40) or "autoattack".
        steps: of the attack.
        batches: training steps that are timed together, an epoch; `fit` itself takes 0.02 to 0.07 s.
        by_hand: whether there is a loop written by hand.
        fixed: whether everybody does the same number of passes.
    """

    name: str
    network: str
    kind: str
    steps: int = 10
    batches: int = 1
    by_hand: bool = True
    fixed: bool = True

    @property
    def head(self) -> str:
        return "gmm" if self.kind == "atblr" else "dense"

    @property
    def epsilon(self) -> float:
        return EPSILON[self.network]

    @property
    def step_size(self) -> float:
        return self.epsilon if self.steps == 1 else self.epsilon / 10


CASES = {
    "fgsm": Case("FGSM", "mnist_convnet", "pgd", steps=1),
    "pgd10": Case("PGD-10", "mnist_convnet", "pgd"),
    "pgd40": Case("PGD-40", "mnist_convnet", "pgd", steps=40),
    "cw": Case("C&W L2, 3 × 10 steps", "mnist_convnet", "cw", steps=30),
    "at": Case("AT step, PGD-10", "mnist_convnet", "at", batches=8),
    "atblr": Case("ATBLR step, PGD-10", "mnist_convnet", "atblr", batches=8),
    "resnet-pgd10": Case("PGD-10", "resnet32", "pgd"),
    "resnet-at": Case("AT step, PGD-10", "resnet32", "at"),
    "resnet-atblr": Case("ATBLR step, PGD-10", "resnet32", "atblr"),
    "worst": Case("PGD-40, 20 restarts", "mnist_small_convnet", "worst", 40, by_hand=False, fixed=False),
    "autoattack": Case("AutoAttack", "mnist_small_convnet", "autoattack", 100, by_hand=False, fixed=False),
}


@dataclass
class Work:
    """A case made ready on this process' backend.

    Args:
        contestants: what each runs; it returns the share of images that are still right, a loss or a median distance.
        flops: of a forward pass over the batch.
        epsilon: radius.
    """

    contestants: dict[str, Callable[[], float]]
    flops: float
    epsilon: float


def prepare(case: Case, batch: int, only: str | None = None) -> Work:
    """Build networks, images and contestants (`only` one of them)."""
    shape = SHAPES[case.network]
    options = {} if case.network == "resnet32" else {"batch_normalization": False}
    network = networks.build(
        case.network, head=case.head, num_classes=10, image_shape=shape, seed=0, **options
    )
    rng = np.random.default_rng(0)
    count = batch * case.batches
    if case.network == "resnet32":
        x, y = rng.random((count, *shape)).astype("float32"), np.zeros(count, "int32")
    else:
        data = kbl.data.load("mnist")
        x, y = data.x_test[:count], data.y_test[:count].astype("int32")
    epsilon = case.epsilon
    if case.fixed and case.kind in ("pgd", "cw"):
        y = kbl.attacks.predict(network, x).argmax(axis=1).astype("int32")  # all right, so all are attacked
    elif not case.fixed:
        epsilon = _half_robust(network, kbl.data.load("mnist"), x, y)
    weights = {f"{layer.name}/{w.name}": w.numpy() for layer in network.layers for w in layer.weights}
    made: dict[str, Callable[[], float]] = {}
    if case.by_hand and only in (None, "by hand"):
        made["by hand"] = _by_hand(case, weights, x, y, batch)
    if only in (None, "kbl"):
        made["kbl"] = _kbl(case, network, x, y, batch, epsilon)
    if case.kind == "autoattack" and only is None:
        made["kbl, 10 steps"] = _short_autoattack(network, x, y, batch, epsilon)
    if keras.config.backend() == "torch" and only is None:
        from benchmarks import peers

        floor = importlib.import_module("benchmarks.handwritten.torch").Floor(case.network, weights)
        made |= peers.contestants(case, floor, x, y, epsilon)
    return Work(made, _flops(network, batch), epsilon)


def _half_robust(network: Any, data: Any, x: Any, y: Any) -> float:
    """Train plainly for an epoch; return a radius at which about half of the images stand."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    keras.utils.set_random_seed(0)
    network.compile("adam", loss=loss, jit_compile=False)
    network.fit(
        data.x_train[:20000], data.y_train[:20000], batch_size=128, epochs=1, verbose=0, shuffle=False
    )
    shares = {}
    for epsilon in np.arange(0.02, 0.2, 0.01):
        attack = kbl.attacks.PGD(float(epsilon), float(epsilon) / 10, 40)
        shares[float(epsilon)] = 1 - attack.search(network, x, y, batch_size=len(x)).fooled.mean()
    return min(shares, key=lambda epsilon: abs(shares[epsilon] - 0.5))


def _by_hand(case: Case, weights: Any, x: Any, y: Any, batch: int) -> Callable[[], float]:
    module = importlib.import_module(f"benchmarks.handwritten.{keras.config.backend()}")
    floor = module.Floor(case.network, weights)
    attack = (case.epsilon, case.step_size, case.steps)
    if case.kind == "pgd":
        return lambda: float(floor.pgd(x, y, *attack, random=case.steps > 1).mean())
    if case.kind == "cw":
        return lambda: float(np.median(floor.cw(x, y, **CW)))
    return lambda: floor.epoch(x, y, batch, case.kind, attack)


def _kbl(case: Case, network: Any, x: Any, y: Any, batch: int, epsilon: float) -> Callable[[], float]:
    attack: Any = kbl.attacks.PGD(epsilon, epsilon / 10, case.steps, early_stop=False)
    if case.kind in ("at", "atblr"):
        model = kbl.RobustModel(network)
        if case.kind == "at":
            method: Any = kbl.methods.AdversarialTraining(attack=attack, examples="clean and adversarial")
        else:
            method = kbl.methods.ATBLR(attack=attack, likelihood_weight=0.02, gradient_through="means")
        jit = (
            {"jit_compile": False} if keras.config.backend() == "tensorflow" else {}
        )  # as kbl's recipes train
        model.compile(keras.optimizers.Adam(1e-3), method=method, **jit)
        batches = kbl.training.Batches(x, y, batch, seed=0)
        return lambda: float(model.fit(batches, verbose=0).history["loss"][-1])
    if case.kind == "cw":
        attack = kbl.attacks.CarliniWagner(
            steps=CW["steps"],
            binary_search_steps=CW["phases"],
            initial_c=CW["c"],
            learning_rate=CW["rate"],
            abort_early=False,
        )
        return lambda: float(-np.median(attack.search(network, x, y, batch_size=batch).score))
    if case.kind == "autoattack":
        attack = kbl.attacks.AutoAttack(epsilon)
    elif case.kind == "worst":
        attack = kbl.attacks.PGD(epsilon, epsilon / 10, case.steps, restarts=20)
    elif case.steps == 1:
        attack = kbl.attacks.FGSM(epsilon)
    return lambda: float(1 - attack.search(network, x, y, batch_size=batch).fooled.mean())


def _short_autoattack(network: Any, x: Any, y: Any, batch: int, epsilon: float) -> Callable[[], float]:
    """As torchattacks has it by itself: 10 steps in all parts but Square."""
    steps = {"epsilon": epsilon, "steps": 10}
    parts = (
        kbl.attacks.APGD(**steps),
        kbl.attacks.APGD(**steps, loss="dlr", targets=9),
        kbl.attacks.FAB(**steps, targets=9),
        kbl.attacks.Square(epsilon),
    )
    attack = kbl.attacks.AutoAttack(epsilon, version="custom", attacks=parts)
    return lambda: float(1 - attack.search(network, x, y, batch_size=batch).fooled.mean())


def _flops(network: Any, batch: int) -> float:
    """Return the floating-point operations of a forward pass, those of convolutions and dense layers."""
    total = 0.0
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            total += 2.0 * np.prod(layer.kernel.shape) * np.prod(layer.output.shape[1:3])
        elif isinstance(layer, keras.layers.Dense) or layer.name == "head":
            total += 2.0 * np.prod(layer.weights[0].shape)
    return total * batch
