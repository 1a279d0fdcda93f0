"""What an evaluation found, for the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kbl.report.black_box import black_box
from kbl.report.detection import Finding, detection, rejection
from kbl.report.diagnostics import diagnostics, warning_texts
from kbl.report.evaluation import Evaluation, example_count
from kbl.report.formatting import count, percent
from kbl.report.rows import OPTIONAL, AccuracyRow, accuracy_rows, columns_in_use

__all__ = ["AccuracyTable", "accuracy_table", "evaluation_tables", "warning_texts"]

_LEFT_OUT_FIRST = ("Passes", "Time", "Restarts", "Steps", "ε")
_LABEL_WIDTH = 21


@dataclass(frozen=True)
class AccuracyTable:
    """A table of accuracies that leaves out columns for which the terminal is too narrow."""

    title: str
    rows: Sequence[AccuracyRow]
    caption: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the widest table that fits."""
        columns = self._columns(columns_in_use(self.rows))
        for heading in _LEFT_OUT_FIRST:
            if _width(columns) <= options.max_width:
                break
            columns.pop(heading, None)
        table = Table(
            title=self.title,
            caption=self.caption or None,
            box=SIMPLE_HEAD,
            collapse_padding=True,
            pad_edge=False,
        )
        for heading in columns:
            table.add_column(
                heading, justify="left" if heading == "Attack" else "right", no_wrap=heading != "Attack"
            )
        for place, row in enumerate(self.rows):
            label = Padding(Text(row.label), (0, 0, 0, 2 * row.depth))  # as it is: [brackets] are no markup
            cells = (Text(cells[place]) for heading, cells in columns.items() if heading != "Attack")
            table.add_row(
                label, *cells, style={"worst": "bold", "certified": "bold", "part": "dim"}.get(row.kind, "")
            )
            if row.kind == "clean":
                table.add_section()
        yield table

    def _columns(self, optional: Sequence[str]) -> dict[str, list[str]]:
        """Return the cells of each column by its heading."""
        measured = {
            "Accuracy": ["median" if row.distance else percent(row.accuracy) for row in self.rows],
            "95 % interval": [row.distance or row.interval for row in self.rows],
        }
        columns = {"Attack": [2 * row.depth * " " + row.label for row in self.rows]}
        for heading in ("ε", "Steps", "Restarts", *measured, "Passes", "Time"):
            if heading in measured:
                columns[heading] = measured[heading]
            elif heading in optional:
                columns[heading] = [getattr(row, OPTIONAL[heading]) for row in self.rows]
        return columns


def _width(columns: dict[str, list[str]]) -> int:
    """Return how much room a table needs; long names of attacks may take more than one line."""
    widths = [max(map(cell_len, (heading, *cells))) for heading, cells in columns.items()]
    return min(widths[0], _LABEL_WIDTH) + sum(widths[1:]) + 2 * len(widths)


def accuracy_table(evaluation: Evaluation) -> AccuracyTable:
    """Return the accuracies of one evaluation, for the terminal: clean, each attack, the worst case."""
    rows = accuracy_rows(evaluation)
    caption = [f"{count(example_count(evaluation))} examples; intervals are 95 % Wilson intervals"]
    if any(row.depth for row in rows):
        caption.append("indented: what was left right after each part")
    if any(row.distance for row in rows):
        caption.append("median: to the nearest adversarial example")
    found = diagnostics(evaluation)
    if found.warnings or found.checks is not None:
        caption.append(found.summary)
    return AccuracyTable("Accuracy", rows, "; ".join(caption))


def evaluation_tables(evaluation: Evaluation) -> Group:
    """Return all that the terminal shows of one evaluation: accuracy, black box, detection, rejection."""
    parts: list[RenderableType] = [accuracy_table(evaluation)]
    black = black_box(evaluation)
    if black:
        parts += [AccuracyTable("Black box", black.rows), Text(black.text + "\n", style="dim")]
    for title, finding in (
        ("Detection by likelihood", detection(evaluation)),
        ("Rejection", rejection(evaluation)),
    ):
        if finding:
            parts += [_small_table(title, finding), Text(finding.text + "\n", style="dim")]
    return Group(*parts)


def _small_table(title: str, finding: Finding) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    first, *others = finding.headings
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right")
    for row in finding.rows:
        table.add_row(*map(Text, row))
    return table
