"""Bounds on what a ReLU network computes anywhere in a ball, by the dual of its convex relaxation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from keras import ops

from kbl.certification.chain import Affine, Chain, chain
from kbl.typing import Network, Norm, Tensor


@dataclass(frozen=True)
class _Ball:
    """The images within ε of each of a batch; of the L∞ ball only what lies in [0, 1]."""

    centre: Tensor  # (batch, pixels)
    radius: Tensor  # (batch, pixels) for L∞, () for L2
    norm: Norm

    def reach(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``row · x`` at the centre and by how much it may differ, (batch, rows) each."""
        middle = ops.squeeze(ops.matmul(rows, ops.expand_dims(self.centre, -1)), -1)
        if self.norm == "l2":
            return middle, self.radius * ops.sqrt(ops.sum(ops.square(rows), axis=-1) + 1e-24)
        return middle, ops.squeeze(ops.matmul(ops.abs(rows), ops.expand_dims(self.radius, -1)), -1)


@dataclass(frozen=True)
class _Relaxation:
    """Of a ReLU between bounds l and u: ``slope · z ≤ relu(z) ≤ slope · z + lift``."""

    slope: Tensor  # (batch, units)
    lift: Tensor  # (batch, units)


def worst_logits(
    network: Network, x: Tensor, y: Tensor, epsilon: float | Tensor, norm: Norm = "linf"
) -> Tensor:
    """Bound from above how far each logit can come over the label's, anywhere within ε of an image.

    A ReLU whose input may be of either sign within its bounds [l, u] is relaxed to its convex hull; the bound is that
    of the dual with the slope u / (u - l), computed in closed form from the logits back to the pixels (Wong & Kolter,
    arXiv:1711.00851, Theorem 1 and Algorithm 1). The inner bounds come from the same, layer by layer and exactly (no
    random projections), so the cost grows with the number of hidden units: small networks.

    Differs from the paper: of the L∞ ball only images in [0, 1] are counted, which is tighter.

    Args:
        network: see `chain` for what it may consist of; batch normalization and dropout as in inference.
        x: (batch, ...) images in [0, 1].
        y: (batch,) labels, integers.
        epsilon: radius ≥ 0, in pixel units of [0, 1] ("linf") or Euclidean ("l2").
        norm: "linf" or "l2".

    Returns:
        (batch, K) float32 upper bounds of ``logit_k - logit_y``, 0 at the label. Where all others are below 0 no image
        within ε is classified otherwise. Rounding of the arithmetic itself is not accounted for.

    Raises:
        ValueError: the network has a layer that is not supported.
    """
    parts = chain(network)
    ball = _ball(x, epsilon, norm)
    relaxed: list[_Relaxation | None] = []  # of each part; None of an affine one
    units = 0
    for place, part in enumerate(parts):
        if isinstance(part, Affine):
            relaxed.append(None)
            units = math.prod(part.shape)
        else:
            relaxed.append(_relaxation(*_bounds(parts[:place], relaxed, ops.eye(units)[None], ball)))
    own = ops.one_hot(ops.cast(y, "int32"), units, dtype="float32")
    rows = ops.eye(units)[None] - own[:, None]
    return _bounds(parts, relaxed, rows, ball)[1] * (1.0 - own)


def _ball(x: Tensor, epsilon: float | Tensor, norm: Norm) -> _Ball:
    if norm not in ("linf", "l2"):
        raise ValueError(f'norm must be "linf" or "l2". Received: norm={norm!r}')
    flat = ops.reshape(ops.cast(x, "float32"), (ops.shape(x)[0], -1))
    if norm == "l2":
        return _Ball(flat, ops.cast(epsilon, "float32"), norm)
    low, high = ops.maximum(flat - epsilon, 0.0), ops.minimum(flat + epsilon, 1.0)
    return _Ball((low + high) / 2, (high - low) / 2, norm)


def _relaxation(low: Tensor, high: Tensor) -> _Relaxation:
    crosses = ops.logical_and(low < 0, high > 0)
    slope = high / ops.where(crosses, high - low, 1.0)
    slope = ops.where(crosses, slope, ops.cast(low >= 0, "float32"))
    return _Relaxation(slope, ops.where(crosses, -slope * low, 0.0))


def _bounds(
    parts: Chain, relaxed: Sequence[_Relaxation | None], rows: Tensor, ball: _Ball
) -> tuple[Tensor, Tensor]:
    """Return lower and upper bounds, (batch, rows), of linear functionals of what the parts compute.

    Each row is carried back to the pixels. A relaxed ReLU multiplies it by the slope, whatever its sign; the lift is
    added to the upper bound where the row is positive and to the lower one where it is negative.

    Args:
        parts: from the pixels on.
        relaxed: of each part that is a ReLU.
        rows: (batch or 1, rows, units of the last part).
        ball: of the pixels.
    """
    constant, above, below = 0.0, 0.0, 0.0
    for part, relaxation in zip(reversed(parts), reversed(relaxed[: len(parts)]), strict=True):
        count = rows.shape[1]
        if isinstance(part, Affine):
            images = ops.reshape(rows, (-1, *part.shape))
            if part.bias is not None:
                constant = constant + ops.reshape(part.times_bias(images), (-1, count))
            images = part.transpose(images)
            rows = ops.reshape(images, (-1, count, math.prod(images.shape[1:])))
        else:
            assert relaxation is not None
            lift = ops.expand_dims(relaxation.lift, -1)
            lifted = ops.squeeze(ops.matmul(ops.relu(rows), lift), -1)
            above = above + lifted
            below = below + ops.squeeze(ops.matmul(rows, lift), -1) - lifted
            rows = rows * ops.expand_dims(relaxation.slope, 1)
    middle, reach = ball.reach(rows)
    return middle + constant + below - reach, middle + constant + above + reach
