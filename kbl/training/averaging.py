"""Weights averaged over the steps of training."""

from typing import Any

import keras


class AveragedWeights(keras.callbacks.SwapEMAWeights):
    """Validate and save the moving average of the weights; training itself goes on from the weights of the last step.

    For an optimizer with ``use_ema=True``. Put it before what saves the model. A checkpoint saved at the end of an
    epoch holds the average in the model's place, so training that goes on from one begins by swapping back.

    What BatchNormalization estimates is not averaged: it belongs to the weights of the last step.
    """

    def __init__(self) -> None:
        super().__init__(swap_on_epoch=True)

    def on_train_begin(self, logs: Any = None) -> None:
        """Find the average in the model's place when this is not the first epoch."""
        self._ema_weights_in_model = int(self.model.optimizer.iterations) > 0
