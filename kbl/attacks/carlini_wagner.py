"""Carlini & Wagner's minimum-norm attack."""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from kbl import backend
from kbl.attacks.attack import Attack, Passes
from kbl.attacks.binary_search import next_constant
from kbl.attacks.objective import is_hit, objective
from kbl.attacks.state import Forward, State, choose, keep, per_image
from kbl.typing import Tensor

_SMOOTHING = 1.0 - 1e-6  # atanh of a pixel of exactly 0 or 1 would be infinite, and its gradient gone
_DECAYS = (0.9, 0.999)  # of Adam


@keras.saving.register_keras_serializable(package="kbl")
@dataclass(frozen=True)
class CarliniWagner(Attack):
    """Carlini & Wagner's L2 attack (arXiv:1608.04644, §V-A): the nearest adversarial image that Adam finds.

    With ``x_adv = ½ (tanh w + 1)`` it minimises ``‖x_adv - x‖₂² + c · max(z_y - max_{k≠y} z_k, -κ)`` over w
    (targeted: with the sign of the margin turned), and searches c by bisection: smaller where an adversarial image was
    found, larger where none was. Each image does so at its own pace: one that makes no progress goes on to its next c
    at once.

    An image for which none was found is returned as it is.

    Args:
        kappa: κ ≥ 0, the margin of logits by which the image must be wrong.
        steps: most steps of Adam ≥ 1 for each c.
        binary_search_steps: values of c tried ≥ 1.
        initial_c: first c > 0.
        learning_rate: of Adam, > 0.
        targeted: reach the labels given instead of leaving them.
        abort_early: go on to the next c when a tenth of the steps has gained less than a ten-thousandth of the loss.
        name: how reports call it.

    Raises:
        ValueError: a field is out of its range.
    """

    kappa: float = 0.0
    steps: int = 1000
    binary_search_steps: int = 9
    initial_c: float = 1e-3
    learning_rate: float = 0.01
    targeted: bool = False
    abort_early: bool = True
    name: str = "carlini_wagner"

    def __post_init__(self) -> None:
        self._require(("kappa", 0), ("steps", 1), ("binary_search_steps", 1))
        for field in ("initial_c", "learning_rate"):
            if not getattr(self, field) > 0:
                raise ValueError(f"{field} must be positive. Received: {field}={getattr(self, field)}")

    @property
    def minimum_norm(self) -> bool:
        """It seeks the nearest."""
        return True

    @property
    def length(self) -> int:
        """Of an image that no phase is cut short for."""
        return self.steps * self.binary_search_steps

    def begin(self, forward: Forward, state: State) -> State:
        """Start at the image."""
        w = _to_w(state["x"])
        nothing = ops.zeros_like(state["score"])
        return {
            "w": w,
            "start": w,
            "momentum": ops.zeros_like(w),
            "variance": ops.zeros_like(w),
            "c": nothing + self.initial_c,
            "lower": nothing,
            "upper": nothing + float("inf"),
            "found": ops.zeros_like(state["done"]),
            "checked_loss": nothing + float("inf"),
            "inner": ops.zeros_like(state["index"]),
            "phase": ops.zeros_like(state["index"]),
        }

    def step(self, forward: Forward, state: State, i: Tensor) -> State:
        """Take one step of Adam; an image whose phase is over begins the next one."""
        x, y = state["x"], state["y"]

        def fall(w: Tensor) -> tuple[Tensor, Any]:
            x_adv = 0.5 * (ops.tanh(w) + 1.0)
            square = ops.sum(ops.square(x_adv - x), axis=tuple(range(1, len(x.shape))))
            logits = forward(x_adv)
            gain = objective("margin", y, logits, targeted=self.targeted)
            capped = ops.where(gain < self.kappa, gain, self.kappa)
            loss = square - state["c"] * capped
            hit = is_hit(y, logits, self.targeted) & (gain >= self.kappa)
            return ops.sum(loss), (x_adv, square, loss, hit)

        (x_adv, square, loss, hit), gradient = backend.value_and_grad(fall, state["w"])
        hit = hit & ~state["done"]
        best = keep(state, x_adv, ops.where(hit, -ops.sqrt(square), -float("inf")), hit, leave=False)
        changes = {"found": state["found"] | hit, "inner": state["inner"] + 1}
        changes |= self._adam(state, gradient, changes["inner"])
        over = changes["inner"] >= self.steps
        if self.abort_early:
            tenth = ops.maximum(ops.floor_divide(self.steps, 10), 1)
            check = ops.equal(ops.mod(state["inner"], tenth), 0)
            over = over | (check & (loss > 0.9999 * state["checked_loss"]))
            changes["checked_loss"] = ops.where(check, loss, state["checked_loss"])
        return {**best, **self._next_phase({**state, **changes}, over)}

    def _adam(self, state: State, gradient: Tensor, taken: Tensor) -> State:
        first, second = _DECAYS
        momentum = first * state["momentum"] + (1.0 - first) * gradient
        variance = second * state["variance"] + (1.0 - second) * ops.square(gradient)
        taken = per_image(ops.cast(taken, "float32"), gradient)
        direction = momentum / (1.0 - first**taken)
        direction = direction / (ops.sqrt(variance / (1.0 - second**taken)) + 1e-8)
        return {
            "w": state["w"] - self.learning_rate * direction,
            "momentum": momentum,
            "variance": variance,
        }

    def _next_phase(self, state: State, over: Tensor) -> State:
        """Return the fields of a phase: for images whose phase is over those of a fresh one with another c."""
        c, lower, upper = next_constant(state["found"], state["c"], state["lower"], state["upper"])
        phase = state["phase"] + ops.cast(over, "int32")
        nothing = ops.zeros_like(state["w"])
        return {
            "w": choose(over, state["start"], state["w"]),
            "momentum": choose(over, nothing, state["momentum"]),
            "variance": choose(over, nothing, state["variance"]),
            "c": ops.where(over, c, state["c"]),
            "lower": ops.where(over, lower, state["lower"]),
            "upper": ops.where(over, upper, state["upper"]),
            "found": state["found"] & ~over,
            "checked_loss": ops.where(over, float("inf"), state["checked_loss"]),
            "inner": ops.where(over, 0, state["inner"]),
            "phase": phase,
            "done": state["done"] | (phase >= self.binary_search_steps),
        }

    @property
    def label(self) -> str:
        """Short name, for example "C&W L2, κ = 5"."""
        parts = ["C&W L2"] + ([f"κ = {self.kappa:g}"] if self.kappa else [])
        return ", ".join(parts + (["targeted"] if self.targeted else []))

    def passes(self, classes: int) -> tuple[Passes, Passes, Passes]:
        """One each a step."""
        return Passes(0, 0), Passes(1, 1), Passes(0, 0)


def _to_w(x: Tensor) -> Tensor:
    return ops.arctanh((2.0 * x - 1.0) * _SMOOTHING)
