"""The shortest way from a point of the cube [0, 1] to a hyperplane, without leaving the cube."""

from typing import Any

from keras import ops

from kbl.typing import Norm, Tensor

_FARTHEST = 3e38  # a float32 past which no pixel is
_ITERATIONS = 8


def approach(x: Tensor, w: Tensor, gap: Tensor, norm: Norm) -> Tensor:
    """Return the smallest δ with ``w·δ = gap`` and x + δ in [0, 1]; where there is none, the δ that comes nearest.

    Along the signs of gap · w each pixel has some room r_i in the cube. The solution is ``|δ_i| = min(t v_i, r_i)``
    with v_i = 1 (L∞) or |w_i| (L2) and the least t for which ``g(t) = Σ |w_i| min(t v_i, r_i)`` reaches abs(gap). As
    g is concave, increasing and made of straight lines, Newton's method from t = 0 rises to t and reaches it after
    finitely many iterations, each of which adds the pixels that have come to the end of their room. Eight are done,
    whatever the values, so that a framework can note them down; on images none was seen to need more than four. Where
    they do not suffice, δ falls short of the hyperplane.

    Args:
        x: (batch, ...) float32 in [0, 1].
        w: (batch, ...) finite normal of the hyperplane, of any scale; a pixel of weight zero does not move.
        gap: (batch,) finite.
        norm: "linf" or "l2".

    Returns:
        (batch, ...) float32.

    Differs from the paper (Croce & Hein, arXiv:1907.02044): it sorts the pixels by when they come to
    their end; here sums are always taken anew, so that no rounding adds up over thousands of pixels.
    """
    axes = tuple(range(1, len(x.shape)))
    scale = ops.maximum(ops.max(ops.abs(w), axis=axes, keepdims=True), 1e-37)
    gap = ops.reshape(gap, (-1,) + (1,) * len(axes)) / scale
    direction = ops.sign(gap) * ops.sign(w)
    weight = ops.abs(w / scale)
    speed = weight if norm == "l2" else 1.0
    room = ops.where(direction > 0, 1.0 - x, x)
    distance = ops.minimum(ops.abs(gap), _FARTHEST)

    t: Any = ops.zeros_like(gap)
    for _ in range(_ITERATIONS):
        going = ops.relu(ops.sign(room - t * speed))  # 1 or 0: on a CPU, masks take several times as long
        covered = ops.sum(weight * room * (1.0 - going), axis=axes, keepdims=True)
        slope = ops.sum(weight * speed * going, axis=axes, keepdims=True)
        t = ops.clip((distance - covered) / ops.maximum(slope, 1e-37), t, _FARTHEST)
    return direction * ops.minimum(t * speed, room)


def length(offset: Tensor, norm: Norm, dual: bool = False) -> Tensor:
    """Return the length of each image's offset, (batch,), in the norm or in its dual (of L∞: the sum)."""
    axes = tuple(range(1, len(offset.shape)))
    if norm == "l2":
        return ops.sqrt(ops.sum(ops.square(offset), axis=axes))
    return ops.sum(ops.abs(offset), axis=axes) if dual else ops.max(ops.abs(offset), axis=axes)
