"""The rows of an accuracy table: what the terminal, Markdown and HTML all show."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kbl.report.evaluation import (
    Evaluation,
    entries,
    example_count,
    has_radius,
    is_bounded,
    is_minimum_norm,
    name_of,
    section,
)
from kbl.report.formatting import (
    MISSING,
    count,
    distance,
    duration,
    norm_symbol,
    number,
    passes,
    percent,
    percent_range,
    radius,
)
from kbl.report.intervals import wilson_interval

CERTIFIED = "Certified (lower bound)"
# What a table may do without where no row has it: heading and field.
OPTIONAL = {"ε": "epsilon", "Steps": "steps", "Restarts": "restarts", "Passes": "passes", "Time": "time"}


@dataclass(frozen=True)
class AccuracyRow:
    """One line of an accuracy table.

    `kind` is "clean", "attack", "part", "worst" or "certified"; a part is `depth` levels beneath its attack. A row
    with a `distance` is that of a minimum-norm attack, which has no accuracy at a radius.
    """

    kind: str
    label: str
    accuracy: float
    low: float = math.nan
    high: float = math.nan
    epsilon: str = ""
    steps: str = ""
    restarts: str = ""
    passes: str = ""
    time: str = ""
    distance: str = ""
    depth: int = 0

    @property
    def interval(self) -> str:
        """The interval: `83.6–85.0 %`; nothing where it is unknown."""
        return "" if self.distance or math.isnan(self.low) else percent_range(self.low, self.high)

    @property
    def cell(self) -> str:
        """What was measured, in one cell: `84.3 % (83.6–85.0 %)` or `median ℓ2 0.83`."""
        if self.distance:
            return f"median {self.distance}"
        return percent(self.accuracy) + (f" ({self.interval})" if self.interval else "")


def accuracy_rows(evaluation: Evaluation) -> list[AccuracyRow]:
    """Return the rows clean, each attack with its parts, pointwise worst case, certified.

    Without an attack the worst case is left out: a network that nobody attacked is not robust.
    """
    examples = example_count(evaluation)
    clean = number(evaluation.get("clean"))
    rows = [AccuracyRow("clean", "Clean", clean, *wilson_interval(clean, examples))]
    rows += attack_rows(entries(evaluation, "attacks"), examples)
    if is_bounded(evaluation):
        rows.append(worst_case("Worst case per example", evaluation, examples))
    certified = section(evaluation, "certified")
    if certified:
        accuracy, epsilon = (number(certified.get(key)) for key in ("accuracy", "epsilon"))
        interval = wilson_interval(accuracy, examples)
        time = duration(number(certified.get("seconds")))
        rows.append(AccuracyRow("certified", CERTIFIED, accuracy, *interval, radius(epsilon), time=time))
    return rows


def attack_rows(attacks: Iterable[Mapping[str, Any]], examples: int, depth: int = 0) -> list[AccuracyRow]:
    """Return the row of each attack, followed by those of its parts."""
    rows = []
    for attack in attacks:
        rows.append(_attack_row(attack, examples, depth))
        rows += attack_rows(entries(attack, "parts"), examples, depth + 1)
    return rows


def worst_case(label: str, attacked: Mapping[str, Any], examples: int) -> AccuracyRow:
    """Return the row of the worst case of `attacks`, with their radius where they share one."""
    robust, epsilon = number(attacked.get("robust")), shared_radius(attacked)
    return AccuracyRow("worst", label, robust, *wilson_interval(robust, examples), epsilon=epsilon)


def shared_radius(attacked: Mapping[str, Any]) -> str:
    """Return the radius that all attacks but the minimum-norm ones share, or nothing."""
    bounded = [attack for attack in entries(attacked, "attacks") if has_radius(attack)]
    radii = {radius_of(attack) for attack in bounded}
    return radii.pop() if len(radii) == 1 else ""


def radius_of(attack: Mapping[str, Any]) -> str:
    """Write the radius of an attack, with its norm where that is not the usual ℓ∞."""
    parameters = section(attack, "parameters")
    if parameters.get("epsilon") is None:
        return ""
    norm = str(parameters.get("norm", "linf"))
    return radius(number(parameters["epsilon"])) + ("" if norm == "linf" else f" ({norm_symbol(norm)})")


def accuracy_notes(evaluation: Evaluation) -> list[str]:
    """Return the sentences that a reader of the rows needs."""
    rows = accuracy_rows(evaluation)
    left = "The 95 % Wilson intervals tell what so many examples leave open"
    notes = [f"{count(example_count(evaluation))} test examples.", f"{left}."]
    if is_bounded(evaluation):
        notes[-1] = (
            f"{left}; they say nothing of attacks that were not tried, so robust accuracy is an upper bound. In "
            "the worst case an example counts as right only if every attack failed on it."
        )
    if any(row.depth for row in rows):
        notes.append(
            "Indented: the parts of an attack, each run on the images that those before it had left; the accuracy "
            "is what was left right after it."
        )
    if any(row.distance for row in rows):
        notes.append(
            "A minimum-norm attack seeks the nearest adversarial example, however far: it has no accuracy at an ε "
            "and is part of no worst case; its median distance tells how near the examples are."
        )
        notes += [
            f"{row.label} found none for {percent(row.accuracy)} of the images."
            for row in rows
            if row.distance and row.accuracy > 0
        ]
    if any(row.kind == "certified" for row in rows):
        notes.append(
            "Certified: right, and proven right for every image within ε; robust accuracy at that ε is not below it."
        )
    if "Passes" in columns_in_use(rows):
        notes.append("Passes: forward + backward through the network, mean per image attacked.")
    return notes


def columns_in_use(rows: Sequence[AccuracyRow]) -> list[str]:
    """Return which of the `OPTIONAL` headings have something beneath them in one row or more."""
    empty = ("", MISSING)
    return [
        heading
        for heading, field in OPTIONAL.items()
        if any(getattr(row, field) not in empty for row in rows)
    ]


def _attack_row(attack: Mapping[str, Any], examples: int, depth: int) -> AccuracyRow:
    parameters, nearest = section(attack, "parameters"), section(attack, "distance")
    accuracy, attacked = number(attack.get("accuracy")), number(attack.get("attacked"))
    forward, backward = (
        number(attack.get(key)) / attacked if attacked > 0 else math.nan for key in ("forward", "backward")
    )
    median = distance(number(nearest.get("median")), str(nearest.get("norm") or "l2"))
    return AccuracyRow(
        "part" if depth else "attack",
        name_of(attack),
        accuracy,
        *wilson_interval(accuracy, examples),
        epsilon=radius_of(attack),
        steps=_whole(parameters.get("steps")),
        restarts=_whole(parameters.get("restarts")),
        passes=passes(forward, backward),
        time=duration(number(attack.get("seconds"))),
        distance=median if is_minimum_norm(attack) else "",
        depth=depth,
    )


def _whole(value: object) -> str:
    if value is None:
        return ""
    return count(value) if isinstance(value, int) else str(value)
