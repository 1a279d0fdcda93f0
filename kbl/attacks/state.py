"""What an attack knows of each image of a batch, and how it notes what it finds."""

from collections.abc import Callable

from keras import ops

from kbl.typing import Tensor

# What is known of each image of a batch, by name; every tensor has the batch as its first axis. An attack finds
# x (the clean images), y, index, restart (the number of its start, int32), key (of that start, for `kbl.random`), best,
# score, fooled and done there, and adds its own.
State = dict[str, Tensor]
Forward = Callable[..., Tensor]


def keep(state: State, x_adv: Tensor, score: Tensor, hit: Tensor, leave: Tensor | bool = True) -> State:
    """Note x_adv as the best of an image: the first that fools, or else the one of greatest score.

    Args:
        state: of the batch.
        x_adv: (batch, ...) candidates.
        score: (batch,) their loss, or minus their distance.
        hit: (batch,) whether they fool.
        leave: an image that is fooled is done; (batch,) bool where that depends on more.

    Returns:
        The changed `best`, `score`, `fooled` and `done`. Nothing changes for images that are done.
    """
    fooled, done = state["fooled"], state["done"]
    better = ((hit & ~fooled) | ((hit == fooled) & (score > state["score"]))) & ~done
    fooled = fooled | (hit & ~done)
    if leave is not False:
        done = done | (fooled if leave is True else fooled & leave)
    return {
        "best": choose(better, x_adv, state["best"]),
        "score": ops.where(better, score, state["score"]),
        "fooled": fooled,
        "done": done,
    }


def choose(rows: Tensor, x: Tensor, otherwise: Tensor) -> Tensor:
    """Choose whole images by a (batch,) mask."""
    return ops.where(ops.reshape(rows, (-1,) + (1,) * (len(x.shape) - 1)), x, otherwise)


def per_image(values: Tensor, x: Tensor) -> Tensor:
    """Return (batch,) values with an axis for each axis of the images."""
    return ops.reshape(values, (-1,) + (1,) * (len(x.shape) - 1))
