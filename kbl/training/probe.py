"""A stronger attack than the one trained with, at the end of each epoch."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from kbl.attacks import predict
from kbl.attacks.prediction import is_right
from kbl.typing import Tensor

_FALL = 0.5  # below this share of the best accuracy so far the fall has a name


class Overfitting(NamedTuple):
    """The fall that is called catastrophic overfitting: its epoch, counted from 1, and accuracies in [0, 1].

    `trained` and `probed` are those under the training attack and the probe after that epoch, `best` the probe's
    best before it.
    """

    epoch: int
    trained: float
    probed: float
    best: float

    def message(self, probe: str) -> str:
        """Say it; `probe` is what the attack is called."""
        return (
            f"Catastrophic overfitting at epoch {self.epoch}: {self.trained:.1%} under the training attack, but "
            f"{self.probed:.1%} under {probe} (at best {self.best:.1%})."
        )


def overfitting(history: Iterable[Mapping[str, Any]]) -> Overfitting | None:
    """Find the epoch at which the probe's accuracy fell while that under the training attack did not.

    Args:
        history: a row for each epoch, as in `history.csv`. Without an attack in training there is nothing to overfit
            to: rows without ``adversarial_accuracy`` are passed over.

    Returns:
        The first epoch at which the probe's accuracy is below half of its best, while that of the training attack on
        training images is no lower than it was at that best; None if there is none.
    """
    best, trained_at_best = 0.0, 0.0
    for row in history:
        if not all(row.get(name) not in (None, "") for name in ("probe_accuracy", "adversarial_accuracy")):
            continue
        probed, trained = float(row["probe_accuracy"]), float(row["adversarial_accuracy"])
        if probed >= best:
            best, trained_at_best = probed, trained
        elif probed < _FALL * best and trained >= trained_at_best:
            return Overfitting(int(row["epoch"]), trained, probed, best)
    return None


class Probe(keras.callbacks.Callback):
    """Attack validation images after each epoch, and name catastrophic overfitting when it comes.

    Training on one-step attacks may collapse within an epoch: the network stays right under the attack it is trained
    with and fails under PGD (Wong, Rice & Kolter, arXiv:2001.03994, §5.4); see `overfitting`. The epoch's logs get
    ``probe_accuracy``. Put it before what records them.

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
        self._say = say or (lambda text: None)
        self._history: list[Mapping[str, Any]] = []

    @property
    def found(self) -> Overfitting | None:
        """The overfitting up to now, if there was one."""
        return overfitting(self._history)

    def recall(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Take in the epochs of a run that was cut off, as `history.csv` has them."""
        self._history += history

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Measure, and judge."""
        logs = {} if logs is None else logs
        network = self.model.network
        x_adv = self.attack(network, self.x, self.y, seed=self.seed)
        logs["probe_accuracy"] = float(is_right(predict(network, x_adv), self.y).mean())
        self._history.append({"epoch": epoch + 1, **logs})
        found = self.found
        if found is not None and found.epoch == epoch + 1:
            self._say(
                f"{found.message(self.attack.label)} The last network is not robust; best.keras may be."
            )
