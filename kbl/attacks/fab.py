"""FAB: along the decision boundary to the nearest adversarial image."""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from kbl import backend
from kbl.attacks import ball
from kbl.attacks.attack import Attack, Passes
from kbl.attacks.hyperplane import approach, length
from kbl.attacks.objective import is_hit, other_class
from kbl.attacks.state import Forward, State, choose, keep, per_image
from kbl.losses import margin
from kbl.losses.labels import pick
from kbl.typing import Norm, Tensor

_REACH: dict[Norm, float] = {"linf": 0.3, "l2": 1.0}  # ε that the paper's code takes where none is given
_FINAL_STEPS = 3
_PAST = 1.001  # how far past the expected boundary the final search looks, so that rounding does not undo it


@keras.saving.register_keras_serializable(package="kbl")
@dataclass(frozen=True)
class FAB(Attack):
    """Fast adaptive boundary attack (Croce & Hein, arXiv:1907.02044).

    Each step linearizes the boundary to another class where it is, takes δ from the iterate x' and δ₀ from the image x
    to the nearest points of that hyperplane in the cube, and moves to ``(1 - α)(x' + η δ) + α (x + η δ₀)`` with
    ``α = min(‖δ‖ / (‖δ‖ + ‖δ₀‖), alpha_max)``. From an adversarial iterate it goes back to ``x + β (x' - x)``.

    With `targets` (FAB-T) each start keeps to one other class and costs a backward pass a step; else the nearest of all
    K - 1 boundaries is taken, each for a forward and a backward pass. Another forward pass judges where the step leads.
    Without an ε the nearest adversarial image is returned; with one, the first that lies within the ball.

    Differs from the paper: the final search shortens the perturbation by projection onto smaller balls (in L2 the same)
    and stays 0.1 % outside the boundary that it expects; with an ε it is one look at the ball's surface. Random starts
    lie within ε / 2 (without an ε: 0.15 in L∞, 0.5 in L2), not within half the least distance of earlier starts.

    Args:
        epsilon: radius ε ≥ 0 of the ball, in pixel units (images lie in [0, 1]), or None.
        steps: number of steps ≥ 1.
        restarts: starts ≥ 1 (each `targets` times), the first at the image, later ones at random points.
        targets: how many of the likeliest other classes are approached, one after the other; 0: the nearest boundary.
        norm: "linf" or "l2".
        alpha_max: 0 ≤ α_max ≤ 1, the greatest share of the image's own projection.
        eta: overshoot η ≥ 1 past the hyperplane.
        beta: 0 ≤ β ≤ 1, what a step back leaves of the perturbation.
        name: how reports call it.

    Raises:
        ValueError: a field is out of its range.
    """

    epsilon: float | None = None
    steps: int = 100
    restarts: int = 1
    targets: int = 0
    norm: Norm = "linf"
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    name: str = "fab"

    def __post_init__(self) -> None:
        bounds = {"steps": 1, "restarts": 1, "targets": 0, "alpha_max": 0, "eta": 1, "beta": 0}
        self._require(*bounds.items(), *([] if self.epsilon is None else [("epsilon", 0)]))
        for field in ("alpha_max", "beta"):
            if getattr(self, field) > 1:
                raise ValueError(f"{field} must be at most 1. Received: {field}={getattr(self, field)}")

    def begin(self, forward: Forward, state: State) -> State:
        """Start at the image or at a random point; a clean mistake is the nearest adversarial image itself."""
        x, y = state["x"], state["y"]
        logits = ops.cast(forward(x), "float32")
        classes = logits.shape[-1]
        targets = min(self.targets, classes - 1)
        later = per_image(ops.cast(state["restart"] >= max(targets, 1), "float32"), x)
        if targets:
            others = ops.expand_dims(other_class(y, logits, ops.mod(state["restart"], targets)), 1)
        else:
            others = ops.mod(ops.expand_dims(y, 1) + ops.arange(1, classes, dtype="int32"), classes)
        mistaken = is_hit(y, logits)
        distance = ops.where(mistaken, ops.zeros_like(state["score"]), float("inf"))
        return {
            **keep(state, x, -distance, mistaken),
            "x_adv": ball.random_start(x, state["key"], state["index"], later * self.radius, self.norm),  # type: ignore[attr-defined]
            "others": others,
            "nearest": x,
            "distance": distance,
        }

    def step(self, forward: Forward, state: State, i: Tensor) -> State:
        """Linearize where the iterate is, move towards the hyperplane, judge, and step back from what fools."""
        x, x_adv = state["x"], state["x_adv"]
        f, w = self._boundary(forward, state)
        own_f = f + ops.sum(w * (x - x_adv), axis=tuple(range(1, len(x.shape))))
        ends, gaps = ops.concatenate([x_adv, x]), -ops.concatenate([f, own_f])
        towards, own = ops.split(approach(ends, ops.concatenate([w, w]), gaps, self.norm), 2)
        far, own_far = length(towards, self.norm), length(own, self.norm)
        alpha = per_image(ops.minimum(far / ops.maximum(far + own_far, 1e-12), self.alpha_max), x)
        mixed = (1.0 - alpha) * (x_adv + self.eta * towards) + alpha * (x + self.eta * own)
        x_adv = ops.clip(mixed, 0.0, 1.0)
        hit = is_hit(state["y"], forward(x_adv))
        return {**self._note(state, x_adv, hit), "x_adv": choose(hit, x + self.beta * (x_adv - x), x_adv)}

    def finish(self, forward: Forward, state: State) -> State:
        """Shorten what was found; with an ε: look whether it still fools when it is pulled onto the ball."""
        x, y, nearest = state["x"], state["y"], state["nearest"]

        def value(z: Tensor) -> Tensor:
            return margin(y, ops.cast(forward(z), "float32"))

        if self.epsilon is not None:
            pulled = ball.project(nearest, x, self.epsilon, self.norm)
            hit = value(pulled) > 0
            return keep(state, pulled, ops.where(hit, -length(pulled - x, self.norm), -float("inf")), hit)
        inner, outer = ops.zeros_like(state["distance"]), ops.nan_to_num(state["distance"], posinf=0.0)
        below, above = value(x), value(nearest)
        for _ in range(_FINAL_STEPS):
            share = -below / ops.maximum(above - below, 1e-37)
            radius = ops.minimum((inner + share * (outer - inner)) * _PAST, outer)
            shorter = ball.project(nearest, x, per_image(radius, x), self.norm)
            hit = (there := value(shorter)) > 0
            state = {**state, **self._note(state, shorter, hit)}
            inner, below = ops.where(hit, inner, radius), ops.where(hit, below, there)
            outer, above = ops.where(hit, radius, outer), ops.where(hit, there, above)
        return state

    def _boundary(self, forward: Forward, state: State) -> tuple[Tensor, Tensor]:
        """Return ``z_k - z_y`` and its gradient, scaled to a maximum of 1, for the class k of the nearest boundary."""
        x_adv, y, others = state["x_adv"], state["y"], state["others"]

        def next_class(j: Tensor, found: Any) -> Any:
            least, f, w = found
            other = ops.take(others, j, axis=1)

            def rise(z: Tensor) -> tuple[Tensor, Tensor]:
                logits = ops.cast(forward(z), "float32")
                value = pick(logits, other) - pick(logits, y)
                return ops.sum(value), value

            value, gradient = backend.value_and_grad(rise, x_adv)
            gradient = ops.nan_to_num(gradient, posinf=0.0, neginf=0.0)
            scale = ops.maximum(length(gradient, "linf"), 1e-37)
            gradient, scaled = gradient / per_image(scale, x_adv), ops.clip(value / scale, -1e30, 1e30)
            distance = ops.abs(scaled) / ops.maximum(length(gradient, self.norm, dual=True), 1e-7)
            nearer = distance < least
            least = ops.where(nearer, distance, least)
            return least, ops.where(nearer, scaled, f), choose(nearer, gradient, w)

        zero = ops.zeros_like(state["distance"])
        found = (zero + float("inf"), zero, ops.zeros_like(x_adv))
        return ops.fori_loop(0, others.shape[1], next_class, found)[1:]

    def _note(self, state: State, x_adv: Tensor, hit: Tensor) -> State:
        """Return what changes where x_adv fools and is nearer than what was found."""
        distance = length(x_adv - state["x"], self.norm)
        inside = hit if self.epsilon is None else hit & (distance <= self.epsilon)
        nearer = hit & (distance < state["distance"])
        score = ops.where(inside, -distance, -float("inf"))
        return {
            **keep(state, x_adv, score, inside, leave=not self.minimum_norm),
            "nearest": choose(nearer, x_adv, state["nearest"]),
            "distance": ops.where(nearer, distance, state["distance"]),
        }

    def numbers(self, shape: tuple[int, ...]) -> dict[str, float]:
        """Add the radius of random starts."""
        given = super().numbers(shape)
        return {**given, "radius": given.get("epsilon", _REACH[self.norm]) / 2}

    @property
    def minimum_norm(self) -> bool:
        """Without an ε."""
        return self.epsilon is None

    @property
    def begins_at_image(self) -> bool:
        """Always: `begin` judges it."""
        return True

    def passes(self, classes: int) -> tuple[Passes, Passes, Passes]:
        """Passes on a network of so many classes: each step linearizes one boundary or all, and judges one point."""
        boundaries = 1 if self.targets else classes - 1
        end = Passes(_FINAL_STEPS + 2 if self.minimum_norm else 1, 0)
        return Passes(1, 0), Passes(boundaries + 1, boundaries), end

    @property
    def label(self) -> str:
        """Short name, for example "FAB-T-100 ×9"."""
        starts = self.restarts * max(self.targets, 1)
        name = f"{self.name.upper()}{'-T' if self.targets else ''}-{self.steps}"
        return name + (f" ×{starts}" if starts > 1 else "") + (", L2" if self.norm == "l2" else "")
