"""Training that runs away stops and says why."""

import math
from typing import Any

import keras

from kbl.errors import DivergenceError
from kbl.methods import ATBLR

_REMEDIES = (
    "Remedies: bound the adversarial term (bound = 16), let its gradient through the means alone "
    '(gradient_through = "means"), or lower likelihood_weight; '
    "batch normalization keeps it finite but costs robustness. See docs/divergence.md."
)
_OTHER_REMEDIES = "Remedies: lower the learning rate, or train in float32."
# What is validated shows what the epoch's last steps have done to the weights.
_DISTANCES = ("clean_lkd", "adversarial_lkd", "val_clean_lkd", "val_adversarial_lkd")


class StopOnDivergence(keras.callbacks.Callback):
    """Raise `kbl.DivergenceError` when the loss is not finite or ATBLR's likelihood term grows without end.

    Args:
        limit: largest mean squared distance ‖h - μ_y‖² believed, in feature units.
        every: batches between looks; a look waits for the device.
    """

    def __init__(self, limit: float = 1e6, every: int = 10) -> None:
        super().__init__()
        self.limit = limit
        self.every = every
        self._epoch = 0
        self._due = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remember the epoch for the message."""
        self._epoch = epoch
        self._due = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look at every few batches' running means; with `steps_per_execution` not every batch comes by."""
        if batch >= self._due:
            self._due = batch + self.every
            self._look(f"epoch {self._epoch + 1}, batch {batch + 1}", logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Look at the epoch's means, before anything is saved from it."""
        self._look(f"epoch {epoch + 1}", logs)

    def _look(self, where: str, logs: Any) -> None:
        values = {name: float(value) for name, value in (logs or {}).items() if not isinstance(value, dict)}
        method = self.model.method
        is_unbounded = isinstance(method, ATBLR) and method.likelihood_weight > 0
        for name in _DISTANCES:
            if is_unbounded and values.get(name, 0.0) > self.limit:
                raise DivergenceError(
                    f"Training ran away at {where}: {name}, the mean of ‖h - μ_y‖², is {values[name]:.3g}, "
                    "and the likelihood term of Eq. 8 has no lower bound. " + _REMEDIES
                )
        for name in (*_DISTANCES, "loss", "val_loss"):
            if name in values and not math.isfinite(values[name]):
                raise DivergenceError(
                    f"Training ran away at {where}: {name} is {values[name]}. "
                    + (_REMEDIES if is_unbounded else _OTHER_REMEDIES)
                )
