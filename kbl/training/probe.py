"""A stronger attack than the one trained with, at the end of each epoch."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from kbl.attacks import predict
from kbl.typing import Tensor

_FALL = 0.5  # below this share of the best accuracy so far the fall has a name


class Probe(keras.callbacks.Callback):
    """Attack validation images after each epoch, and name catastrophic overfitting when it comes.

    Training on one-step attacks may collapse within an epoch: the network stays right under the attack it is trained
    with and fails under PGD (Wong, Rice & Kolter, arXiv:2001.03994, §5.4). The epoch's logs get ``probe_accuracy``. Put
    it before what records them.

    Overfitting is called catastrophic from the epoch on at which the probe's accuracy is below half of its best, while
    that of the training attack on training images is no lower than it was at that best.

    Args:
        attack: an attack of `kbl.attacks`, such as PGD-10.
        x: (N, ...) float32 images in [0, 1].
        y: (N,) labels.
        seed: of the attack's random starts.
        say: is told once what was found.
    """

    def __init__(self, attack: Any, x: Tensor, y: Tensor, seed: int = 0, say: Any = None) -> None:
        super().__init__()
        self.attack = attack
        self.x, self.y = x, np.asarray(y)
        self.seed = seed
        self.overfitted_at: int | None = None
        self._say = say or (lambda text: None)
        self._best, self._trained = 0.0, 0.0

    def recall(self, history: Iterable[dict[str, Any]]) -> None:
        """Take in the epochs of a run that was cut off."""
        for epoch, row in enumerate(history):
            self._judge(
                epoch, float(row.get("probe_accuracy") or 0), float(row.get("adversarial_accuracy") or 0)
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Measure, and judge."""
        logs = {} if logs is None else logs
        network = self.model.network
        x_adv = self.attack(network, self.x, self.y, seed=self.seed)
        accuracy = float((predict(network, x_adv).argmax(-1) == self.y).mean())
        logs["probe_accuracy"] = accuracy
        trained = float(logs.get("adversarial_accuracy", 0.0))
        if self._judge(epoch, accuracy, trained):
            self._say(
                f"Catastrophic overfitting at epoch {epoch + 1}: {trained:.1%} under the training attack, but "
                f"{accuracy:.1%} under {self.attack.label} (at best {self._best:.1%}). The last network is not "
                "robust; best.keras may be."
            )

    def _judge(self, epoch: int, accuracy: float, trained: float) -> bool:
        """Tell whether this is the epoch of the fall."""
        if accuracy >= self._best:
            self._best, self._trained = accuracy, trained
        elif self.overfitted_at is None and accuracy < _FALL * self._best and trained >= self._trained:
            self.overfitted_at = epoch + 1
            return True
        return False
