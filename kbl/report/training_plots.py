"""Pictures of what training left: radii of images, and features in a plane."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from kbl.report.style import ADVERSARIAL, INK, legend, styled

_MOST_CLASSES = 10


@styled
def radius_histogram(radii: ArrayLike, training_epsilon: float | None = None) -> Figure:
    """Draw how the radii of the training images are distributed (instance adaptive adversarial training).

    Args:
        radii: One ε for each training image, in pixels in [0, 1].
        training_epsilon: The attack's own ε; marked when given.
    """
    values = np.asarray(radii, dtype=np.float64)
    figure = Figure(figsize=(9, 3.4))
    axes = figure.subplots()
    axes.hist(values, bins=40, range=(0.0, max(float(values.max()), 1e-6)), color=ADVERSARIAL)
    axes.axvline(
        float(np.median(values)),
        color=INK,
        linestyle=":",
        linewidth=1.4,
        label=f"median {np.median(values):.3g}",
    )
    if training_epsilon is not None:
        label = f"ε of the warm-up, {training_epsilon:.3g}"
        axes.axvline(training_epsilon, color=INK, linestyle="--", linewidth=1.2, label=label)
    axes.set(xlabel="radius ε of an image (pixels in [0, 1])", ylabel="training images")
    legend(axes)
    return figure


@styled
def feature_plane(runs: Mapping[str, Mapping[str, NDArray[np.generic]]]) -> Figure:
    """Draw features of clean (dots) and adversarial images (crosses) and the means in a plane, a panel for each run.

    Args:
        runs: Maps the title of a panel to `clean`, `adversarial` (N, 2), `means` (K, 2), `y` (N,), `present` (K,).

    References:
        Adversarial Training with Bi-directional Likelihood Regularization for Visual Classification, Fig. 1.
    """
    figure = Figure(figsize=(4.6 * max(len(runs), 2), 4.6))
    panels = figure.subplots(1, len(runs), squeeze=False)[0]
    for axes, (title, run) in zip(panels, runs.items(), strict=True):
        shown = run["present"][:_MOST_CLASSES]
        for place, label in enumerate(shown):
            color = f"C{place}"
            for name, marker, size in (("clean", ".", 10), ("adversarial", "x", 9)):
                points = run[name][run["y"] == label]
                axes.scatter(*points.T, s=size, marker=marker, color=color, alpha=0.45, linewidths=0.7)
            axes.scatter(
                *run["means"][place], s=70, marker="*", color=color, edgecolors=INK, linewidths=0.8, zorder=3
            )
        for marker, text in ((".", "clean"), ("x", "adversarial"), ("*", "mean")):
            axes.scatter([], [], marker=marker, color=INK, label=text)
        axes.set(title=title, xlabel="first axis", ylabel="second axis")
        axes.set_aspect("equal", "datalim")
        legend(axes)
    return figure


@styled
def sweep_curves(panels: Mapping[str, Mapping[str, Mapping[float, float]]], axis: str) -> Figure:
    """Draw accuracy against a value of the recipe, a panel for each data set and a line for each attack (Fig. 4).

    Args:
        panels: Maps the title of a panel to lines: label to ``{value: accuracy in %}``.
        axis: What the horizontal axis shows.
    """
    figure = Figure(figsize=(9, 3.2 * max(len(panels), 1)))
    found = figure.subplots(max(len(panels), 1), 1, squeeze=False)[:, 0]
    for axes, (title, lines) in zip(found, panels.items(), strict=False):
        ticks = sorted({value for line in lines.values() for value in line})
        for place, (label, line) in enumerate(lines.items()):
            x = [ticks.index(value) for value in sorted(line)]
            axes.plot(
                x,
                [line[value] for value in sorted(line)],
                "osD^v"[place % 5] + "-",
                color=f"C{place}",
                label=label,
            )
        axes.set_xticks(range(len(ticks)), [f"{value:g}" for value in ticks])
        axes.set(title=title, xlabel=axis, ylabel="accuracy (%)", ylim=(0, 102))
        axes.legend(ncols=2)
    return figure
