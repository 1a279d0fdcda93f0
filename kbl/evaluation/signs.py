"""What tells that an evaluation is too kind: each sign says what was seen, or returns None."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


def probabilities(e: Evidence) -> str | None:
    """Outputs that look like probabilities."""
    if (e.logits >= 0).all() and np.allclose(e.logits.sum(axis=1), 1.0, atol=1e-3):
        return (
            "The outputs look like probabilities: each row is ≥ 0 and sums to 1. A softmax before the loss hides "
            "gradients, and the network looks robust."
        )
    return None


def half_precision(e: Evidence) -> str | None:
    """Logits of few bits."""
    if e.probes and e.probes.dtype in ("float16", "bfloat16"):
        return (
            f"The logits are {e.probes.dtype}: small differences, and with them gradients, are rounded away."
        )
    return None


def few_classes(e: Evidence) -> str | None:
    """Fewer classes than AutoAttack's losses want."""
    classes = e.logits.shape[1]
    if classes < 4 and any(attack.name == "autoattack" for attack in e.attacks):
        return (
            f"There are {classes} classes. The DLR loss of AutoAttack needs three, its targeted form four; the logit "
            "margin stood in for it."
        )
    return None


def clean_mistakes(e: Evidence) -> str | None:
    """Clean accuracy little above chance."""
    chance = 1.0 / e.logits.shape[1]
    clean = float(e.right.mean())
    if clean < chance + 0.1 * (1.0 - chance):
        return (
            f"Only {100 * clean:.1f} % of the clean images are classified right, little more than by chance "
            f"({100 * chance:.1f} %). Every clean mistake counts as a mistake under attack."
        )
    return None


def random_network(e: Evidence) -> str | None:
    """Another answer to the same images."""
    if e.probes and e.probes.repeated > 1e-3 * e.probes.scale:
        return (
            f"The same images give other logits in a second pass (by up to {e.probes.repeated:.3g}): the network is "
            "random. One gradient of it says little, and an attack that fails may have failed by luck."
        )
    return None


def batch_dependence(e: Evidence) -> str | None:
    """An answer that depends on the other images."""
    if e.probes and e.probes.regrouped > 1e-3 * e.probes.scale and e.probes.repeated <= 1e-3 * e.probes.scale:
        return (
            f"An image's logits depend on the images beside it (by up to {e.probes.regrouped:.3g}): alone "
            "and in another order they differ. Accuracy then depends on the batch size, and attacks on a "
            "batch are no attacks on an image."
        )
    return None


def zero_gradients(e: Evidence) -> str | None:
    """No gradient to follow."""
    if e.probes and e.probes.zero_gradient > 0:
        return (
            "The gradient of cross-entropy is exactly zero at some step of PGD for "
            f"{100 * e.probes.zero_gradient:.1f} % of the images: there an attack by gradients stands still."
        )
    return None


def loss_not_rising(e: Evidence) -> str | None:
    """A gradient that does not lead uphill."""
    if e.probes and e.probes.rising < 0.9:
        return (
            f"Along PGD cross-entropy ends higher than it began for only {100 * e.probes.rising:.1f} % of "
            "the images: the gradients do not lead uphill."
        )
    return None


def survives_any_change(e: Evidence) -> str | None:
    """Images that stay right whatever is done to them."""
    if e.probes and e.probes.unbounded > 0.05:
        return (
            f"PGD that may change the images at will leaves {100 * e.probes.unbounded:.1f} % of them right, "
            "where a sound attack leaves none: it fails, rather than that the network holds."
        )
    return None


def black_box_stronger(e: Evidence) -> str | None:
    """Attacks without gradients that fool more than those with them."""
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


def cross_entropy_weaker(e: Evidence) -> str | None:
    """Attacks on cross-entropy that fool less than those on the margin or DLR."""
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


def rounding(e: Evidence) -> str | None:
    """Attacks that rounding to 8 bits undoes."""
    if e.rounded - e.robust > 0.01:
        return (
            f"Rounding the attacked images to 8 bits undoes {100 * (e.rounded - e.robust):.1f} points of "
            "the attacks: saved as ordinary pictures they would no longer fool the network."
        )
    return None


def nan_logits(e: Evidence) -> str | None:
    """Attacked images for which the network returns NaN."""
    if e.broken > 0:
        return (
            f"For {100 * e.broken:.1f} % of the images an attack found changes that make the network return NaN. "
            "There it names no class: they count as mistakes."
        )
    return None
