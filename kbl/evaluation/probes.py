"""Small experiments on a network that show whether attacks on it can be trusted."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from kbl import backend
from kbl.attacks import PGD, ball, predict
from kbl.attacks.prediction import compiled, is_right
from kbl.losses import cross_entropy
from kbl.typing import Network, Norm

Array = np.ndarray[Any, Any]

_STEPS = 20


@dataclass(frozen=True)
class Probes:
    """What the experiments found on some images.

    Args:
        repeated: greatest difference of logits between two passes over the same images.
        regrouped: greatest difference between the images together and each alone, in reversed order.
        scale: greatest difference between two logits of an image, to measure the others by.
        dtype: of the logits as the network returns them.
        zero_gradient: share of images whose gradient of cross-entropy is exactly zero at some step.
        rising: share of images whose cross-entropy is higher after the steps than before.
        unbounded: accuracy under PGD that may change the images at will.
    """

    repeated: float
    regrouped: float
    scale: float
    dtype: str
    zero_gradient: float
    rising: float
    unbounded: float


def probe(network: Network, x: Array, y: Array, epsilon: float, norm: Norm, seed: int = 0) -> Probes:
    """Run every experiment.

    Args:
        network: any Keras model that returns logits.
        x: (n, ...) float32 in [0, 1], images that are classified right.
        y: (n,) int32 labels.
        epsilon: radius of the steps whose gradients and losses are looked at.
        norm: "linf" or "l2".
        seed: seed of the random starts.
    """
    logits, again, dtype = _twice(network, x)
    few = min(len(x), 16)
    alone = predict(network, x[:few][::-1], batch_size=1)[::-1]
    losses, zero = _ascent(network, x, y, epsilon, norm)
    # From L2 attacks on, every ball of radius √D holds the whole cube; with L∞ that of radius 1 does.
    at_will = PGD(1.0, 0.1, 40, restarts=2, loss="margin")(network, x, y, seed=seed)
    return Probes(
        repeated=float(np.abs(logits - again).max()),
        regrouped=float(np.abs(logits[:few] - alone).max()),
        scale=float(np.ptp(logits, axis=1).max()),
        dtype=dtype,
        zero_gradient=float(zero.mean()),
        rising=float((losses[-1] > losses[0]).mean()),
        unbounded=float(is_right(predict(network, at_will), y).mean()),
    )


def _twice(network: Network, x: Array) -> tuple[Array, Array, str]:
    """Return the logits of two passes, with other random numbers where the network draws any, and their dtype."""
    seen = []

    def draw(forward: Any, x: Any, number: Any) -> Any:
        logits = forward(x, number)
        seen.append(ops.dtype(logits) if hasattr(ops, "dtype") else logits.dtype)
        return ops.cast(logits, "float32")

    run = backend.compiled(network, draw)
    first, second = (np.asarray(ops.convert_to_numpy(run(x, number))) for number in (0, 1))
    return first, second, str(seen[0]).removeprefix("torch.").removeprefix("<dtype: '").removesuffix("'>")


def _ascent(network: Network, x: Array, y: Array, epsilon: float, norm: Norm) -> tuple[Array, Array]:
    """Take steps of PGD from the images; return (steps + 1, n) losses, and whether a gradient was zero, (n,)."""

    def slope(forward: Any, x_adv: Any, y: Any) -> Any:
        def loss(z: Any) -> Any:
            each = cross_entropy(y, ops.cast(forward(z), "float32"))
            return ops.sum(each), each

        return backend.value_and_grad(loss, x_adv)

    run = compiled(network, "slope", slope)
    x_adv, centre = ops.convert_to_tensor(x), ops.convert_to_tensor(x)
    losses, zero = [], np.zeros(len(x), bool)
    for step in range(_STEPS + 1):
        loss, gradient = run(x_adv, y)
        losses.append(np.asarray(ops.convert_to_numpy(loss)))
        if step < _STEPS:
            flat = ops.reshape(gradient, (len(x), -1))
            zero |= ~np.asarray(ops.convert_to_numpy(ops.any(ops.not_equal(flat, 0.0), axis=1)))
            x_adv = ball.ascend(x_adv, gradient, 2.5 * epsilon / _STEPS, norm)
            x_adv = ball.project(x_adv, centre, epsilon, norm)
    return np.stack(losses), zero
