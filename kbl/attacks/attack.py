"""What every attack is: its fields, how it begins on a batch, and what one step does."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from keras import ops

from kbl.attacks import ball
from kbl.attacks.outcome import Outcome, Progress
from kbl.attacks.search import search
from kbl.attacks.state import Forward, State
from kbl.typing import Network, Tensor


class Passes(NamedTuple):
    """How often the network is run forward and backward."""

    forward: int
    backward: int


@dataclass(frozen=True)
class Attack(ABC):
    """A search for adversarial images, one step at a time, on every image of a batch for itself.

    A subclass is a frozen dataclass; it has the fields `name` and, where its result lies in a ball, `epsilon` and
    `norm`. Numeric fields reach `begin`, `step` and `finish` as arguments of the compiled function, so that none of
    them compiles anew; `epsilon` has then been made smaller by what rounding needs (`kbl.attacks.ball.interior`).

    Args of the three: ``forward``, images to logits; ``state``, see `State`; ``i``, an int32 scalar.
    """

    static: ClassVar[tuple[str, ...]] = ("targets",)
    """Numeric fields that shape the computation, and so do compile anew."""
    unseen: ClassVar[tuple[str, ...]] = ("name",)
    """Other fields that the computation does not see."""
    looks_ahead: ClassVar[bool] = False
    """Whether it is a `kbl.attacks.random_search.RandomSearch`."""

    @abstractmethod
    def begin(self, forward: Forward, state: State) -> State:
        """Return what is to be added to a fresh state, whose `best` is x."""

    @abstractmethod
    def step(self, forward: Forward, state: State, i: Tensor) -> State:
        """Return what the i-th step changes."""

    def finish(self, forward: Forward, state: State) -> State:
        """Return what is changed after the last step; nothing by default."""
        return {}

    @property
    def length(self) -> int:
        """The number of steps from one start."""
        return int(getattr(self, "steps", 1))

    def starts(self, classes: int) -> int:
        """The number of starts on a network of so many classes; later ones take only the images that still stand."""
        targets = min(int(getattr(self, "targets", 0)), classes - 1)
        return int(getattr(self, "restarts", 1)) * max(targets, 1)

    @property
    def needs(self) -> int:
        """The fewest classes that it can work with."""
        return 2

    @property
    def minimum_norm(self) -> bool:
        """Whether the nearest adversarial image is sought: then a fooled image goes on, and `score` is -distance."""
        return False

    @property
    def begins_at_image(self) -> bool:
        """Whether the first image that it tries is the clean one, so that a mistake need not be looked for."""
        return False

    def passes(self, classes: int) -> tuple[Passes, Passes, Passes]:
        """Return the passes of `begin`, of one `step` and of `finish` on a network of so many classes."""
        return Passes(0, 0), Passes(1, 1), Passes(0, 0)

    def __call__(
        self,
        network: Network,
        x: Tensor,
        y: Tensor,
        *,
        seed: int = 0,
        batch_size: int = 128,
        index: Tensor | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Tensor:
        """Return adversarial images for x.

        Args:
            network: a Keras model that returns logits; used in inference mode and left as it was.
            x: (N, ...) floats in [0, 1]; a NumPy array or a tensor of the backend.
            y: (N,) labels, or (N, K) one-hot; the targets when `targeted`.
            seed: seed of the random numbers; the same seed gives the same ones on every backend.
            batch_size: images at a time.
            index: (N,) int32, the identity of each image for its random numbers; by default its place in x.
            progress: called every few steps.

        Returns:
            (N, ...) float32 of the kind of x, in [0, 1] and, where the attack has an ε, exactly inside the ball. An
            image that was not fooled is returned at its greatest loss (from a minimum-norm attack: as it was).

        Raises:
            ValueError: x, y or the network's outputs are not as expected.
        """
        x_adv = self.search(
            network, x, y, seed=seed, batch_size=batch_size, index=index, progress=progress
        ).x_adv
        return x_adv if isinstance(x, np.ndarray) else ops.convert_to_tensor(x_adv)

    def search(self, network: Network, x: Tensor, y: Tensor, **options: Any) -> Outcome:
        """Return what `__call__` does with more said of each image, as NumPy arrays.

        Args:
            network: as in `__call__`, and so are x and y.
            x: images.
            y: labels.
            **options: those of `__call__`, and ``spare_mistakes=False`` to attack what is misclassified already, too.
        """
        return search(self, network, x, y, **options)

    def numbers(self, shape: tuple[int, ...]) -> dict[str, float]:
        """Return the numeric fields for images of a shape."""
        given = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in self.static and _is_number(getattr(self, field.name))
        }
        if "epsilon" in given:
            given["epsilon"] = ball.interior(given["epsilon"], self.norm, math.prod(shape))  # type: ignore[attr-defined]
        return given

    def with_numbers(self, numbers: dict[str, Any]) -> Self:
        """Return a copy whose numeric fields are these, tensors perhaps."""
        traced = copy.copy(self)
        for field, value in numbers.items():
            object.__setattr__(traced, field, value)
        return traced

    @property
    def identity(self) -> tuple[Any, ...]:
        """What tells compiled functions apart: the type and the fields that are no arguments."""
        given = {
            field.name: getattr(self, field.name) for field in fields(self) if field.name not in self.unseen
        }
        static = {key: value for key, value in given.items() if key in self.static or not _is_number(value)}
        return (type(self), *sorted(static.items()))

    @property
    def label(self) -> str:
        """Short name with what tells attacks apart, for example "PGD-40 ×20, margin"."""
        return str(self.name).upper()  # type: ignore[attr-defined]

    def get_config(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the attack with these fields."""
        return cls(**config)

    def _require(self, *least: tuple[str, float]) -> None:
        settle_numbers(self)
        for field, bound in least:
            if not getattr(self, field) >= bound:
                raise ValueError(
                    f"{field} must be at least {bound}. Received: {field}={getattr(self, field)}"
                )
        if getattr(self, "norm", "linf") not in ("linf", "l2"):
            raise ValueError(f'norm must be "linf" or "l2". Received: norm={self.norm!r}')  # type: ignore[attr-defined]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def settle_numbers(settings: Any) -> None:
    """Make NumPy's numbers among the fields of a frozen dataclass Python's own, which JSON can write, too.

    Raises:
        ValueError: a field that is declared a number is none.
    """
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, np.generic):
            value = value.item()
            object.__setattr__(settings, field.name, value)
        whole = field.type is int
        fitting = _is_number(value) and (isinstance(value, int) or not whole)
        if (whole or field.type is float) and not fitting:
            what = "a whole number" if whole else "a number"
            raise ValueError(f"{field.name} must be {what}. Received: {field.name}={value!r}")
