"""L-BFGS: the attack that found adversarial examples, on whole batches."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
from keras import ops

from kbl import backend
from kbl.attacks.attack import Attack, Passes
from kbl.attacks.binary_search import next_constant
from kbl.attacks.objective import is_hit, other_class
from kbl.attacks.state import Forward, State, choose, keep
from kbl.losses import cross_entropy
from kbl.typing import Tensor

_ARMIJO = 1e-4  # share of the fall promised by the gradient that a step must bring
_PROGRESS = 1e-6  # share of the objective that it must fall by to go on
_SHORTEST = 1e-5  # a step halved below this is given up


@keras.saving.register_keras_serializable(package="kbl")
@dataclass(frozen=True)
class LBFGS(Attack):
    """The nearest adversarial image in L2 by box-constrained L-BFGS (Szegedy et al., arXiv:1312.6199).

    ``min_r ‖r‖² + c·cross_entropy(t, logits(x + r))`` with x + r in [0, 1], for the target t; a binary search finds the
    smallest c whose minimiser is adversarial. Each c starts at the image, or at the nearest adversarial one known.

    Each image has its own limited memory, direction, step and constant, and goes on to its next constant as soon as the
    objective falls no more. The box is kept by projection (Bertsekas, "Projected Newton methods", SIAM J. Control
    Optim. 20, 1982): pixels that the gradient presses against a bound are left out of the two-loop recursion, and the
    step is halved along the projected path until it satisfies Armijo's condition. Pixels of 0 or 1 move as others do.

    Called on arrays it returns the nearest adversarial image among all that were tried, or the image as it was.

    Args:
        steps: the most passes of the network for one constant, each a step or a halving of it; ≥ 1.
        binary_search_steps: constants tried ≥ 1.
        initial_c: the first constant > 0.
        history: pairs of steps and gradient changes remembered ≥ 1.
        targeted: the labels given are targets; else the target is the likeliest other class of the clean image, and
            any mistake counts as fooled.
        name: how reports call it.

    Raises:
        ValueError: a field is out of its range.

    Differs from the paper: c weighs the loss, not the distance, which is squared; projection stands for L-BFGS-B's
    generalised Cauchy point; and there is an untargeted form.
    """

    steps: int = 50
    binary_search_steps: int = 15
    initial_c: float = 1e-3
    history: int = 5
    targeted: bool = False
    name: str = "lbfgs"

    static: ClassVar[tuple[str, ...]] = ("targets", "history")

    def __post_init__(self) -> None:
        self._require(("steps", 1), ("binary_search_steps", 1), ("history", 1))
        if not 0 < self.initial_c < float("inf"):
            raise ValueError(f"initial_c must be positive and finite. Received: initial_c={self.initial_c}")

    def begin(self, forward: Forward, state: State) -> State:
        """Choose the target; an image that is adversarial already is done."""
        x, y, zero = state["x"], state["y"], ops.zeros_like(state["score"])
        logits = forward(x)
        hit = is_hit(y, logits, self.targeted)
        return {
            **keep(state, x, ops.where(hit, zero, -float("inf")), hit),
            "target": y if self.targeted else other_class(y, logits, ops.zeros((), "int32")),
            "c": zero + self.initial_c,
            "lower": zero,
            "upper": zero + float("inf"),
            "constants": ops.cast(zero, "int32"),
            **self._start(_flat(x)),
        }

    def _start(self, x: Tensor) -> State:
        """Return what each constant starts with: a point of infinite objective, and no memory."""
        pairs = ops.repeat(ops.expand_dims(ops.zeros_like(x), 1), self.history, axis=1)
        zero = ops.zeros_like(x[:, 0])
        return {
            "point": x,
            "value": zero + float("inf"),
            "gradient": ops.zeros_like(x),
            "direction": ops.zeros_like(x),
            "size": zero + 1.0,
            "moves": pairs,  # s and y of the literature, (batch, history, D), the newest last
            "changes": pairs,
            "taken": ops.cast(zero, "int32"),
            "adversarial": ops.cast(zero, "bool"),
        }

    def step(self, forward: Forward, state: State, i: Tensor) -> State:
        """Try one point: accept it and turn, or halve the step; then perhaps go on to the next constant."""
        x, point = _flat(state["x"]), state["point"]
        trial = ops.clip(point + state["size"][:, None] * state["direction"], 0.0, 1.0)
        image = ops.reshape(trial, (-1, *state["x"].shape[1:]))

        def weighted(images: Tensor) -> tuple[Tensor, Any]:
            logits = ops.cast(forward(images), "float32")
            loss = state["c"] * cross_entropy(state["target"], logits)
            return ops.sum(loss), (loss, logits)

        (loss, logits), gradient = backend.value_and_grad(weighted, image)
        squared = ops.sum(ops.square(trial - x), axis=1)
        gradient = 2.0 * (trial - x) + _flat(ops.nan_to_num(gradient, posinf=0.0, neginf=0.0))
        hit = is_hit(state["y"], logits, self.targeted)
        best = keep(state, image, ops.where(hit, -ops.sqrt(squared), -float("inf")), hit, leave=False)

        value, slope = squared + loss, ops.sum(state["gradient"] * (trial - point), axis=1)
        accept = value <= state["value"] + _ARMIJO * ops.minimum(slope, 0.0)
        stalled = accept & (state["value"] - value <= _PROGRESS * ops.abs(value))
        pairs = _remember(state, trial - point, gradient - state["gradient"], accept)
        direction, size = _turn(trial, gradient, pairs["moves"], pairs["changes"])
        moved = dict(point=trial, value=value, gradient=gradient, direction=direction, adversarial=hit)
        here = {name: choose(accept, new, state[name]) for name, new in moved.items()}
        here |= {**pairs, "taken": state["taken"] + 1, "size": ops.where(accept, size, state["size"] / 2.0)}
        over = stalled | (here["size"] < _SHORTEST) | (here["taken"] >= self.steps)
        return {**best, **self._go_on({**state, **best, **here}, over)}

    def _go_on(self, state: State, over: Tensor) -> State:
        """Let the images whose minimum is found go on to their next constant."""
        constants = next_constant(state["adversarial"], state["c"], state["lower"], state["upper"])
        nearest = choose(state["fooled"], state["best"], state["x"])
        start = self._start(_flat(nearest)) | dict(zip(("c", "lower", "upper"), constants, strict=True))
        start["constants"] = state["constants"] + 1
        changed = {name: choose(over, new, state[name]) for name, new in start.items()}
        return {**changed, "done": state["done"] | (changed["constants"] >= self.binary_search_steps)}

    @property
    def length(self) -> int:
        """The most passes over all constants."""
        return self.steps * self.binary_search_steps

    @property
    def minimum_norm(self) -> bool:
        """The nearest image is sought."""
        return True

    @property
    def begins_at_image(self) -> bool:
        """The first image judged is the clean one."""
        return True

    def passes(self, classes: int) -> tuple[Passes, Passes, Passes]:
        """One forward for the target, then one of each a step."""
        return Passes(1, 0), Passes(1, 1), Passes(0, 0)

    @property
    def label(self) -> str:
        """For example "L-BFGS-50 ×15"."""
        return f"L-BFGS-{self.steps} ×{self.binary_search_steps}" + (", targeted" if self.targeted else "")


def _flat(x: Tensor) -> Tensor:
    return ops.reshape(x, (-1, math.prod(x.shape[1:])))


def _remember(state: State, move: Tensor, change: Tensor, accept: Tensor) -> State:
    """Return the pairs of each image with the newest one added, if the objective curves upward along it."""
    entered = accept & (ops.sum(move * change, axis=1) > 0)

    def push(name: str, newest: Tensor) -> Tensor:
        return choose(entered, ops.concatenate([state[name][:, 1:], newest[:, None]], axis=1), state[name])

    return {"moves": push("moves", move), "changes": push("changes", change)}


def _turn(point: Tensor, gradient: Tensor, s: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the quasi-Newton direction by the two-loop recursion, (batch, D), and the first step's size, (batch,).

    Pixels at a bound whose descent leads outward are left out, of the pairs, too. Without pairs the Hessian is taken
    for that of ‖r‖², 2, and the first step made no longer than 1.
    """
    free = ops.cast(~(((point <= 0) & (gradient > 0)) | ((point >= 1) & (gradient < 0))), "float32")
    s, y = s * free[:, None], y * free[:, None]
    curvature, stiffness = ops.sum(s * y, axis=2), ops.sum(y * y, axis=2)
    history, sound = s.shape[1], curvature > 1e-10 * stiffness
    rho = ops.where(sound, 1.0 / ops.where(sound, curvature, 1.0), 0.0)

    def backwards(k: Tensor, carried: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        (d, alpha), j = carried, history - 1 - k
        share = rho[:, j, None] * ops.sum(s[:, j] * d, axis=1, keepdims=True)
        return d - share * y[:, j], ops.concatenate([share, alpha[:, :-1]], axis=1)

    def forwards(j: Tensor, d: Tensor) -> Tensor:
        share = alpha[:, j, None] - rho[:, j, None] * ops.sum(y[:, j] * d, axis=1, keepdims=True)
        return d + share * s[:, j]

    d, alpha = ops.fori_loop(0, history, backwards, (-free * gradient, ops.zeros_like(rho)))
    inverse = ops.where(sound[:, -1], curvature[:, -1] / ops.maximum(stiffness[:, -1], 1e-37), 0.5)
    d = ops.fori_loop(0, history, forwards, inverse[:, None] * d)
    size = 1.0 / ops.maximum(ops.sqrt(ops.sum(d * d, axis=1)), 1.0)
    return d, ops.where(ops.any(sound, axis=1), 1.0, size)
