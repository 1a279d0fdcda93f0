"""Attacks that never see a gradient of the network: transferred ones, and Square."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kbl.report.evaluation import Evaluation, entries, example_count, is_bounded, name_of, section
from kbl.report.formatting import number, percent
from kbl.report.rows import AccuracyRow, attack_rows, worst_case

_SCORES_ONLY = "square"


@dataclass(frozen=True)
class BlackBox:
    """The rows of the black-box table, and what to know when reading it."""

    rows: list[AccuracyRow]
    text: str


def black_box(evaluation: Evaluation) -> BlackBox | None:
    """Return what attacks without gradients did, or None where none was run."""
    examples = example_count(evaluation)
    transfer = section(evaluation, "transfer")
    scored = attack_rows(_scored(evaluation), examples)
    inside = [
        replace(row, label=f"{row.label}, within {attack}", kind="attack", depth=0)
        for attack, part in _scored_parts(evaluation)
        for row in attack_rows([part], examples)
    ]
    rows = [*scored, *inside, *transferred_rows(evaluation)]
    if not rows:
        return None
    sentences = [
        "Black box: these attacks see no gradient of the network. Where they fool it more often than attacks with "
        "gradients do, the network hides its gradients, and the other numbers flatter it.",
        _of_square(bool(scored), bool(inside)),
        _of_transfer(transfer) if entries(transfer, "attacks") else "",
    ]
    return BlackBox(rows, " ".join(sentence for sentence in sentences if sentence))


def transferred_rows(evaluation: Evaluation) -> list[AccuracyRow]:
    """Return the rows of the attacks that were crafted on another network."""
    transfer, examples = section(evaluation, "transfer"), example_count(evaluation)
    rows = attack_rows(entries(transfer, "attacks"), examples)
    if len(entries(transfer, "attacks")) > 1 and is_bounded(transfer):
        rows.append(worst_case("Worst case of the transferred", transfer, examples))
    return rows


def lowest_accuracy(evaluation: Evaluation) -> float:
    """Return the lowest accuracy that black-box attacks on every image left, or NaN where none was run.

    Parts do not count: they had only the images that those before them had left.
    """
    transfer = section(evaluation, "transfer")
    found = [number(attack.get("accuracy")) for attack in _scored(evaluation)]
    if is_bounded(transfer):
        found.append(number(transfer.get("robust")))
    return min((accuracy for accuracy in found if accuracy == accuracy), default=float("nan"))


def _scored(evaluation: Evaluation) -> list[Mapping[str, Any]]:
    return [attack for attack in entries(evaluation, "attacks") if attack.get("name") == _SCORES_ONLY]


def _scored_parts(evaluation: Evaluation) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for attack in entries(evaluation, "attacks"):
        for part in entries(attack, "parts"):
            if part.get("name") == _SCORES_ONLY:
                yield name_of(attack), part


def _of_square(is_alone: bool, is_part: bool) -> str:
    if not (is_alone or is_part):
        return ""
    text = "Square asks for the network's scores alone."
    if is_part:
        text += (
            " Within another attack it takes only the images that the parts before it left, and the accuracy is what "
            "is left after all of them."
        )
    return text


def _of_transfer(transfer: Mapping[str, Any]) -> str:
    substitute, clean = transfer.get("substitute"), number(transfer.get("clean"))
    which = f" ({substitute})" if substitute else ""
    accuracy = f", whose clean accuracy is {percent(clean)}" if clean == clean else ""
    return f"The other images were crafted on another network{which}{accuracy}, and shown to this one."
