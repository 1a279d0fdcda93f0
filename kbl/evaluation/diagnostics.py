"""Signs that an evaluation is too kind to a network: each with a name, what it means and what to do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from kbl.evaluation.comparable import (
    ball,
    fooled_after,
    is_by_gradients,
    is_on_cross_entropy,
    is_on_margin,
    is_square,
    loss_of,
)
from kbl.evaluation.probes import Probes
from kbl.evaluation.result import AttackResult


@dataclass(frozen=True)
class Evidence:
    """What the diagnostics look at.

    Args:
        logits: (N, K) of the clean images.
        right: (N,) bool, classified right.
        attacks: their results.
        robust: worst case of all attacks.
        rounded: the same of the attacked images rounded to 8 bits.
        transfer: worst case of the attacks crafted on a substitute, if there is one.
        probes: small experiments, if they were run.
        broken: share of the images for which an attack found a logit that is NaN.
    """

    logits: np.ndarray[Any, Any]
    right: np.ndarray[Any, Any]
    attacks: Sequence[AttackResult]
    robust: float
    rounded: float
    transfer: float | None
    probes: Probes | None
    broken: float = 0.0


class Diagnostic(NamedTuple):
    """One sign: `find` says what was seen, or returns None."""

    name: str
    remedy: str
    find: Callable[[Evidence], str | None]
    needs_probes: bool = False


def diagnose(evidence: Evidence) -> tuple[list[dict[str, str]], list[str]]:
    """Return the warnings, as ``{"name", "message", "remedy"}``, and the names of all diagnostics that were run."""
    run = [d for d in DIAGNOSTICS if evidence.probes is not None or not d.needs_probes]
    found = [(diagnostic, diagnostic.find(evidence)) for diagnostic in run]
    warnings = [{"name": d.name, "message": message, "remedy": d.remedy} for d, message in found if message]
    return warnings, [diagnostic.name for diagnostic in run]


def _probabilities(e: Evidence) -> str | None:
    if (e.logits >= 0).all() and np.allclose(e.logits.sum(axis=1), 1.0, atol=1e-3):
        return (
            "The outputs look like probabilities: each row is ≥ 0 and sums to 1. A softmax before the loss hides "
            "gradients, and the network looks robust."
        )
    return None


def _half_precision(e: Evidence) -> str | None:
    if e.probes and e.probes.dtype in ("float16", "bfloat16"):
        return (
            f"The logits are {e.probes.dtype}: small differences, and with them gradients, are rounded away."
        )
    return None


def _few_classes(e: Evidence) -> str | None:
    classes = e.logits.shape[1]
    if classes < 4 and any(attack.name == "autoattack" for attack in e.attacks):
        return (
            f"There are {classes} classes. The DLR loss of AutoAttack needs three, its targeted form four; the logit "
            "margin stood in for it."
        )
    return None


def _clean_mistakes(e: Evidence) -> str | None:
    chance = 1.0 / e.logits.shape[1]
    clean = float(e.right.mean())
    if clean < chance + 0.1 * (1.0 - chance):
        return (
            f"Only {100 * clean:.1f} % of the clean images are classified right, little more than by chance "
            f"({100 * chance:.1f} %). Every clean mistake counts as a mistake under attack."
        )
    return None


def _random(e: Evidence) -> str | None:
    if e.probes and e.probes.repeated > 1e-3 * e.probes.scale:
        return (
            f"The same images give other logits in a second pass (by up to {e.probes.repeated:.3g}): the network is "
            "random. One gradient of it says little, and an attack that fails may have failed by luck."
        )
    return None


def _batch_dependence(e: Evidence) -> str | None:
    if e.probes and e.probes.regrouped > 1e-3 * e.probes.scale and e.probes.repeated <= 1e-3 * e.probes.scale:
        return (
            f"An image's logits depend on the images beside it (by up to {e.probes.regrouped:.3g}): alone "
            "and in another order they differ. Accuracy then depends on the batch size, and attacks on a "
            "batch are no attacks on an image."
        )
    return None


def _zero_gradients(e: Evidence) -> str | None:
    if e.probes and e.probes.zero_gradient > 0:
        return (
            "The gradient of cross-entropy is exactly zero at some step of PGD for "
            f"{100 * e.probes.zero_gradient:.1f} % of the images: there an attack by gradients stands still."
        )
    return None


def _loss_not_rising(e: Evidence) -> str | None:
    if e.probes and e.probes.rising < 0.9:
        return (
            f"Along PGD cross-entropy ends higher than it began for only {100 * e.probes.rising:.1f} % of "
            "the images: the gradients do not lead uphill."
        )
    return None


def _not_zero(e: Evidence) -> str | None:
    if e.probes and e.probes.unbounded > 0.05:
        return (
            f"PGD that may change the images at will leaves {100 * e.probes.unbounded:.1f} % of them right, "
            "where a sound attack leaves none: it fails, rather than that the network holds."
        )
    return None


def _black_box_stronger(e: Evidence) -> str | None:
    bounded = [attack for attack in e.attacks if attack.worst is not None]
    by_gradients = [attack for attack in bounded if is_by_gradients(attack)]
    gaps = []
    if e.transfer is not None and by_gradients:  # both are worst cases, taken image by image
        gaps.append(("attacks crafted on the substitute", e.robust - e.transfer))
    for square in filter(is_square, bounded):
        others = [attack.accuracy for attack in by_gradients if ball(attack) == ball(square)]
        gaps += [("Square", min(others) - square.accuracy)] if others else []
    gaps += [("Square", fooled_after(attack.parts, is_by_gradients, is_square)) for attack in e.attacks]
    name, gap = max(gaps, key=lambda pair: pair[1], default=("", 0.0))
    # One image of a few hundred is more than 0.2 points, and says nothing.
    if gap > max(0.002, 1.5 / len(e.right)):
        return (
            f"Without any gradient, {name} fool{'s' if name == 'Square' else ''} {100 * gap:.1f} points "
            "more than the attacks by gradients: these are misled."
        )
    return None


def _cross_entropy_weaker(e: Evidence) -> str | None:
    by_ball: dict[Any, dict[str, float]] = {}
    for attack in [each for whole in e.attacks for each in (whole, *whole.parts[:1])]:  # tried on every image
        loss = loss_of(attack)
        if loss is not None:
            losses = by_ball.setdefault(ball(attack), {})
            losses[loss] = min(losses.get(loss, 1.0), attack.accuracy)
    gaps = [
        losses["cross_entropy"] - losses[other]
        for losses in by_ball.values()
        for other in ("margin", "dlr")
        if {"cross_entropy", other} <= losses.keys()
    ]
    gaps += [fooled_after(attack.parts, is_on_cross_entropy, is_on_margin) for attack in e.attacks]
    if max(gaps, default=0.0) > 0.02:
        return (
            f"Under attacks on cross-entropy accuracy is {100 * max(gaps):.1f} points higher than on the "
            "margin or DLR: the scale of the logits hides gradients from cross-entropy."
        )
    return None


def _rounding(e: Evidence) -> str | None:
    if e.rounded - e.robust > 0.01:
        return (
            f"Rounding the attacked images to 8 bits undoes {100 * (e.rounded - e.robust):.1f} points of "
            "the attacks: saved as ordinary pictures they would no longer fool the network."
        )
    return None


def _nan_logits(e: Evidence) -> str | None:
    if e.broken > 0:
        return (
            f"For {100 * e.broken:.1f} % of the images an attack found changes that make the network return NaN. "
            "There it names no class: they count as mistakes."
        )
    return None


DIAGNOSTICS = (
    Diagnostic("probabilities", "Evaluate the network without its softmax.", _probabilities),
    Diagnostic("half_precision", "Cast the logits to float32 in the last layer.", _half_precision, True),
    Diagnostic(
        "nan_logits",
        "Find what returns NaN (a logarithm, a division, an overflow): its gradient misleads attacks, too.",
        _nan_logits,
    ),
    Diagnostic("few_classes", "Nothing: judge by the worst case, which holds.", _few_classes),
    Diagnostic(
        "clean_mistakes",
        "Check labels, pixel range and preprocessing before speaking of robustness.",
        _clean_mistakes,
    ),
    Diagnostic(
        "random_network",
        'Switch the randomness off, or evaluate with AutoAttack\'s version "rand", which averages gradients.',
        _random,
        True,
    ),
    Diagnostic(
        "batch_dependence",
        "Use batch statistics in training only: normalisation must run in inference mode.",
        _batch_dependence,
        True,
    ),
    Diagnostic(
        "zero_gradients",
        "Judge by the margin, DLR and Square; look for saturation, quantisation or a step that has no gradient.",
        _zero_gradients,
        True,
    ),
    Diagnostic(
        "loss_not_rising",
        "Look for a layer whose gradient is not that of its output, and attack through a smooth stand-in (BPDA).",
        _loss_not_rising,
        True,
    ),
    Diagnostic(
        "survives_any_change",
        "Do not quote these accuracies; find why the gradients mislead, and use Square and transfer attacks.",
        _not_zero,
        True,
    ),
    Diagnostic(
        "black_box_stronger",
        "Believe the black-box attack; look for masked gradients, and write an attack for this defence.",
        _black_box_stronger,
    ),
    Diagnostic(
        "cross_entropy_weaker",
        "Judge by the worst case, and attack with the margin, DLR and more restarts.",
        _cross_entropy_weaker,
    ),
    Diagnostic(
        "rounding",
        "Where images are stored in 8 bits, quote the accuracy on rounded images as well.",
        _rounding,
    ),
)
"""Every diagnostic, in the order of the report. `docs/evaluation.md` says more of each."""
