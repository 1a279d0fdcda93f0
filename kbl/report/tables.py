"""Accuracy tables of an evaluation, for the terminal and for Markdown."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from kbl.report.formatting import MISSING, count, duration, number, percent, percent_range, radius

Evaluation = Mapping[str, Any]


def wilson_interval(fraction: float, examples: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion.

    (p + z²/2n ± z·√(p(1-p)/n + z²/4n²)) / (1 + z²/n), with z the two-sided normal quantile.

    Args:
        fraction: The observed proportion p, in [0, 1]; NaN gives (NaN, NaN).
        examples: How many examples n it was observed on; 0 gives (NaN, NaN).
        confidence: The coverage, between 0 and 1.

    Returns:
        The lower and the upper bound, both in [0, 1].

    Raises:
        ValueError: If an argument is out of its range.

    References:
        Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    if examples < 0:
        raise ValueError(f"`examples` must be 0 or more. Received: examples={examples}")
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1. Received: confidence={confidence}")
    if math.isnan(fraction) or examples == 0:
        return math.nan, math.nan
    if not 0 <= fraction <= 1:
        raise ValueError(f"`fraction` must lie in [0, 1]. Received: fraction={fraction}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    shrink = 1 + z**2 / examples
    centre = (fraction + z**2 / (2 * examples)) / shrink
    spread = z * math.sqrt(fraction * (1 - fraction) / examples + z**2 / (4 * examples**2)) / shrink
    return max(0.0, centre - spread), min(1.0, centre + spread)


@dataclass(frozen=True)
class AccuracyRow:
    """One line of an accuracy table; `kind` is "clean", "attack" or "worst"."""

    kind: str
    label: str
    epsilon: str
    steps: str
    restarts: str
    accuracy: float
    low: float
    high: float
    seconds: float = math.nan

    @property
    def interval(self) -> str:
        """The interval: `83.6–85.0 %`; nothing where it is unknown."""
        return "" if math.isnan(self.low) else percent_range(self.low, self.high)

    @property
    def cell(self) -> str:
        """The accuracy with its interval: `84.3 % (83.6–85.0 %)`."""
        return percent(self.accuracy) + (f" ({self.interval})" if self.interval else "")


def accuracy_rows(evaluation: Evaluation) -> list[AccuracyRow]:
    """Return the rows clean, each attack, pointwise worst case.

    Without an attack the worst case is left out: a network that nobody attacked is not robust.
    """
    examples = example_count(evaluation)
    attacks = evaluation.get("attacks") or []
    clean = number(evaluation.get("clean"))
    rows = [AccuracyRow("clean", "Clean", "", "", "", clean, *wilson_interval(clean, examples))]
    for attack in attacks:
        parameters = attack.get("parameters") or {}
        accuracy = number(attack.get("accuracy"))
        rows.append(
            AccuracyRow(
                "attack",
                str(attack.get("label") or attack.get("name") or "unnamed attack"),
                _radius(parameters),
                _whole(parameters.get("steps", "")),
                _whole(parameters.get("restarts", "")),
                accuracy,
                *wilson_interval(accuracy, examples),
                seconds=number(attack.get("seconds")),
            )
        )
    if attacks:
        robust = number(evaluation.get("robust"))
        radii = {row.epsilon for row in rows[1:]}
        shared = radii.pop() if len(radii) == 1 else ""
        interval = wilson_interval(robust, examples)
        rows.append(AccuracyRow("worst", "Worst case per example", shared, "", "", robust, *interval))
    return rows


def example_count(evaluation: Evaluation) -> int:
    """Return how many examples were judged; 0 where that is unknown."""
    examples = number(evaluation.get("examples"))
    return int(examples) if math.isfinite(examples) else 0


def warning_texts(evaluation: Evaluation) -> Iterator[tuple[str, str, str]]:
    """Yield (name, message, remedy) of every warning; a plain string is a message only."""
    for warning in evaluation.get("warnings") or []:
        if isinstance(warning, Mapping):
            name, message, remedy = (warning.get(key) for key in ("name", "message", "remedy"))
            yield str(name or ""), str(message or ""), str(remedy or "")
        else:
            yield "", str(warning), ""


def accuracy_table(evaluation: Evaluation) -> Table:
    """Return the accuracy table of one evaluation, for the terminal."""
    warnings = sum(1 for _ in warning_texts(evaluation))
    caption = f"{count(example_count(evaluation))} examples; intervals are 95 % Wilson intervals"
    if warnings:
        caption += f"; {warnings} warning{'s' if warnings > 1 else ''}"
    table = Table(title="Accuracy", caption=caption, box=SIMPLE_HEAD)
    table.add_column("Attack")
    for heading in ("ε", "Steps", "Restarts", "Accuracy", "95 % interval", "Time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in accuracy_rows(evaluation):
        table.add_row(
            Text(row.label),  # as it is: a label in [brackets] is no markup
            *(Text(cell) for cell in (row.epsilon, row.steps, row.restarts)),
            percent(row.accuracy),
            row.interval,
            duration(row.seconds) if row.kind == "attack" else "",
            style="bold" if row.kind == "worst" else "",
        )
        if row.kind == "clean":
            table.add_section()
    return table


def accuracy_markdown(evaluations: Mapping[str, Evaluation]) -> str:
    """Return one Markdown table with a column for each evaluation.

    Args:
        evaluations: Maps the label of a column to its evaluation.

    Returns:
        The table, a line about its intervals, and one line for each warning. Attacks that agree in
        label, ε, steps and restarts share a row; what an evaluation did not run is a dash.
    """
    columns = [_markdown_column(evaluation) for evaluation in evaluations.values()]
    keys = dict.fromkeys(key for column in columns for key in column)  # each once, in order
    order = {"clean": 0, "attack": 1, "worst": 2}
    headings = [f"{name} (N = {count(example_count(e))})" for name, e in evaluations.items()]
    lines = [
        _markdown_row("Attack", "ε", "Steps", "Restarts", *headings),
        "|:---|---:|---:|---:|" + "---:|" * len(headings),
    ]
    for key in sorted(keys, key=lambda key: order[key[0]]):
        cells = (column.get(key, MISSING) for column in columns)
        lines.append(_markdown_row(*key[1:5], *cells))
    lines += ["", "In brackets: 95 % Wilson interval for N examples."]
    for label, evaluation in evaluations.items():
        for name, message, remedy in warning_texts(evaluation):
            text = " ".join(
                part for part in (name and f"{name}:", message, remedy and f"What to do: {remedy}") if part
            )
            lines += ["", f"**Warning** ({label}): {text}"]
    return "\n".join(lines) + "\n"


def _markdown_column(evaluation: Evaluation) -> dict[tuple[str, ...], str]:
    """Map what identifies a row (kind, label, ε, steps, restarts, which of its like) to its cell."""
    column: dict[tuple[str, ...], str] = {}
    for row in accuracy_rows(evaluation):
        shown = (row.kind, row.label, row.epsilon, row.steps, row.restarts)
        alike = sum(key[:5] == shown for key in column)
        column[*shown, str(alike)] = row.cell
    return column


def _whole(value: object) -> str:
    return count(value) if isinstance(value, int) else str(value)


def _radius(parameters: Mapping[str, Any]) -> str:
    """Write the radius of an attack, with its norm where that is not the usual ℓ∞."""
    if "epsilon" not in parameters:
        return ""
    norm = str(parameters.get("norm", "linf"))
    shown = {"linf": "", "l2": " (ℓ2)"}.get(norm, f" ({norm})")
    return radius(number(parameters["epsilon"])) + shown


def _markdown_row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"
