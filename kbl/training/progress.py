"""Progress in the terminal."""

from types import TracebackType
from typing import Any

import keras
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_SHOWN = {
    "loss": "loss {:.3f}",
    "clean_accuracy": "clean {:.1%}",
    "adversarial_accuracy": "adversarial {:.1%}",
    "clean_lkd": "L_lkd {:.3g}",
    "adversarial_lkd": "/ {:.3g}",
}


def describe(logs: dict[str, Any], prefix: str = "") -> str:
    """Return the logs in a line: loss, accuracies and the two likelihood terms of Eq. 6 (clean / adversarial)."""
    return "  ".join(
        form.format(float(logs[prefix + name])) for name, form in _SHOWN.items() if prefix + name in logs
    )


class ProgressBar(keras.callbacks.Callback):
    """One bar over all epochs, and a line for each finished epoch.

    Args:
        console: where to draw; a quiet console draws nothing.
        epochs: epochs in all.
        done: epochs finished before.
    """

    def __init__(self, console: Console, epochs: int, done: int = 0) -> None:
        super().__init__()
        self._console = console
        self._epochs = epochs
        self._done = done
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(
            *columns, TimeRemainingColumn(), TextColumn("{task.fields[logs]}"), console=console
        )
        self._task = self._bar.add_task(f"epoch {done + 1}/{epochs}", total=None, logs="")

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Name the epoch."""
        steps = self.params.get("steps") or 0
        self._bar.update(
            self._task,
            description=f"epoch {epoch + 1}/{self._epochs}",
            total=steps * (self._epochs - self._done) or None,
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Advance; read the logs now and then only, as reading waits for the device."""
        if batch % 10 == 0 and not self._console.quiet:
            self._bar.update(self._task, logs=describe(logs or {}))
        self._bar.advance(self._task)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Leave a line for the epoch."""
        line = f"epoch {epoch + 1:3d}  {describe(logs or {})}"
        validation = describe(logs or {}, "val_")
        self._bar.console.print(
            line + (f"  | validation: {validation}" if validation else ""), highlight=False
        )
