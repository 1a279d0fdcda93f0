"""FGSM, BIM and PGD: one loop of projected gradient steps."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from kbl import backend
from kbl.attacks import ball
from kbl.attacks.attack import Progress, run
from kbl.losses import cross_entropy, dlr, likelihood_regularization, margin
from kbl.typing import LossName, Network, Norm, Tensor

LOSSES: dict[LossName, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "dlr": dlr,
    "likelihood": likelihood_regularization,
}


@keras.saving.register_keras_serializable(package="kbl")
@dataclass(frozen=True)
class PGD:
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
        loss: what is raised: "cross_entropy", "margin" (Carlini & Wagner's, without a cap), "dlr", or "likelihood"
            (Eq. 6 of the ATBLR paper, for a Gaussian head).
        targeted: lower the loss of the labels given (the targets) instead; fooled is then "classified as the target".
        early_stop: leave a fooled image alone, and stop when all are.
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
    targeted: bool = False
    early_stop: bool = True
    name: str = "pgd"

    def __post_init__(self) -> None:
        for field, least in (("epsilon", 0), ("step_size", 0), ("steps", 1), ("restarts", 1)):
            if not getattr(self, field) >= least:
                raise ValueError(
                    f"{field} must be at least {least}. Received: {field}={getattr(self, field)}"
                )
        if self.norm not in ("linf", "l2"):
            raise ValueError(f'norm must be "linf" or "l2". Received: norm={self.norm!r}')
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}. Received: loss={self.loss!r}")

    def __call__(
        self,
        network: Network,
        x: Tensor,
        y: Tensor,
        *,
        seed: int = 0,
        batch_size: int = 128,
        progress: Callable[[Progress], None] | None = None,
    ) -> Tensor:
        """Return adversarial images for x.

        Args:
            network: a Keras model that returns logits; used in inference mode and left as it was.
            x: (N, ...) floats in [0, 1]; a NumPy array or a tensor of the backend.
            y: (N,) labels, or (N, K) one-hot; the targets when `targeted`.
            seed: seed of the random starts; the same seed gives the same starts on every backend.
            batch_size: images at a time.
            progress: called after each batch.

        Returns:
            (N, ...) float32 of the kind of x, inside the ball and [0, 1] exactly.

        Raises:
            ValueError: x, y or the network's outputs are not as expected.
        """
        radius = ball.interior(self.epsilon, self.norm, math.prod(np.shape(x)[1:]))
        return run(
            network,
            x,
            y,
            self._search,
            (PGD, self.norm, self.loss, self.targeted, self.early_stop),
            (radius, float(self.step_size), radius if self.random_start else 0.0, int(self.steps)),
            restarts=self.restarts if self.random_start else 1,
            seed=seed,
            batch_size=batch_size,
            targeted=self.targeted,
            check_clean=self.random_start,
            progress=progress,
        )

    def craft(
        self,
        forward: Callable[[Tensor], Tensor],
        x: Tensor,
        y: Tensor,
        index: Tensor,
        key: Tensor,
        scale: Any = 1.0,
    ) -> Tensor:
        """Return the last iterate, for use inside a compiled training step.

        Args:
            forward: maps images to logits.
            x: (batch, ...) float32 in [0, 1].
            y: (batch,) labels or (batch, K) one-hot.
            index: (batch,) int32, the identity of each image for its random start.
            key: int32 scalar of `kbl.random.key`.
            scale: factor on ε and the step size, a number, a scalar or (batch, 1, ...).

        Returns:
            (batch, ...) float32 inside the ball and [0, 1].
        """
        epsilon = scale * ball.interior(self.epsilon, self.norm, math.prod(x.shape[1:]))
        step_size = scale * self.step_size

        def step(_: Tensor, x_adv: Tensor) -> Tensor:
            _, gradient = backend.value_and_grad(
                lambda z: (ops.sum(self._objective(y, forward(z))), ()), x_adv
            )
            return ball.project(ball.ascend(x_adv, gradient, step_size, self.norm), x, epsilon, self.norm)

        start = ball.random_start(x, key, index, epsilon, self.norm) if self.random_start else x
        return ops.fori_loop(0, self.steps, step, start)

    def _objective(self, y: Tensor, logits: Tensor) -> Tensor:
        loss = LOSSES[self.loss](y, ops.cast(logits, "float32"))
        return -loss if self.targeted else loss

    def _search(
        self,
        forward: Callable[[Tensor], Tensor],
        x: Tensor,
        y: Tensor,
        index: Tensor,
        live: Tensor,
        key: Tensor,
        epsilon: Tensor,
        step_size: Tensor,
        radius: Tensor,
        steps: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attack one batch from one start; numbers are arguments, so that none of them compiles anew."""

        def score(x_adv: Tensor) -> tuple[Tensor, Any]:
            logits = forward(x_adv)
            loss = self._objective(y, logits)
            right = ops.argmax(logits, axis=-1) == y
            return ops.sum(loss), (loss, right if self.targeted else ~right)

        def keep(x_adv: Tensor, loss: Tensor, hit: Tensor, best: Any) -> tuple[Tensor, Tensor, Tensor]:
            best_x, best_loss, fooled = best
            better = (hit & ~fooled) | ((hit == fooled) & (loss > best_loss))
            return _where(better, x_adv, best_x), ops.where(better, loss, best_loss), fooled | hit

        def going(i: Tensor, x_adv: Tensor, *best: Tensor) -> Tensor:
            return (i < steps) & ops.any(~best[2]) if self.early_stop else i < steps

        def step(i: Tensor, x_adv: Tensor, *best: Tensor) -> tuple[Tensor, ...]:
            (loss, hit), gradient = backend.value_and_grad(score, x_adv)
            best = keep(x_adv, loss, hit, best)
            moved = ball.ascend(x_adv, gradient, step_size, self.norm)
            moved = ball.project(moved, x, epsilon, self.norm)
            return i + 1, _where(best[2], x_adv, moved) if self.early_stop else moved, *best

        start = ball.random_start(x, key, index, radius, self.norm)
        nothing = ops.zeros_like(start[(slice(None), *(0,) * (len(start.shape) - 1))])
        state = (ops.zeros((), "int32"), start, start, nothing - float("inf"), ~live)
        _, x_adv, *best = ops.while_loop(going, step, state)
        _, (loss, hit) = score(x_adv)
        best_x, best_loss, fooled = keep(x_adv, loss, hit, best)
        return best_x, fooled, best_loss

    @property
    def label(self) -> str:
        """Short name with what tells attacks apart, for example "PGD-40 ×20, margin"."""
        name = self.name.upper() + (f"-{self.steps}" if self.name != "fgsm" else "")
        name += f" ×{self.restarts}" if self.restarts > 1 else ""
        details = [self.loss.replace("_", " ")] if self.loss != "cross_entropy" else []
        details += ["L2"] if self.norm == "l2" else []
        details += ["targeted"] if self.targeted else []
        return ", ".join([name, *details])

    def get_config(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "PGD":
        """Return the attack with these fields."""
        return cls(**config)


def _where(rows: Tensor, x: Tensor, otherwise: Tensor) -> Tensor:
    """Choose whole images by a (batch,) mask."""
    return ops.where(ops.reshape(rows, (-1,) + (1,) * (len(x.shape) - 1)), x, otherwise)


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
