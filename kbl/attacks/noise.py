"""Random noise: the baselines that every attack must beat."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import keras
from keras import ops

from kbl import random
from kbl.attacks import ball
from kbl.attacks.attack import Attack, Passes
from kbl.attacks.objective import is_hit, objective
from kbl.attacks.state import Forward, State, keep
from kbl.typing import Norm, Tensor


class _Noise(Attack):
    """Independent draws of one noise: one forward pass each, none backward."""

    draws: int
    targeted: bool

    def begin(self, forward: Forward, state: State) -> State:
        """Nothing is remembered from draw to draw."""
        return {}

    def step(self, forward: Forward, state: State, i: Tensor) -> State:
        """Judge one draw."""
        noisy = self.draw(state["x"], random.key(state["key"], i), state["index"])
        logits = forward(noisy)
        score = objective("cross_entropy", state["y"], logits, targeted=self.targeted)
        return keep(state, noisy, score, is_hit(state["y"], logits, self.targeted))

    @abstractmethod
    def draw(self, x: Tensor, key: Tensor, index: Tensor) -> Tensor:
        """Return noisy images in [0, 1]."""

    @property
    def length(self) -> int:
        """The number of draws."""
        return self.draws

    def passes(self, classes: int) -> tuple[Passes, Passes, Passes]:
        """One forward a draw."""
        return Passes(0, 0), Passes(1, 0), Passes(0, 0)


@keras.saving.register_keras_serializable(package="kbl")
@dataclass(frozen=True)
class UniformNoise(_Noise):
    """Noise drawn uniformly from the L∞ ball, the weakest attack there is: ``clip(x + U(-ε, ε))``.

    Called on arrays it returns, for each image, the first draw that is misclassified where there is one, else the
    draw of greatest cross-entropy.

    Args:
        epsilon: radius ε ≥ 0 of the ball, in pixel units (images lie in [0, 1]).
        draws: independent draws an image, ≥ 1.
        targeted: the labels given are targets, and fooled is "classified as the target".
        name: how reports call it.

    Raises:
        ValueError: a field is out of its range.
    """

    epsilon: float
    draws: int = 100
    targeted: bool = False
    name: str = "uniform_noise"

    norm: ClassVar[Norm] = "linf"

    def __post_init__(self) -> None:
        self._require(("epsilon", 0), ("draws", 1))

    def draw(self, x: Tensor, key: Tensor, index: Tensor) -> Tensor:
        """Return a point of the ball around each image."""
        return ball.random_start(x, key, index, self.epsilon, self.norm)

    @property
    def label(self) -> str:
        """For example "uniform noise ×100"."""
        return f"uniform noise ×{self.draws}" + (", targeted" if self.targeted else "")


@keras.saving.register_keras_serializable(package="kbl")
@dataclass(frozen=True)
class GaussianNoise(_Noise):
    """Gaussian noise, the same for every pixel: ``clip(x + σ·N(0, 1))``. It lies in no ball.

    Called on arrays it returns, for each image, the first draw that is misclassified where there is one, else the
    draw of greatest cross-entropy.

    Args:
        sigma: standard deviation σ ≥ 0 of a pixel's noise, before the clipping to [0, 1].
        draws: independent draws an image, ≥ 1.
        targeted: the labels given are targets, and fooled is "classified as the target".
        name: how reports call it.

    Raises:
        ValueError: a field is out of its range.
    """

    sigma: float
    draws: int = 100
    targeted: bool = False
    name: str = "gaussian_noise"

    def __post_init__(self) -> None:
        self._require(("sigma", 0), ("draws", 1))

    def draw(self, x: Tensor, key: Tensor, index: Tensor) -> Tensor:
        """Return each image with noise on every pixel."""
        return ops.clip(x + self.sigma * random.normal(key, index, tuple(x.shape[1:])), 0.0, 1.0)

    @property
    def label(self) -> str:
        """For example "Gaussian noise ×100"."""
        return f"Gaussian noise ×{self.draws}" + (", targeted" if self.targeted else "")
