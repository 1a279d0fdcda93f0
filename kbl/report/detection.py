"""Attacked images told from clean ones by a score, and images rejected by it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kbl.report.evaluation import Evaluation, entries, name_of, section
from kbl.report.formatting import count, decimals, number, percent


@dataclass(frozen=True)
class Finding:
    """A small table with a heading for each column, and what to know when reading it."""

    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    text: str


def detection(evaluation: Evaluation) -> Finding | None:
    """Return how well the score tells attacked images from clean ones, or None where that was not asked."""
    found = section(evaluation, "detection")
    attacks = entries(found, "attacks")
    if not attacks:
        return None
    rows = [
        (
            name_of(attack),
            decimals(number(attack.get("auroc"))),
            percent(number(attack.get("fpr95"))),
            count(number(attack.get("examples"))),
        )
        for attack in attacks
    ]
    text = (
        f"The score is the {found.get('score') or 'likelihood'}; the attacked images are those that fool the network. "
        "AUROC is the chance that a clean image scores higher than an attacked one: 0.5 is guessing, 1 tells them "
        "apart without fail. FPR at 95 % TPR: where 95 % of the clean images are accepted, this share of the attacked "
        f"ones passes for clean, too. {_whom_to_believe([row[0] for row in rows])}{_left_out(found)}"
    )
    return Finding(("Attack", "AUROC", "FPR at 95 % TPR", "Images"), rows, text)


def rejection(evaluation: Evaluation) -> Finding | None:
    """Return what rejecting the images of a low score gains and costs, or None where that was not asked."""
    found = section(evaluation, "rejection")
    if not found:
        return None
    clean, refused, robust = (number(found.get(key)) for key in ("clean", "clean_rejected", "robust"))
    rows: list[tuple[str, ...]] = [("Clean: accepted and right", percent(clean), percent(refused))]
    rows += [
        (name_of(attack), *(percent(number(attack.get(key))) for key in ("accuracy", "rejected")))
        for attack in entries(found, "attacks")
    ]
    if entries(found, "attacks"):
        rows.append(("Worst case per example", percent(robust), ""))
    threshold, quantile = number(found.get("threshold")), number(found.get("quantile"))
    on = found.get("calibrated_on")
    source = (
        f", the {100 * quantile:.3g} % quantile" + (f" of {on}" if on else "") if quantile == quantile else ""
    )
    limit = f"below {threshold:.4g}{source}" if threshold == threshold else "low"
    text = (
        f"An image whose score is {limit}, is rejected. A clean image counts only if it is accepted and right. Under "
        "attack an image that was right is handled if what the attack returns is rejected or still right. Rejecting "
        "is no robustness: an attacker can also make the network refuse images that it should take."
    )
    return Finding(("Attack", "Handled", "Rejected"), rows, text)


def _left_out(found: Mapping[str, object]) -> str:
    """Say which images have no score; nothing where all have one, and of older evaluations, which did not count."""
    named = [("clean images", found), *((name_of(attack), attack) for attack in entries(found, "attacks"))]
    counted = [(name, number(table.get("unscored"))) for name, table in named]
    told = [f"{name} {missing:.0f}" for name, missing in counted if missing > 0]
    return f" Left out, since their logits are not a number: {', '.join(told)}." if told else ""


def _whom_to_believe(labels: list[str]) -> str:
    if len(labels) == 1:
        return (
            f"“{labels[0]}” knows nothing of the score: against an attacker who does, expect less than this."
        )
    return (
        f"“{labels[0]}” knows nothing of the score. The row to believe is “{labels[1]}”, which fools and keeps the "
        "score high, as an attacker does who knows that he is looked for."
    )
