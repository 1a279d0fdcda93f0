"""Square attack: random search with squares, from the network's outputs alone."""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from kbl import random
from kbl.attacks import ball
from kbl.attacks.attack import Attack, Passes
from kbl.attacks.objective import is_hit, objective
from kbl.attacks.state import Forward, State, keep
from kbl.typing import Norm, Tensor

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of p, in queries of 10,000


@keras.saving.register_keras_serializable(package="kbl")
@dataclass(frozen=True)
class Square(Attack):
    """Square attack (Andriushchenko, Croce, Flammarion & Hein, arXiv:1912.00049): no gradient is asked for.

    Each query changes the best image so far in a square at a random place and is kept if the margin
    ``max_{k≠y} z_k - z_y`` grows. The square covers a share p of the image, which is halved after 10, 50, 200, 500,
    1,000, 2,000, 4,000, 6,000 and 8,000 of every 10,000 queries.

    - L∞ begins with vertical stripes of ±ε and sets each channel of the square to +ε or -ε.
    - L2 begins with tiles of a pattern of two opposite peaks, empties one square, and adds the pattern to another with
      the length that has come free.

    Args:
        epsilon: radius ε ≥ 0 of the ball, in pixel units (images lie in [0, 1]).
        queries: forward passes of an image ≥ 1 from one start.
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
            stripes = _signs(random.uniform(key, state["index"], (1, *x.shape[2:])))
            return self._judge(forward, state, self._project(x + self.epsilon * stripes, x))
        tiles = _unit(_tiles(key, state["index"], x.shape[1:]))
        return self._judge(forward, state, self._project(x + self.epsilon * tiles, x))

    @property
    def plans(self) -> bool:
        """Where the squares lie, and their signs, depend on chance alone."""
        return True

    def plan(self, state: State, steps: Tensor) -> State:
        """Place and sign the squares."""
        height, width, channels = state["x"].shape[1:]
        keys = random.key(ops.expand_dims(state["key"], 1), steps)
        index = ops.expand_dims(state["index"], 1) + ops.zeros_like(keys)
        draw = random.uniform(ops.reshape(keys, (-1,)), ops.reshape(index, (-1,)), (1, 1, 5 + channels))
        draw = ops.reshape(draw, (*keys.shape, 1, 1, 5 + channels))
        side = ops.reshape(self._side(steps, height, width), (-1, 1, 1, 1))
        rows, columns = _window(draw[..., 0:2], side, height, width)
        plan = {
            "in_rows": _inside(rows, side),
            "in_columns": _inside(columns, side),
            "signs": _signs(draw[..., 5:]),
        }
        if self.norm == "l2":
            other_rows, other_columns = _window(draw[..., 2:4], side, height, width)
            plan |= {"empty_rows": _inside(other_rows, side), "empty_columns": _inside(other_columns, side)}
            plan |= {"rows": rows, "columns": columns, "turned": draw[..., 4:5] < 0.5}
        return plan

    def step(self, forward: Forward, state: State, i: Tensor) -> State:
        """Judge the best image with a square changed."""
        x, best, signs = state["x"], state["best"], state["signs"]
        inside = state["in_rows"] & state["in_columns"]
        if self.norm == "linf":
            square = self._project(x + self.epsilon * signs, x)
            return self._judge(forward, state, ops.where(inside, square, best))
        height, width, channels = x.shape[1:]
        emptied = state["empty_rows"] & state["empty_columns"]
        change = best - x
        squares = ops.square(change)
        unused = ops.maximum(self.epsilon**2 - ops.sum(squares, axis=(1, 2, 3), keepdims=True), 0.0)
        freed = ops.sum(ops.where(inside | emptied, squares, 0.0), axis=(1, 2), keepdims=True)
        side = self._side(i, height, width)
        peaks = signs * _peaks(state["rows"], state["columns"], side, state["turned"], min(height, width))
        new = _unit(ops.where(inside, peaks + _unit(ops.where(inside, change, 0.0), (1, 2)), 0.0), (1, 2))
        new = new * ops.sqrt(unused / channels + freed)
        change = ops.where(inside, new, ops.where(emptied, 0.0, change))
        return self._judge(forward, state, self._project(x + self.epsilon * _unit(change), x))

    def _judge(self, forward: Forward, state: State, x_adv: Tensor) -> State:
        y, logits = state["y"], forward(x_adv)
        score = objective("margin", y, logits, targeted=self.targeted)
        return keep(state, x_adv, score, is_hit(y, logits, self.targeted))

    def _project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return x_adv in the ball; in L∞ it is its corner already, but for the cube."""
        if self.norm == "linf":
            return ops.clip(x_adv, 0.0, 1.0)
        return ball.project(x_adv, x, self.epsilon, self.norm)

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


def _signs(draw: Tensor) -> Tensor:
    return ops.where(draw < 0.5, -1.0, 1.0)


def _unit(change: Tensor, axes: tuple[int, ...] = (1, 2, 3)) -> Tensor:
    """Scale to length 1 over some axes; nothing stays nothing."""
    return change / ops.maximum(ops.sqrt(ops.sum(ops.square(change), axis=axes, keepdims=True)), 1e-12)


def _window(draw: Tensor, side: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Place a square anywhere in the image.

    Args:
        draw: (..., 1, 1, 2) in [0, 1).
        side: int32, of a shape that goes with the draw's.
        height: of the image.
        width: of the image.

    Returns:
        Rows (..., H, 1, 1) and columns (..., 1, W, 1) counted from the square's corner, int32.
    """
    rows, columns = (
        ops.reshape(ops.arange(size, dtype="int32"), shape)
        - ops.cast(draw[..., axis : axis + 1] * ops.cast(size - side + 1, "float32"), "int32")
        for axis, (size, shape) in enumerate(((height, (-1, 1, 1)), (width, (-1, 1))))
    )
    return rows, columns


def _inside(lines: Tensor, side: Tensor) -> Tensor:
    return (lines >= 0) & (lines < side)


def _peaks(rows: Tensor, columns: Tensor, side: Tensor, turned: Tensor, most: int) -> Tensor:
    """Return the pattern η of the L2 attack: a positive and a negative peak, one in each half of a square.

    At distance d = max(|row|, |column|) from a peak it is ``Σ_{k=d+1}^{m} 1/k²`` with m = ⌊side / 2⌋ + 1, and each
    half has length √½.

    Args:
        rows: int32, counted from the square's corner; what lies outside the square has no meaning.
        columns: int32, likewise.
        side: int32 scalar.
        turned: bool, whether the halves lie side by side and not one above the other.
        most: the greatest side.
    """
    sums = np.cumsum([0.0, *(1.0 / k**2 for k in range(1, most // 2 + 2))]).astype("float32")
    half = side // 2

    def height(row: Tensor, column: Tensor) -> Tensor:
        peak = ops.where(row < half, half // 2, half + (side - half) // 2)
        distance = ops.maximum(ops.abs(row - peak), ops.abs(column - half))
        return ops.take(sums, half + 1) - ops.take(sums, ops.minimum(distance, half + 1))

    line = ops.arange(most, dtype="int32")
    row, column = line[:, None], line[None, :]
    squares = ops.where((row < side) & (column < side), ops.square(height(row, column)), 0.0)
    first, second = (ops.sum(ops.where(part, squares, 0.0)) for part in (row < half, row >= half))
    rows, columns = ops.where(turned, columns, rows), ops.where(turned, rows, columns)
    length = ops.where(rows < half, ops.sqrt(ops.maximum(first, 1e-24)), -ops.sqrt(second))
    return height(rows, columns) / length * 0.5**0.5


def _tiles(key: Tensor, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Cover the image with squares of a fifth of its side, each turned and signed by chance, (batch, H, W, C)."""
    height, width, channels = shape
    side = max(min(height, width) // 5, 1)
    down, across = height // side, width // side
    rows = np.arange(height)[:, None, None] - height % side // 2
    columns = np.arange(width)[:, None] - width % side // 2
    inside = (rows >= 0) & (rows < down * side) & (columns >= 0) & (columns < across * side)
    tile = np.where(inside, rows // side * across + columns // side, 0).ravel().astype("int32")
    draw = random.uniform(key, index, (down * across, 1 + channels))
    draw = ops.reshape(ops.take(draw, tile, axis=1), (-1, height, width, 1 + channels))
    rows, columns = (ops.convert_to_tensor((line % side).astype("int32")) for line in (rows, columns))
    peaks = _peaks(rows, columns, ops.convert_to_tensor(side, "int32"), draw[..., :1] < 0.5, side)
    return ops.where(inside, peaks * _signs(draw[..., 1:]), 0.0)
