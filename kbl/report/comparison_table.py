"""The comparison of runs, for the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from kbl.report.compared_run import ComparedRun
from kbl.report.formatting import MISSING, percent
from kbl.report.rows import AccuracyRow

_MEASURED_WIDTH = 12  # of the widest interval, 98.9–100.0 %
_NAME_WIDTH = 20
_GAP = 2


@dataclass(frozen=True)
class ComparisonTable:
    """A line a run, and as many attacks as the terminal has room for."""

    runs: Sequence[ComparedRun]
    attacks: Sequence[str]
    notes: Sequence[str] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the widest table that fits, and say what was left out."""
        last = {
            heading: cells
            for heading, cells in {
                "Black box": [run.black_box for run in self.runs],
                "Warnings": [str(len(run.diagnostics.warnings)) for run in self.runs],
            }.items()
            if set(cells) != {MISSING}
        }
        attacks = {label: [run.attacks.get(label, MISSING) for run in self.runs] for label in self.attacks}
        room = options.max_width - _NAME_WIDTH - 2 * (_MEASURED_WIDTH + _GAP)
        room -= sum(_width(heading, cells) + _GAP for heading, cells in last.items())
        shown = {}
        for label, cells in attacks.items():
            room -= _width(label, cells) + _GAP
            if room < 0:
                break
            shown[label] = cells
        yield self._table(shown | last)
        left_out = [label for label in attacks if label not in shown]
        notes = ([f"No room for: {'; '.join(left_out)}."] if left_out else []) + list(self.notes)
        yield Text(" ".join(notes), style="dim")

    def _table(self, columns: dict[str, list[str]]) -> Table:
        table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
        table.add_column("Run", min_width=_NAME_WIDTH)
        for heading in ("Clean", "Worst case"):
            table.add_column(heading, justify="right", no_wrap=True)
        for heading, cells in columns.items():
            table.add_column(Text(heading), justify="right", width=_width(heading, cells))
        for place, run in enumerate(self.runs):
            if place:
                table.add_row()
            texts = (Text(cells[place]) for cells in columns.values())
            table.add_row(_name(run), _measured(run.clean), _measured(run.worst), *texts)
        return table


def _width(heading: str, cells: Sequence[str]) -> int:
    """Return the width of a column; a heading may take a line a word."""
    return max(map(cell_len, (*heading.split(), *cells)))


def _name(run: ComparedRun) -> Text:
    what = " · ".join(part for part in (run.data, run.method, run.backend) if part != MISSING)
    how = f"N = {run.examples}" + (f", ε = {run.epsilon}" if run.epsilon else "")
    return Text.assemble(run.name, *((f"\n{line}", "dim") for line in (what, how) if line))


def _measured(row: AccuracyRow | None) -> Text:
    if row is None:
        return Text(MISSING)
    return Text.assemble((percent(row.accuracy), "bold"), (f"\n{row.interval}", "dim"))
