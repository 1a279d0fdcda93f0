"""The one form in which every source hands over its images."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from kbl.errors import UserError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels of one classification task, split into a training and a test part.

    Args:
        name: what the source is called.
        x_train: (N, H, W, C) float32 in [0, 1], channels last.
        y_train: (N,) int32 in [0, num_classes).
        x_test: (M, H, W, C) float32 in [0, 1].
        y_test: (M,) int32 in [0, num_classes).
        class_names: the name of each class, in the order of the labels.
    """

    name: str
    x_train: npt.NDArray[np.float32]
    y_train: npt.NDArray[np.int32]
    x_test: npt.NDArray[np.float32]
    y_test: npt.NDArray[np.int32]
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """How many classes there are, including those without an image."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        height, width, channels = self.x_train.shape[1:]
        return height, width, channels

    def limited(self, n: int) -> "Dataset":
        """Keep the first `n` training images (all, if there are fewer) and the whole test part.

        Raises:
            UserError: `n` is below 1.
        """
        if n < 1:
            raise UserError(f"limit must be at least 1 training image. Received: {n}")
        return replace(self, x_train=self.x_train[:n], y_train=self.y_train[:n])
