"""Accuracy tables in Markdown."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from kbl.report.black_box import black_box
from kbl.report.diagnostics import warning_texts
from kbl.report.evaluation import Evaluation, example_count
from kbl.report.formatting import MISSING, count
from kbl.report.rows import AccuracyRow, accuracy_rows

# What identifies a row: kind, label, ε, steps, restarts and which of its like, for its attack and for itself.
_Path: TypeAlias = tuple[tuple[str, ...], ...]
_ORDER = {"clean": 0, "attack": 1, "worst": 2, "certified": 3}


def accuracy_markdown(evaluations: Mapping[str, Evaluation]) -> str:
    """Return one Markdown table with a column for each evaluation, and one of the black-box attacks.

    Args:
        evaluations: Maps the label of a column to its evaluation.

    Returns:
        The tables, a line about their intervals, and one line for each warning. Attacks that agree in
        label, ε, steps and restarts share a row; what an evaluation did not run is a dash. A single
        evaluation also gets columns of its passes and time.
    """
    lines = _table(evaluations, accuracy_rows)
    lines += ["", "In brackets: 95 % Wilson interval for N examples."]
    if any(line.startswith("| ↳") for line in lines):
        lines[-1] += " ↳: what was left right after each part."
    if any(black_box(evaluation) for evaluation in evaluations.values()):
        lines += ["", "**Black box**", "", *_table(evaluations, _black_box_rows)]
    for label, evaluation in evaluations.items():
        lines += warning_lines(label, evaluation)
    return "\n".join(lines) + "\n"


def warning_lines(label: str, evaluation: Evaluation) -> list[str]:
    """Return a paragraph for each warning of an evaluation."""
    lines = []
    for name, message, remedy in warning_texts(evaluation):
        parts = (name and f"{name}:", message, remedy and f"What to do: {remedy}")
        lines += ["", f"**Warning** ({label}): {' '.join(part for part in parts if part)}"]
    return lines


def markdown_row(*cells: str) -> str:
    """Return a row of a Markdown table, its cells escaped."""
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


def _black_box_rows(evaluation: Evaluation) -> list[AccuracyRow]:
    found = black_box(evaluation)
    return found.rows if found else []


def _table(
    evaluations: Mapping[str, Evaluation], rows_of: Callable[[Evaluation], list[AccuracyRow]]
) -> list[str]:
    columns = [_column(rows_of(evaluation)) for evaluation in evaluations.values()]
    rank: dict[_Path, int] = {}  # the order in which rows appear
    for path in (path for column in columns for path in column):
        for end in range(1, len(path) + 1):
            rank.setdefault(path[:end], len(rank))
    every = dict.fromkeys(path for column in columns for path in column)
    headings = [f"{name} (N = {count(example_count(e))})" for name, e in evaluations.items()]
    more = ["Passes", "Time"] if len(columns) == 1 else []
    lines = [
        markdown_row("Attack", "ε", "Steps", "Restarts", *headings, *more),
        "|:---|---:|---:|---:|" + "---:|" * len(headings + more),
    ]
    for path in sorted(
        every,
        key=lambda path: (_ORDER[path[0][0]], [rank[path[:end]] for end in range(1, len(path) + 1)]),
    ):
        found = [column.get(path) for column in columns]
        cells = [row.cell if row else MISSING for row in found]
        if more:
            cells += [text for row in found if row for text in (row.passes, row.time)]
        _, label, *columns_of_row, _ = path[-1]
        lines.append(markdown_row("↳ " * (len(path) - 1) + label, *columns_of_row, *cells))
    return lines


def _column(rows: Sequence[AccuracyRow]) -> dict[_Path, AccuracyRow]:
    """Map what identifies a row to the row."""
    column: dict[_Path, AccuracyRow] = {}
    above: _Path = ()
    for row in rows:
        above = above[: row.depth]
        shown = (row.kind, row.label, row.epsilon, row.steps, row.restarts)
        alike = sum(path[:-1] == above and path[-1][:5] == shown for path in column)
        above = (*above, (*shown, str(alike)))
        column[above] = row
    return column
