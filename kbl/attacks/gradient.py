"""PGD, and what is made of it: FGSM, BIM, and Carlini & Wagner's loss in the L∞ ball."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
from keras import ops

from kbl import backend
from kbl.attacks import ball
from kbl.attacks.attack import Attack, Passes
from kbl.attacks.objective import LOSSES, is_hit, objective
from kbl.attacks.state import Forward, State, keep
from kbl.typing import LossName, Norm, Tensor


@keras.saving.register_keras_serializable(package="kbl")
@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient descent on the worst case in a ball (Madry et al., arXiv:1706.06083).

    ``x ← project(x + step_size · direction(∇ loss))``, `steps` times, where the direction is the gradient's sign (L∞)
    or the unit gradient (L2). `FGSM` and `BIM` are the same loop with other settings.

    Called on arrays it returns, for each image, the first iterate that is misclassified where there is one (with
    ``early_stop=False``: the misclassified one of greatest loss), else the iterate of greatest loss. So more steps or
    restarts never leave more images right. Inside a training step (`craft`) it returns the last iterate, as Madry's.

    Args:
        epsilon: radius ε ≥ 0 of the ball, in pixel units (images lie in [0, 1]).
        step_size: length of a step ≥ 0, in the same units.
        steps: number of steps ≥ 1.
        restarts: starts ≥ 1; later ones take only the images that still stand.
        random_start: start at a point drawn uniformly from the ball, else at the image.
        norm: "linf" or "l2".
        loss: what is raised: "cross_entropy", "margin" (Carlini & Wagner's) or "dlr"; for a Gaussian head also
            "likelihood" (Eq. 6 of the ATBLR paper), "nearest_mean" and "distance_margin".
        kappa: confidence κ ≥ 0 past which the margin is raised no further; infinite by default.
        targeted: lower the loss of the labels given (the targets) instead; fooled is then "classified as the target".
        early_stop: leave a fooled image alone (on the margin: once it is wrong by a finite κ), and stop when all are.
        name: how reports call it.

    Raises:
        ValueError: a field is out of its range.
    """

    epsilon: float
    step_size: float
    steps: int
    restarts: int = 1
    random_start: bool = True
    norm: Norm = "linf"
    loss: LossName = "cross_entropy"
    kappa: float = float("inf")
    targeted: bool = False
    early_stop: bool = True
    name: str = "pgd"

    unseen: ClassVar[tuple[str, ...]] = ("name", "random_start")

    def __post_init__(self) -> None:
        self._require(("epsilon", 0), ("step_size", 0), ("steps", 1), ("restarts", 1), ("kappa", 0))
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}. Received: loss={self.loss!r}")

    def begin(self, forward: Forward, state: State) -> State:
        """Start at a random point, or at the image."""
        x = state["x"]
        start = ball.random_start(x, state["key"], state["index"], self.radius, self.norm)  # type: ignore[attr-defined]
        if self.norm == "l2":
            return {"x_adv": start}
        low, high = ball.region(x, self.epsilon, self.norm)
        return {"x_adv": start, "low": low, "high": high}

    def step(self, forward: Forward, state: State, i: Tensor) -> State:
        """Keep the iterate if it is the best, and move on."""

        def rise(x_adv: Tensor) -> tuple[Tensor, Any]:
            found = self._score(forward, state, x_adv)
            return ops.sum(found[0]), found

        (score, hit), gradient = backend.value_and_grad(rise, state["x_adv"])
        best = keep(state, state["x_adv"], score, hit, self._leaves(score))
        moved = ball.ascend(state["x_adv"], gradient, self.step_size, self.norm)
        region = (state["x"], self.epsilon) if self.norm == "l2" else (state["low"], state["high"])
        return {**best, "x_adv": ball.into(moved, region, self.norm)}

    def finish(self, forward: Forward, state: State) -> State:
        """Judge the last iterate."""
        score, hit = self._score(forward, state, state["x_adv"])
        return keep(state, state["x_adv"], score, hit, self._leaves(score))

    def _score(self, forward: Forward, state: State, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        logits = forward(x_adv)
        return self._objective(state["y"], logits), is_hit(state["y"], logits, self.targeted)

    def _leaves(self, score: Tensor) -> Tensor | bool:
        if not self.early_stop or self.loss != "margin":
            return self.early_stop
        return (score >= self.kappa) | ops.equal(self.kappa, float("inf"))

    def _objective(self, y: Tensor, logits: Tensor) -> Tensor:
        return objective(self.loss, y, logits, targeted=self.targeted, kappa=self.kappa)

    def numbers(self, shape: tuple[int, ...]) -> dict[str, float]:
        """Add the radius of the start."""
        given = super().numbers(shape)
        return {**given, "radius": given["epsilon"] if self.random_start else 0.0}

    def starts(self, classes: int) -> int:
        """One from the image: another would be the same."""
        return super().starts(classes) if self.random_start else 1

    @property
    def begins_at_image(self) -> bool:
        """Without a random start; but the mistakes that would not be left alone must be known before."""
        return not self.random_start and self.early_stop

    def passes(self, classes: int) -> tuple[Passes, Passes, Passes]:
        """One each a step, and one forward to judge the last iterate."""
        return Passes(0, 0), Passes(1, 1), Passes(1, 0)

    def craft(
        self,
        forward: Forward,
        x: Tensor,
        y: Tensor,
        index: Tensor,
        key: Tensor,
        scale: Any = 1.0,
        start: Tensor | None = None,
    ) -> Tensor:
        """Return the last iterate, for use inside a compiled training step.

        Args:
            forward: maps images to logits.
            x: (batch, ...) float32 in [0, 1].
            y: (batch,) labels or (batch, K) one-hot.
            index: (batch,) int32, the identity of each image for its random start.
            key: int32 scalar of `kbl.random.key`.
            scale: factor on ε and the step size, a number, a scalar or (batch, 1, ...).
            start: (batch, ...) where to begin; by default as `random_start` says.

        Returns:
            (batch, ...) float32 inside the ball and [0, 1].
        """
        epsilon = scale * ball.interior(self.epsilon, self.norm, math.prod(x.shape[1:]))
        step_size = scale * self.step_size

        def step(
            forward: Forward, x_adv: Tensor, y: Tensor, step_size: Any, region: tuple[Any, Any]
        ) -> Tensor:
            _, gradient = backend.value_and_grad(
                lambda z: (ops.sum(self._objective(y, forward(z))), ()), x_adv
            )
            return ball.into(ball.ascend(x_adv, gradient, step_size, self.norm), region, self.norm)

        if start is not None:
            start = ball.project(start, x, epsilon, self.norm)
        else:
            start = ball.random_start(x, key, index, epsilon, self.norm) if self.random_start else x
        constants = (y, step_size, ball.region(x, epsilon, self.norm))
        return backend.repeated_inside(
            forward, (self.identity, self.kappa), step, self.steps, start, constants
        )

    @property
    def label(self) -> str:
        """Short name with what tells attacks apart, for example "PGD-40 ×20, margin"."""
        name = {"cw": "C&W"}.get(self.name, self.name.upper()) + (
            f"-{self.steps}" if self.name != "fgsm" else ""
        )
        name += f" ×{self.restarts}" if self.restarts > 1 else ""
        plain = {"cw": "margin"}.get(self.name, "cross_entropy")
        details = [self.loss.replace("_", " ")] if self.loss != plain else []
        details += [f"κ = {self.kappa:g}"] if math.isfinite(self.kappa) and self.kappa else []
        details += ["L2"] if self.norm == "l2" else []
        details += ["targeted"] if self.targeted else []
        return ", ".join([name, *details])


def FGSM(  # noqa: N802 - the field's name
    epsilon: float, norm: Norm = "linf", loss: LossName = "cross_entropy", targeted: bool = False
) -> PGD:
    """Fast gradient sign method (Goodfellow et al., arXiv:1412.6572): one step of length ε from the image."""
    return PGD(epsilon, epsilon, 1, random_start=False, norm=norm, loss=loss, targeted=targeted, name="fgsm")


def BIM(  # noqa: N802 - the field's name
    epsilon: float,
    step_size: float,
    steps: int,
    norm: Norm = "linf",
    loss: LossName = "cross_entropy",
    targeted: bool = False,
    early_stop: bool = True,
) -> PGD:
    """Basic iterative method (Kurakin et al., arXiv:1611.01236): PGD that starts at the image."""
    return PGD(
        epsilon,
        step_size,
        steps,
        random_start=False,
        norm=norm,
        loss=loss,
        targeted=targeted,
        early_stop=early_stop,
        name="bim",
    )


def CarliniWagnerLinf(  # noqa: N802 - the field's name
    epsilon: float,
    step_size: float,
    steps: int = 40,
    kappa: float = 0.0,
    restarts: int = 1,
    targeted: bool = False,
    early_stop: bool = True,
) -> PGD:
    """PGD on Carlini & Wagner's loss, as Madry et al. and the ATBLR paper's Table 1 use it.

    "C&W" is κ = 0 and "C&W-hc" κ = 50.

    ``min(max_{k≠y} z_k - z_y, κ)`` is raised: with κ > 0 the image moves on until it is wrong by κ.
    """
    return PGD(
        epsilon,
        step_size,
        steps,
        restarts=restarts,
        loss="margin",
        kappa=kappa,
        targeted=targeted,
        early_stop=early_stop,
        name="cw",
    )
