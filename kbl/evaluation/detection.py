"""Telling adversarial images by their likelihood, and rejecting the unlikely, counted honestly.

A Gaussian head gives log p(h | k) but for a constant; the score of an image is its maximum over the classes, the
greatest logit. It is measured against an ordinary attack and against one that knows of the score: APGD on
`nearest_mean`, which of all images that fool keeps the one of greatest likelihood.
"""

from typing import Any

import numpy as np

from kbl.attacks.apgd import APGD
from kbl.typing import Norm

Array = np.ndarray[Any, Any]

ORDINARY = "APGD-CE, all steps"
EVASIVE = "APGD, likely and wrong"


def detection_attacks(epsilon: float, norm: Norm, steps: int = 100) -> list[tuple[str, APGD]]:
    """Return the ordinary attack and the one that keeps the likelihood high, with their labels.

    Args:
        epsilon: radius ε ≥ 0, in pixel units.
        norm: "linf" or "l2".
        steps: steps of each.
    """
    return [
        (ORDINARY, APGD(epsilon, steps, norm=norm, early_stop=False, name="detection")),
        (EVASIVE, APGD(epsilon, steps, norm=norm, early_stop=False, loss="nearest_mean", name="detection")),
    ]


def auroc(clean: Array, adversarial: Array) -> float:
    """Probability that a clean image scores higher than an adversarial one; ties count half.

    Args:
        clean: (n,) scores.
        adversarial: (m,) scores.

    Returns:
        1 where the score tells them perfectly, ½ where not at all; NaN where either is empty.
    """
    if not len(clean) or not len(adversarial):
        return float("nan")
    ordered = np.sort(clean)
    above = len(clean) - np.searchsorted(ordered, adversarial, side="right")
    equal = len(clean) - np.searchsorted(ordered, adversarial, side="left") - above
    return float((above + 0.5 * equal).mean() / len(clean))


def fpr_at_tpr(clean: Array, adversarial: Array, tpr: float = 0.95) -> float:
    """Share of adversarial images taken for clean at the threshold that accepts `tpr` of the clean ones.

    Args:
        clean: (n,) scores.
        adversarial: (m,) scores.
        tpr: share of clean images to be accepted.
    """
    if not len(clean) or not len(adversarial):
        return float("nan")
    accepted = int(np.ceil(tpr * len(clean)))
    threshold = np.sort(clean)[len(clean) - accepted]
    return float((adversarial >= threshold).mean())


def scored(scores: Array) -> Array:
    """Return the scores that are numbers."""
    return scores[~np.isnan(scores)]


def detection(clean: Array, attacked: dict[str, Array], bins: int = 20) -> dict[str, Any]:
    """Return what ``evaluation.json`` holds under "detection".

    An image whose logits are NaN has no score: it is left out, and counted under "unscored".

    Args:
        clean: (n,) scores of clean images.
        attacked: scores of the images that fool, by the attack's label.
        bins: of the histograms.
    """
    total, totals = len(clean), {label: len(scores) for label, scores in attacked.items()}
    clean, attacked = scored(clean), {label: scored(scores) for label, scores in attacked.items()}
    everything = np.concatenate([clean, *attacked.values()])
    everything = everything[np.isfinite(everything)]
    # A few far outliers shall not press all others into one bin.
    low, high = np.quantile(everything, [0.005, 1.0]) if len(everything) else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    counted = {label: np.histogram(np.clip(s, low, high), edges)[0].tolist() for label, s in attacked.items()}
    return {
        "score": "max log-likelihood",
        "unscored": total - len(clean),
        "attacks": [
            {
                "label": label,
                "auroc": _finite(auroc(clean, scores)),
                "fpr95": _finite(fpr_at_tpr(clean, scores)),
                "examples": len(scores),
                "unscored": totals[label] - len(scores),
            }
            for label, scores in attacked.items()
        ],
        "histogram": {
            "edges": edges.tolist(),
            "clean": np.histogram(np.clip(clean, low, high), edges)[0].tolist(),
            "series": counted,
        },
    }


def rejection(
    quantile: float,
    calibration: Array,
    calibrated_on: str,
    clean: Array,
    right: Array,
    attacked: list[tuple[str, Array, Array]],
) -> dict[str, Any]:
    """Return what ``evaluation.json`` holds under "rejection".

    An image is rejected when it scores below a quantile of known clean images. A rejected clean image counts against
    clean accuracy. Under attack an image is handled when what the attack returns is rejected or right; images that are
    wrong unattacked are not. An image without a score, its logits being NaN, is not rejected.

    Args:
        quantile: share of the calibration images that is rejected, in [0, 1).
        calibration: (m,) scores of clean images.
        calibrated_on: what they are, in words.
        clean: (N,) scores of the clean images.
        right: (N,) bool, classified right unattacked.
        attacked: of each attack its label, (N,) bool right under it and (N,) scores of the attacked images.
    """
    known = scored(calibration)
    threshold = float(np.quantile(known, quantile)) if len(known) else float("nan")
    handled_by_all = right.copy()
    rows = []
    for label, stands, scores in attacked:
        rejected = scores < threshold
        handled = right & (stands | rejected)
        handled_by_all &= handled
        rows.append(
            {"label": label, "accuracy": float(handled.mean()), "rejected": float((right & rejected).mean())}
        )
    return {
        "quantile": quantile,
        "threshold": _finite(threshold),
        "calibrated_on": calibrated_on,
        "clean_rejected": float((clean < threshold).mean()),
        "clean": float((right & ~(clean < threshold)).mean()),
        "robust": float(handled_by_all.mean()),
        "attacks": rows,
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
