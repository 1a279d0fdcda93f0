"""Square attack: random search with squares, from the network's outputs alone."""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from kbl import random
from kbl.attacks import ball
from kbl.attacks.attack import Passes
from kbl.attacks.objective import is_hit, objective
from kbl.attacks.random_search import RandomSearch
from kbl.attacks.square_pattern import peaks, signs_of, tiles
from kbl.attacks.state import Forward, State, keep
from kbl.typing import Norm, Tensor

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of p, in queries of 10,000


@keras.saving.register_keras_serializable(package="kbl")
@dataclass(frozen=True)
class Square(RandomSearch):
    """Square attack (Andriushchenko, Croce, Flammarion & Hein, arXiv:1912.00049): no gradient is asked for.

    Each query changes the best image so far in a square at a random place and is kept if the margin
    ``max_{k≠y} z_k - z_y`` grows. The square covers a share p of the image, which is halved after 10, 50, 200, 500,
    1,000, 2,000, 4,000, 6,000 and 8,000 of every 10,000 queries.

    - L∞ begins with vertical stripes of ±ε and sets each channel of the square to +ε or -ε.
    - L2 begins with tiles of a pattern of two opposite peaks, empties one square, and adds the pattern to another with
      the length that has come free.

    Args:
        epsilon: radius ε ≥ 0 of the ball, in pixel units (images lie in [0, 1]).
        queries: images tried from one start, ≥ 1. Passes may be more or fewer, see `RandomSearch`.
        restarts: starts ≥ 1; later ones take only the images that still stand.
        norm: "linf" or "l2".
        p: 0 < p ≤ 1, the share of the first squares.
        targeted: the labels given are targets, whose margin is lowered.
        name: how reports call it.

    Raises:
        ValueError: a field is out of its range, or the images are not (H, W, C).
    """

    epsilon: float
    queries: int = 5000
    restarts: int = 1
    norm: Norm = "linf"
    p: float = 0.8
    targeted: bool = False
    name: str = "square"

    def __post_init__(self) -> None:
        self._require(("epsilon", 0), ("queries", 1), ("restarts", 1))
        if not 0 < self.p <= 1:
            raise ValueError(f"p must lie in (0, 1]. Received: p={self.p}")

    def begin(self, forward: Forward, state: State) -> State:
        """Judge the stripes or the tiles."""
        x, key = state["x"], random.key(state["key"], -1)
        if self.norm == "linf":
            stripes = signs_of(random.uniform(key, state["index"], (1, *x.shape[2:])))
            x_adv = ops.clip(x + self.epsilon * stripes, 0.0, 1.0)
        else:
            start = _unit(tiles(key, state["index"], x.shape[1:]))
            x_adv = ball.project(x + self.epsilon * start, x, self.epsilon, self.norm)
        return keep(state, x_adv, *self.judge(forward, state, x_adv))

    def plan(self, state: State, steps: Tensor) -> Tensor:
        """Place and sign the squares: the rows inside, the columns inside (0 or 1), a sign for each channel.

        In L2 there follow the rows and columns of the square to be emptied, and then the first's top row, left column,
        side, and whether its peaks lie side by side.
        """
        height, width, channels = state["x"].shape[1:]
        keys = random.key(ops.expand_dims(state["key"], 1), steps)
        index = ops.expand_dims(state["index"], 1) + ops.zeros_like(keys)
        draw = random.uniform(ops.reshape(keys, (-1,)), ops.reshape(index, (-1,)), (5 + channels,))
        draw = ops.reshape(draw, (*keys.shape, 5 + channels))
        side = self._side(steps, height, width)
        top, left = _corner(draw[..., 0], side, height), _corner(draw[..., 1], side, width)
        plan = [_inside(top, side, height), _inside(left, side, width), signs_of(draw[..., 5:])]
        if self.norm == "l2":
            numbers = (ops.cast(number, "float32") for number in (top, left, side, draw[..., 4] < 0.5))
            plan += [
                _inside(_corner(draw[..., 2], side, height), side, height),
                _inside(_corner(draw[..., 3], side, width), side, width),
                ops.stack(list(numbers), axis=-1),
            ]
        return ops.concatenate(plan, axis=-1)

    def propose(self, state: State) -> Tensor:
        """Change a square of the best image."""
        x, best = state["x"], state["best"]
        height, width, channels = x.shape[1:]
        rows, columns, signs, *more = _split(state["plan"], (height, width, channels, height, width, 4))
        signs = signs[:, None, None, :]
        if self.norm == "linf":
            # Every pixel is at an end of its range: four radii take it to one, and clipping cuts.
            change = rows[:, :, None, None] * (columns[:, None, :, None] * (4.0 * self.epsilon * signs))
            return ball.project(best + change, x, self.epsilon, self.norm)
        inside = _square(rows, columns)
        either = ops.maximum(inside, _square(*more[:2]))
        top, left, side, turned = (number[:, :, None, None] for number in ops.split(more[2], 4, axis=-1))
        change = best - x
        squares = ops.square(change)
        unused = ops.maximum(self.epsilon**2 - ops.sum(squares, axis=(1, 2, 3), keepdims=True), 0.0)
        freed = ops.sum(squares * either, axis=(1, 2), keepdims=True)
        row = ops.reshape(ops.arange(height, dtype="float32"), (-1, 1, 1)) - top
        column = ops.reshape(ops.arange(width, dtype="float32"), (-1, 1)) - left
        pattern = signs * peaks(row, column, side, turned > 0.0, min(height, width))
        new = _unit((pattern + _unit(change * inside, (1, 2))) * inside, (1, 2))
        change = change * (1.0 - either) + new * ops.sqrt(unused / channels + freed)
        return ball.project(x + self.epsilon * _unit(change), x, self.epsilon, self.norm)

    def changes(self, state: State, plan: Tensor) -> Tensor | None:
        """Tell which squares have not their signs already; in L∞ late in a search every other one has.

        What they would change in all is a product of matrices: rows of the square, pixels' ways to their ends, columns.
        """
        if self.norm == "l2":
            return None
        best, (least, greatest) = state["best"], ball.region(state["x"], self.epsilon, self.norm)
        batch, height, width, channels = best.shape
        rows, columns, signs = _split(plan, (height, width, channels))
        ways = ops.reshape(ops.concatenate([best - least, greatest - best], axis=2), (batch, height, -1))
        ways = ops.reshape(ops.matmul(rows, ways), (batch, -1, 2, width, channels))
        ways = ops.sum(ways * columns[:, :, None, :, None], axis=3)
        return ops.any(ways * ops.stack([1.0 - signs, 1.0 + signs], axis=2) > 0.0, axis=(2, 3))

    def judge(self, forward: Forward, state: State, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        """Judge by the margin."""
        y, logits = state["y"], forward(x_adv)
        return objective("margin", y, logits, targeted=self.targeted), is_hit(y, logits, self.targeted)

    def _side(self, i: Tensor, height: int, width: int) -> Tensor:
        """Return the side of the i-th square, int32: √(p · height · width), in L2 odd and at least 3.

        Args:
            i: int32, of any shape.
            height: of the image.
            width: of the image.
        """
        share = ops.expand_dims(ops.cast(i, "float32") / ops.cast(self.queries, "float32") * 1e4, -1)
        halvings = ops.sum(ops.cast(share > ops.convert_to_tensor(_HALVINGS, "float32"), "float32"), axis=-1)
        side = ops.cast(ops.round(ops.sqrt(self.p * 0.5**halvings * (height * width))), "int32")
        most = min(height, width)
        if self.norm == "linf":
            return ops.clip(side, 1, most)
        return ops.minimum(ops.maximum(side, 3) // 2 * 2 + 1, most - 1 + most % 2)

    def numbers(self, shape: tuple[int, ...]) -> dict[str, float]:
        """Return the numeric fields, for images (H, W, C)."""
        if len(shape) != 3:
            raise ValueError(f"Square needs images of shape (H, W, C). Received: images of shape {shape}")
        return super().numbers(shape)

    @property
    def length(self) -> int:
        """All queries but the first."""
        return self.queries - 1

    def passes(self, classes: int) -> tuple[Passes, Passes, Passes]:
        """A query each for the beginning and the steps."""
        return Passes(1, 0), Passes(1, 0), Passes(0, 0)

    @property
    def label(self) -> str:
        """Short name, for example "Square-5000 ×2, L2"."""
        starts = f" ×{self.restarts}" if self.restarts > 1 else ""
        norm, targeted = ", L2" if self.norm == "l2" else "", ", targeted" if self.targeted else ""
        return f"{self.name.capitalize()}-{self.queries}{starts}{norm}{targeted}"


def _unit(change: Tensor, axes: tuple[int, ...] = (1, 2, 3)) -> Tensor:
    """Scale to length 1 over some axes; nothing stays nothing."""
    return change / ops.maximum(ops.sqrt(ops.sum(ops.square(change), axis=axes, keepdims=True)), 1e-12)


def _corner(draw: Tensor, side: Tensor, size: int) -> Tensor:
    """Place a line of `side` pixels anywhere in `size`: return its first, int32; the draw is in [0, 1)."""
    return ops.cast(draw * ops.cast(size - side + 1, "float32"), "int32")


def _inside(first: Tensor, side: Tensor, size: int) -> Tensor:
    """Return which of `size` pixels lie in a line, (..., size): 1.0 or 0.0, which a CPU multiplies fast."""
    line = ops.arange(size, dtype="int32") - ops.expand_dims(first, -1)
    return ops.cast((line >= 0) & (line < ops.expand_dims(side, -1)), "float32")


def _square(rows: Tensor, columns: Tensor) -> Tensor:
    """Return which pixels lie in rows and columns, (batch, H, W, 1)."""
    return rows[:, :, None, None] * columns[:, None, :, None]


def _split(plan: Tensor, sizes: tuple[int, ...]) -> list[Tensor]:
    """Return the parts of the last axis, as many as there are."""
    ends = [end for end in np.cumsum(sizes) if end <= plan.shape[-1]]
    return [plan[..., end - size : end] for end, size in zip(ends, sizes, strict=False)]
