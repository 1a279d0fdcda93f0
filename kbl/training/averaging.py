"""Weights averaged over the steps of training."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kbl.training.memory import SetAside


class AveragedWeights(keras.callbacks.Callback):
    """Validate, save and leave the moving average of the weights; training itself goes on from those of the last step.

    For a `kbl.RobustModel` and an optimizer with ``use_ema=True``. Put it before what saves the model. While the
    average is in the model, the weights of the last step lie in the model's memory, and so in what is saved of it:
    training that goes on from there begins with them. When training ends, early or not, the average stays.

    What BatchNormalization estimates is not averaged: it belongs to the weights of the last step.
    """

    def on_train_begin(self, logs: Any = None) -> None:
        """Refuse an optimizer that averages nothing."""
        optimizer = self.model.optimizer
        if not getattr(optimizer, "inner_optimizer", optimizer).use_ema:
            raise ValueError(
                f"AveragedWeights needs an optimizer with use_ema=True. Received: {type(optimizer).__name__} "
                "with use_ema=False"
            )
        self._part()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Go on from the last step."""
        self._take_back()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Let the average be what is saved."""
        self._show()

    def on_test_begin(self, logs: Any = None) -> None:
        """Let the average be what is validated."""
        self._show()

    def on_test_end(self, logs: Any = None) -> None:
        """Go on from the last step."""
        self._take_back()

    def on_train_end(self, logs: Any = None) -> None:
        """Let the average stay."""
        self.model.memory.aside = None
        self._part()

    def _part(self) -> None:
        """Give the model arrays of its own: where Keras puts the average into it, JAX has one array for both.

        A step uses up what it is given.
        """
        for weight in self.model.trainable_variables:
            weight.assign(np.array(ops.convert_to_numpy(weight)))

    def _show(self) -> None:
        """Put the average into the model and its weights aside."""
        if self.model.memory.aside is None:
            weights = self.model.trainable_variables
            copies = [np.array(ops.convert_to_numpy(weight)) for weight in weights]
            self.model.memory.aside = SetAside(self._steps(), copies)
            self.model.optimizer.finalize_variable_values(weights)
            self._part()

    def _take_back(self) -> None:
        """Put the weights that were set aside into the model, unless steps have been taken without them."""
        aside, self.model.memory.aside = self.model.memory.aside, None
        if aside is not None and aside.step == self._steps():
            for weight, value in zip(self.model.trainable_variables, aside.weights, strict=True):
                weight.assign(value)

    def _steps(self) -> int:
        return int(ops.convert_to_numpy(self.model.steps_taken))
