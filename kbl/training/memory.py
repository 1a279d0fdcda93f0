"""What a training method remembers, kept with the model."""

from typing import Any

import keras
import numpy as np


@keras.saving.register_keras_serializable(package="kbl")
class Memory(keras.layers.Layer):
    """Variables under names that are known only when a method is compiled; they are saved and restored by name."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.values: dict[str, Any] = {}

    def begin(self, first: dict[str, Any]) -> None:
        """Take these arrays as first values, in variables of these names alone."""
        kept: dict[str, Any] = {}
        for name, value in first.items():
            array = np.asarray(value)
            variable = self.values.get(name)
            if variable is None or tuple(variable.shape) != array.shape:
                variable = self.add_weight(
                    name=name, shape=array.shape, dtype=str(array.dtype), initializer="zeros", trainable=False
                )
            variable.assign(array)
            kept[name] = variable
        self.values = kept

    def save_own_variables(self, store: Any) -> None:
        """Write each variable under its name."""
        for name, variable in self.values.items():
            store[name] = variable

    def load_own_variables(self, store: Any) -> None:
        """Read what is there under the names in use."""
        for name, variable in self.values.items():
            variable.assign(store[name])
