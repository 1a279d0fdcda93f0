"""Progress in the terminal."""

from types import TracebackType
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_SHOWN = {
    "loss": "  loss {:.3f}",
    "clean_accuracy": "  clean {:.1%}",
    "adversarial_accuracy": "  adv {:.1%}",
    "certified_accuracy": "  certified {:.1%}",
    "clean_lkd": "  lkd {:.3g}",
    "adversarial_lkd": "/{:.3g}",
}


def describe(logs: dict[str, Any]) -> str:
    """Return the logs in a line: loss, accuracies and the two likelihood terms of Eq. 6 (clean/adversarial)."""
    return "".join(form.format(float(logs[name])) for name, form in _SHOWN.items() if name in logs)


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
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[logs]}"),
            console=console,
            transient=True,
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
            self._bar.update(self._task, logs=describe({"loss": (logs or {}).get("loss", 0.0)}))
        self._bar.advance(self._task)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Leave a line for the epoch."""
        logs = logs or {}
        names = ("val_clean_accuracy", "val_adversarial_accuracy", "val_certified_accuracy")
        validation = "/".join(f"{float(logs[name]):.1%}" for name in names if name in logs)
        line = f"{epoch + 1:3d}/{self._epochs}{describe(logs)}" + (
            f"  val {validation}" if validation else ""
        )
        self._console.print(line, highlight=False, soft_wrap=True)
