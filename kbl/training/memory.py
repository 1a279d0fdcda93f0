"""What a training method remembers, kept with the model."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np


@dataclass(frozen=True)
class SetAside:
    """Weights that training goes on from, while others are in the model.

    Args:
        step: number of training steps that had been taken.
        weights: of each trainable variable.
    """

    step: int
    weights: list[np.ndarray]


@keras.saving.register_keras_serializable(package="kbl")
class Memory(keras.layers.Layer):
    """Variables under names that are known only when a method is compiled; they are saved and restored by name.

    Beside them what `kbl.training.AveragedWeights` has set aside, if it has.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.values: dict[str, Any] = {}
        self.aside: SetAside | None = None

    def begin(self, first: dict[str, Any]) -> None:
        """Take these arrays as first values, in variables of these names alone."""
        self.aside = None
        arrays = {name: np.asarray(value) for name, value in first.items()}
        kept: dict[str, Any] = {}
        for name, variable in self.values.items():
            if name in arrays and _is_like(variable, arrays[name]):
                kept[name] = variable
            else:
                self._untrack_variable(variable)
        for name, array in arrays.items():
            if name not in kept:
                kept[name] = self.add_weight(
                    name=name, shape=array.shape, dtype=str(array.dtype), initializer="zeros", trainable=False
                )
            kept[name].assign(array)
        self.values = kept

    def save_own_variables(self, store: Any) -> None:
        """Write each variable under its name."""
        for name, variable in self.values.items():
            store[name] = variable
        if self.aside is not None:
            store["aside_step"] = np.array(self.aside.step)
            for i, value in enumerate(self.aside.weights):
                store[f"aside_{i}"] = value

    def load_own_variables(self, store: Any) -> None:
        """Read what is there under the names in use."""
        for name, variable in self.values.items():
            variable.assign(store[name])
        names = list(store.keys())
        if "aside_step" in names:
            count = sum(name.startswith("aside_") for name in names) - 1
            weights = [np.array(store[f"aside_{i}"]) for i in range(count)]
            self.aside = SetAside(int(np.array(store["aside_step"])), weights)
        else:
            self.aside = None


def _is_like(variable: Any, array: Any) -> bool:
    return tuple(variable.shape) == array.shape and variable.dtype == str(array.dtype)
