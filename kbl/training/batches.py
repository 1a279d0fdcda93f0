"""Batches in an order that depends on the seed and the epoch alone."""

from typing import Any

import keras
import numpy as np


class Batches(keras.utils.PyDataset):
    """Shuffled batches of arrays; the same order on every backend, and the same after a resume.

    `kbl.RobustModel.fit` takes them as they are. Another model's ``fit`` shuffles the batches once more, and ends an
    epoch before the first.

    The images that do not fill a last batch wait for another epoch, so that every step has one shape. Without a seed
    all rows come as they stand, the last batch as short as it is: as `validation_data` is wanted.

    Args:
        x: (N, ...) images.
        y: (N,) labels.
        batch_size: images a batch; at most N are taken.
        seed: seed of the order; None for that of the rows.
        epoch: number of the first epoch.

    With `with_index` set (`kbl.RobustModel.fit` does, for methods that follow images), a batch is
    ``({"images": x, "index": row of each}, y)``.
    """

    with_index = False

    def __init__(self, x: Any, y: Any, batch_size: int, seed: int | None, epoch: int = 0) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self._x, self._y = x, y
        self._batch_size = min(batch_size, len(x))
        self._seed = seed
        self._epoch = epoch
        self._shuffle()

    @property
    def images(self) -> int:
        """Number of images, those that wait included."""
        return len(self._x)

    def __len__(self) -> int:
        """Return the number of batches an epoch."""
        return -(-len(self._order) // self._batch_size)

    def __getitem__(self, batch: int) -> tuple[Any, Any]:
        """Return ``(x, y)`` of one batch."""
        rows = self._order[batch * self._batch_size : (batch + 1) * self._batch_size]
        x = self._x[rows]
        return {"images": x, "index": rows.astype("int32")} if self.with_index else x, self._y[rows]

    def start(self, epoch: int) -> None:
        """Draw the order of an epoch."""
        self._epoch = epoch
        self._shuffle()

    def on_epoch_end(self) -> None:
        """Draw the next epoch's order."""
        self.start(self._epoch + 1)

    def _shuffle(self) -> None:
        count = len(self._x)
        if self._seed is None:
            self._order = np.arange(count)
            return
        order = np.random.Generator(np.random.PCG64([self._seed, self._epoch])).permutation(count)
        self._order = order[: count - count % self._batch_size]
