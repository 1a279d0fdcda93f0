"""What a training run leaves behind at each epoch, and how it goes on from there."""

import csv
import re
import time
from pathlib import Path
from typing import Any

import keras

from kbl.files import atomic, uninterrupted

HISTORY = "history.csv"
BATCHES = "batches.csv"
_RECORDS_AN_EPOCH = 50


class Recorder(keras.callbacks.Callback):
    """Write history, models and a checkpoint after each epoch, each file whole or not at all.

    `history.csv` has a row an epoch, `batches.csv` the means over short stretches of batches, `model.keras` is the
    last network and `best.keras` the one of the best `monitor`. The checkpoint comes last: what it stands for is
    there when it is, so a run that was cut off goes on from it to the same numbers.

    Args:
        folder: the run's folder.
        monitor: log to maximise for `best.keras`; absent from the logs, the last network is the best.
    """

    def __init__(self, folder: Path, monitor: str) -> None:
        super().__init__()
        self.folder = folder
        self.monitor = monitor
        self._history: list[dict[str, Any]] = []
        self._batches: list[dict[str, Any]] = []
        self._sums: dict[str, float] = {}
        self._seen = 0
        self._started = 0.0

    def restore(self, model: Any) -> int:
        """Load the newest checkpoint into the compiled model; return the number of finished epochs."""
        found = sorted((int(match[1]), path) for path, match in self._checkpoints())
        if not found:
            return 0
        epochs, path = found[-1]
        model.optimizer.build(model.trainable_variables)
        model.load_weights(path)
        self._history = [row for row in read_history(self.folder) if int(row["epoch"]) <= epochs]
        self._batches = [row for row in _read(self.folder / BATCHES) if int(row["epoch"]) <= epochs]
        return epochs

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the epoch's clock."""
        self._started = time.perf_counter()
        self._sums, self._seen = {}, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Turn Keras' running means into means over the last stretch of batches."""
        steps = self.params.get("steps") or _RECORDS_AN_EPOCH
        every = max(steps // _RECORDS_AN_EPOCH, 1)
        if (batch + 1) % every:
            return
        count = batch + 1
        names = (
            "loss",
            "clean_lkd",
            "adversarial_lkd",
            "clean_accuracy",
            "adversarial_accuracy",
            "certified_accuracy",
        )
        sums = {name: float(logs[name]) * count for name in names if name in logs}
        epoch = len(self._history)
        row: dict[str, Any] = {"epoch": epoch + 1, "step": epoch * steps + count}
        for name, total in sums.items():
            row[name] = (total - self._sums.get(name, 0.0)) / (count - self._seen)
        self._batches.append(row)
        self._sums, self._seen = sums, count

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write the epoch; Ctrl-C waits for it."""
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in (logs or {}).items()}}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row["seconds"] = time.perf_counter() - self._started
        earlier = [float(past.get(self.monitor, -1)) for past in self._history]
        self._history.append(row)
        with uninterrupted():
            _write(self.folder / HISTORY, self._history)
            _write(self.folder / BATCHES, self._batches)
            names = ["model.keras"]
            if row.get(self.monitor, float("inf")) > max(earlier, default=-1.0):
                names.append("best.keras")
            for name in names:
                with atomic(self.folder / name) as path:
                    self.model.network.save(path)
            with atomic(self.folder / f"checkpoint-{epoch + 1}.weights.h5") as path:
                self.model.save_weights(path)
            for path, match in list(self._checkpoints()):
                if int(match[1]) != epoch + 1:
                    path.unlink()

    @property
    def history(self) -> tuple[dict[str, Any], ...]:
        """The rows of the finished epochs."""
        return tuple(self._history)

    def remove_checkpoint(self) -> None:
        """Remove the checkpoint of a run that is finished, and those of the networks trained inside it."""
        for path in list(self.folder.rglob("checkpoint-*.weights.h5")):
            path.unlink()

    def _checkpoints(self) -> Any:
        for path in self.folder.glob("checkpoint-*.weights.h5"):
            match = re.fullmatch(r"checkpoint-(\d+)\.weights\.h5", path.name)
            if match:
                yield path, match


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's `history.csv`, as text; none where there is no such file."""
    return _read(folder / HISTORY)


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[-1]), restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
