"""Which pictures a run has, with the words beside them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kbl.report.evaluation import entries, example_count, section
from kbl.report.folder import Columns, RunFolder
from kbl.report.formatting import count, number, percent, radius
from kbl.report.gallery import channels_drawn, gallery
from kbl.report.likelihood_plots import likelihood_curves, likelihood_histogram
from kbl.report.plots import epsilon_curve, training_curves
from kbl.report.training_plots import feature_plane, radius_histogram

_DRAWN = ("loss", "clean_accuracy", "adversarial_accuracy", "certified_accuracy", "probe_accuracy")


@dataclass(frozen=True)
class Picture:
    """A figure, the heading and caption around it, and the words for who cannot see it."""

    figure: Figure
    heading: str
    caption: str
    alt: str


def pictures(run: RunFolder) -> dict[str, Picture | None]:
    """Return every picture a report may have, by its file name; None where the run has no data."""
    return {
        "detection": _detection(run),
        "training": _training(run.history),
        "likelihood": _likelihood(run.batches) or _likelihood(run.history),
        "gallery": _gallery(run),
        "epsilon": _epsilon(run),
        "radii": _radii(run),
        "features": _features(run),
    }


def _detection(run: RunFolder) -> Picture | None:
    found = section(run.evaluation or {}, "detection")
    histogram = section(found, "histogram")
    edges = _numbers(histogram.get("edges"))
    series = {str(label): _numbers(values) for label, values in section(histogram, "series").items()}
    clean = _numbers(histogram.get("clean"))
    if len(edges) < 2 or any(len(values) != len(edges) - 1 for values in (clean, *series.values())):
        return None
    score = str(found.get("score") or "score")
    told = [f"{label} {100 * _overlap(clean, values):.0f} %" for label, values in series.items()]
    return Picture(
        likelihood_histogram(edges, clean, series, score),
        "Detection by likelihood",
        "Where a curve of attacked images lies over that of the clean ones, the score tells nothing of the attack. "
        "Each curve is the share of its own images; the outermost bins hold what lies beyond.",
        f"Histograms of the {score} of clean and attacked images. Shared area with the clean ones: "
        f"{', '.join(told) or 'no attack'}.",
    )


def _numbers(values: object) -> np.ndarray[Any, np.dtype[np.float64]]:
    listed = values if isinstance(values, list) else []
    return np.array([number(value) for value in listed], dtype=np.float64)


def _overlap(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> float:
    """Return the area that two histograms share, between 0 and 1."""
    if not (left.sum() > 0 and right.sum() > 0):
        return 0.0
    return float(np.minimum(left / left.sum(), right / right.sum()).sum())


def _training(history: Columns) -> Picture | None:
    drawn = [name for name in history if name.removeprefix("val_") in _DRAWN]
    if "epoch" not in history or not drawn:
        return None
    ends = [
        f"{name.replace('val_', 'validation ').replace('_', ' ')} {_end(history, name)}" for name in drawn
    ]
    probed = ""
    if "probe_accuracy" in history:
        probed = (
            " Dash-dotted: validation under the probe; where it falls and the accuracy under the training attack does "
            "not, the network has overfitted to that attack (catastrophic overfitting)."
        )
    return Picture(
        training_curves(history),
        "Training",
        "Dashed: training batches while the weights still move. Solid: validation after each "
        "epoch. A robust validation accuracy that falls while the training one climbs is robust "
        "overfitting." + probed,
        f"Line charts of accuracy and loss over the epochs. At the end: {', '.join(ends)}.",
    )


def _end(columns: Columns, name: str) -> str:
    values = columns[name][np.isfinite(columns[name])]
    if not len(values):
        return "not a number"
    return percent(values[-1]) if name.endswith("accuracy") else f"{values[-1]:.3g}"


def _likelihood(columns: Columns) -> Picture | None:
    kinds = [name for name in ("clean_lkd", "adversarial_lkd") if name in columns]
    if not kinds or not ({"step", "epoch"} & set(columns)):
        return None
    ends = [f"{name.removesuffix('_lkd')} {_end(columns, name)}" for name in kinds]
    return Picture(
        likelihood_curves({"": columns}),
        "Likelihood of the features",
        "The likelihood regularization is the mean squared distance between the features and "
        "the mean of their class, so the higher a curve, the less likely its features, and a gap "
        "between the curves tells that clean data and adversarial examples are distributed apart.",
        f"Line chart of the likelihood regularization while training. At the end: {', '.join(ends)}.",
    )


def _gallery(run: RunFolder) -> Picture | None:
    images = run.gallery
    if not images:
        return None
    total = min(8, len(images["x"]))
    right = int(np.sum(images["prediction"][:total] == images["y"][:total]))
    fooled = int(np.sum(images["prediction_adv"][:total] != images["y"][:total]))
    which = channels_drawn(images["x"].shape[-1])
    return Picture(
        gallery(images, columns=8),
        "Examples",
        "Beneath each image: the predicted class, whether it is right, and the confidence. In the "
        "difference, mid-grey is an unchanged pixel." + (f" Drawn: {which}." if which else ""),
        f"{total} test images in three rows: clean, adversarial, and their difference. {right} of "
        f"the clean images are classified right; {fooled} of the adversarial ones wrong.",
    )


def _radii(run: RunFolder) -> Picture | None:
    if not len(run.radii):
        return None
    return Picture(
        radius_histogram(run.radii, run.training_epsilon),
        "Radii of the training images",
        "Each training image is attacked within a radius of its own, which grows while the network withstands it and "
        "shrinks where it does not.",
        f"Histogram of the radii of {len(run.radii)} training images: median {np.median(run.radii):.3g}, from "
        f"{run.radii.min():.3g} to {run.radii.max():.3g}.",
    )


def _features(run: RunFolder) -> Picture | None:
    if not run.features:
        return None
    count_shown = len(run.features["y"])
    return Picture(
        feature_plane({"": run.features}),
        "Features in a plane",
        "Deepest features of clean (dots) and adversarial test images (crosses), a colour for each class, with the "
        "means (stars), on the plane of the first two principal axes of the means. What is apart here is apart; what "
        "lies together may be apart in other directions.",
        f"Scatter plot of the features of {count_shown} clean test images, of the same attacked, and of the means.",
    )


def _epsilon(run: RunFolder) -> Picture | None:
    evaluation = run.evaluation or {}
    curve = entries(evaluation, "epsilon_curve")
    attack = next((str(point["attack"]) for point in curve if point.get("attack")), "")
    points = [_point(point) for point in curve]
    points = [point for point in points if all(np.isfinite(list(point.values())))]
    if not points:
        return None
    told = [f"{percent(point['accuracy'])} at {radius(point['epsilon'])}" for point in points]
    examples = example_count(evaluation)
    on = f" on {count(examples)} examples" if examples else ""
    under = f" under {attack} alone" if attack else ""  # older evaluations do not say
    return Picture(
        epsilon_curve(points, run.training_epsilon, examples, attack),
        "Accuracy against ε",
        f"Robust accuracy{on}{under} as the attack may change each image more. A sound attack reaches "
        "chance or below when ε is large; a curve that stays high there hints that the attack "
        "fails, rather than that the network holds.",
        f"Line chart of robust accuracy{under} against the radius ε: {', '.join(told)}.",
    )


def _point(point: Mapping[str, Any]) -> dict[str, float]:
    return {key: number(point.get(key)) for key in ("epsilon", "accuracy")}
