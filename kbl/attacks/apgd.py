"""Auto-PGD: PGD that needs no step size."""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from kbl import backend
from kbl.attacks import ball
from kbl.attacks.attack import Attack, Passes
from kbl.attacks.objective import LOSSES, TOWARDS, is_hit, objective, other_class
from kbl.attacks.state import Forward, State, choose, keep, per_image
from kbl.typing import LossName, Norm, Tensor

_MOMENTUM = 0.75  # α of the paper
_RISES = 0.75  # ρ: the share of steps that must have raised the loss


@keras.saving.register_keras_serializable(package="kbl")
@dataclass(frozen=True)
class APGD(Attack):
    """Auto-PGD (Croce & Hein, arXiv:2003.01690, Algorithm 1): momentum, and a step that is halved where it stalls.

    ``z = P(x_i + η ∇)``, ``x_{i+1} = P(x_i + 0.75 (z - x_i) + 0.25 (x_i - x_{i-1}))``, from η = 2ε. At checkpoints,
    after 22 % of the steps and then at shrinking intervals, an image whose loss rose in fewer than three quarters of
    the steps, or that has found no new maximum with an η that was not just halved, halves η and goes on from its
    maximum.

    With `targets` = T it is APGD-T: T runs, each towards another class, the likeliest first.

    Args:
        epsilon: radius ε ≥ 0, in pixel units.
        steps: number of steps ≥ 1.
        restarts: starts ≥ 1, for each target.
        targets: classes approached one after the other; 0 raises the loss of the label instead.
        norm: "linf" or "l2".
        loss: as for `PGD`; with targets "cross_entropy", "margin", "dlr" or "nearest_mean".
        targeted: lower the loss of the labels given (the targets); not with `targets`.
        early_stop: leave a fooled image alone.
        eot: passes ≥ 1 over which loss and gradient are averaged, for networks that are random.
        name: how reports call it.

    Raises:
        ValueError: a field is out of its range, or two do not go together.
    """

    epsilon: float
    steps: int = 100
    restarts: int = 1
    targets: int = 0
    norm: Norm = "linf"
    loss: LossName = "cross_entropy"
    targeted: bool = False
    early_stop: bool = True
    eot: int = 1
    name: str = "apgd"

    static = ("targets", "eot")

    def __post_init__(self) -> None:
        self._require(("epsilon", 0), ("steps", 1), ("restarts", 1), ("targets", 0), ("eot", 1))
        known = TOWARDS if self.targets else LOSSES
        if self.loss not in known:
            raise ValueError(f"loss must be one of {', '.join(known)}. Received: loss={self.loss!r}")
        if self.targets and self.targeted:
            raise ValueError(
                "targets approaches other classes than the label's; it does not go with targeted"
            )

    @property
    def needs(self) -> int:
        """DLR divides by the third logit, its targeted form by the fourth, too."""
        return {"dlr": 4 if self.targets else 3}.get(self.loss, 2)

    def begin(self, forward: Forward, state: State) -> State:
        """Start at a random point and take its gradient."""
        x, y = state["x"], state["y"]
        state = dict(state)
        if self.targets:
            logits = forward(x)
            targets = min(self.targets, logits.shape[-1] - 1)
            state["target"] = other_class(y, logits, ops.mod(state["restart"], targets))
        start = ball.random_start(x, state["key"], state["index"], self.epsilon, self.norm)
        (loss, hit), gradient = self._rise(forward, state, start, 0)
        nothing = ops.zeros_like(loss)
        count = ops.zeros_like(state["index"])
        interval = count + self._share(0.22)
        return {
            **state,
            **keep(state, start, loss, hit, leave=self.early_stop),
            "x_adv": start,
            "before": start,
            "gradient": gradient,
            "loss": loss,
            "peak": start,
            "peak_gradient": gradient,
            "peak_loss": loss,
            "step_size": nothing + 2.0 * self.epsilon,
            "rises": count,
            "interval": interval,
            "countdown": interval,
            "checked_loss": loss,
            "was_halved": ops.ones_like(hit),
        }

    def step(self, forward: Forward, state: State, i: Tensor) -> State:
        """Move, keep what is best, and at a checkpoint halve the step where it stalls."""
        x_adv = self._moved(state, i)
        (loss, hit), gradient = self._rise(forward, state, x_adv, i + 1)
        higher = loss > state["peak_loss"]
        peak = choose(higher, x_adv, state["peak"])
        peak_gradient = choose(higher, gradient, state["peak_gradient"])
        peak_loss = ops.where(higher, loss, state["peak_loss"])
        rises = state["rises"] + ops.cast(loss > state["loss"], "int32")
        countdown = state["countdown"] - 1
        interval = state["interval"]
        due = countdown <= 0

        stalls = ops.cast(rises, "float32") < _RISES * ops.cast(interval, "float32")
        stalls = stalls | (~state["was_halved"] & (peak_loss <= state["checked_loss"]))
        halve = due & stalls
        next_interval = ops.maximum(interval - self._share(0.03), self._share(0.06))
        interval = ops.where(due, next_interval, interval)
        return {
            **keep(state, x_adv, loss, hit, leave=self.early_stop),
            "x_adv": choose(halve, peak, x_adv),
            "before": state["x_adv"],
            "gradient": choose(halve, peak_gradient, gradient),
            "loss": loss,
            "peak": peak,
            "peak_gradient": peak_gradient,
            "peak_loss": peak_loss,
            "step_size": ops.where(halve, 0.5 * state["step_size"], state["step_size"]),
            "rises": ops.where(due, 0, rises),
            "interval": interval,
            "countdown": ops.where(due, interval, countdown),
            "checked_loss": ops.where(due, peak_loss, state["checked_loss"]),
            "was_halved": ops.where(due, halve, state["was_halved"]),
        }

    def _moved(self, state: State, i: Tensor) -> Tensor:
        x, x_adv = state["x"], state["x_adv"]
        step_size = per_image(state["step_size"], x)
        aim = ball.ascend(x_adv, state["gradient"], step_size, self.norm)
        aim = ball.project(aim, x, self.epsilon, self.norm)
        share = ops.where(ops.equal(i, 0), 1.0, _MOMENTUM)
        moved = x_adv + share * (aim - x_adv) + (1.0 - share) * (x_adv - state["before"])
        return ball.project(moved, x, self.epsilon, self.norm)

    def _rise(self, forward: Forward, state: State, x_adv: Tensor, i: Tensor) -> tuple[Any, Tensor]:
        """Return ((loss, hit), gradient) at x_adv, averaged over `eot` passes."""

        def one(draw: Tensor) -> tuple[Any, Tensor]:
            def rise(z: Tensor) -> tuple[Tensor, Any]:
                logits = forward(z) if self.eot == 1 else forward(z, draw)
                loss = objective(
                    self.loss, state["y"], logits, targeted=self.targeted, target=state.get("target")
                )
                return ops.sum(loss), (loss, is_hit(state["y"], logits, self.targeted))

            return backend.value_and_grad(rise, x_adv)

        (loss, hit), gradient = one(i * self.eot)
        for draw in range(1, self.eot):
            (more, hit), slope = one(i * self.eot + draw)
            loss, gradient = loss + more, gradient + slope
        return (loss / self.eot, hit), gradient / self.eot

    def _share(self, share: float) -> Tensor:
        """A share of the steps in whole steps, at least one."""
        return ops.maximum(ops.cast(ops.cast(self.steps, "float32") * share + 1e-4, "int32"), 1)

    def passes(self, classes: int) -> tuple[Passes, Passes, Passes]:
        """`eot` each at the start and a step; one more to choose the target."""
        each = Passes(self.eot, self.eot)
        return Passes(self.eot + bool(self.targets), self.eot), each, Passes(0, 0)

    @property
    def label(self) -> str:
        """Short name, for example "APGD-100, DLR, 9 targets"."""
        losses = {"cross_entropy": "CE", "dlr": "DLR"}
        parts = [f"APGD-{self.steps}" + (f" ×{self.restarts}" if self.restarts > 1 else "")]
        parts += [losses.get(self.loss, self.loss.replace("_", " "))]
        parts += [f"{self.targets} targets"] if self.targets else []
        parts += ["L2"] if self.norm == "l2" else []
        parts += ["targeted"] if self.targeted else []
        parts += [f"EOT {self.eot}"] if self.eot > 1 else []
        return ", ".join(parts)
