"""The pictures of a run. Each function takes plain data and returns a matplotlib `Figure`."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator, PercentFormatter
from numpy.typing import ArrayLike

from kbl.report.formatting import radius
from kbl.report.style import ADVERSARIAL, CLEAN, INK, Floats, legend, line, styled
from kbl.report.tables import wilson_interval


@styled
def training_curves(history: Mapping[str, ArrayLike]) -> Figure:
    """Draw accuracy and loss against the epoch: training dashed, validation solid.

    Args:
        history: Columns named as in `history.csv`; absent ones are not drawn.

    Raises:
        ValueError: If there is no `epoch`.
    """
    columns = _floats(history)
    if "epoch" not in columns:
        raise ValueError(f"`history` needs the column `epoch`. Received: {sorted(columns)}")
    figure = Figure(figsize=(9, 3.4))
    accuracy, loss = figure.subplots(1, 2)
    for prefix, name, dash in (("", "training", "--"), ("val_", "validation", "-")):
        for kind, color in (("clean", CLEAN), ("adversarial", ADVERSARIAL)):
            values = columns.get(f"{prefix}{kind}_accuracy")
            if values is not None:
                line(accuracy, columns["epoch"], 100 * values, f"{kind}, {name}", color, dash)
        if f"{prefix}loss" in columns:
            line(loss, columns["epoch"], columns[f"{prefix}loss"], name, INK, dash)
    accuracy.set(title="Accuracy", xlabel="epoch", ylabel="accuracy (%)", ylim=(0, 102))
    loss.set(title="Loss", xlabel="epoch", ylabel="loss (mean over examples)")
    for axes in (accuracy, loss):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        legend(axes)
    return figure


@styled
def likelihood_curves(runs: Mapping[str, Mapping[str, ArrayLike]]) -> Figure:
    """Draw L_lkd of clean data and of adversarial examples while training: Fig. 3, a panel for each run.

    The likelihood regularization of Eq. 6, ‖h(x) - μ_y‖² averaged over a batch; larger means less
    likely. A curve of 200 values or more is drawn faintly, and its moving mean over 1 % of it
    strongly.

    Args:
        runs: Maps the title of a panel to columns `clean_lkd`, `adversarial_lkd` (either may be
            absent), and `step` or else `epoch`.

    Raises:
        ValueError: If there is no run, or one has neither `step` nor `epoch`.

    References:
        Adversarial Training with Bi-directional Likelihood Regularization for Visual
        Classification, Section 4.3.
    """
    if not runs:
        raise ValueError("`runs` needs at least one run. Received: none")
    figure = Figure(figsize=(max(9, 4.5 * len(runs)), 3.4))
    panels = figure.subplots(1, len(runs), sharex=True, sharey=True, squeeze=False)[0]
    drawn: list[Floats] = []
    for axes, (title, run) in zip(panels, runs.items(), strict=True):
        columns = _floats(run)
        key = "step" if "step" in columns else "epoch"
        if key not in columns:
            raise ValueError(f"Run {title!r} needs `step` or `epoch`. Received: {sorted(columns)}")
        for name, label, color in (
            ("adversarial_lkd", "adversarial examples", ADVERSARIAL),
            ("clean_lkd", "clean data", CLEAN),
        ):
            if name in columns:
                drawn.append(_smoothed_line(axes, columns[key], columns[name], label, color))
        axes.set(title=title, xlabel="iteration" if key == "step" else "epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        legend(axes)
    values = np.concatenate([*drawn, np.empty(0)])
    is_wide = values.size > 0 and values.min() > 0 and values.max() > 100 * values.min()
    if is_wide:
        panels[0].set_yscale("log")
    else:
        panels[0].set_ylim(bottom=0)
    scale = " (log scale)" if is_wide else ""
    panels[0].set_ylabel(r"$\mathcal{L}_{lkd}$" + scale, fontsize=13)
    return figure


@styled
def epsilon_curve(
    points: Sequence[Mapping[str, float]],
    training_epsilon: float | None = None,
    examples: int = 0,
) -> Figure:
    """Draw robust accuracy against the radius of the attack.

    Args:
        points: Each with `epsilon` (pixels in [0, 1]) and `accuracy` (a fraction), in any order.
        training_epsilon: The radius trained with; marked when given.
        examples: How many examples each point was judged on; 0 leaves the 95 % band out.
    """
    ordered = sorted(points, key=lambda point: point["epsilon"])
    epsilons = np.array([point["epsilon"] for point in ordered], dtype=np.float64)
    accuracies = np.array([point["accuracy"] for point in ordered], dtype=np.float64)
    figure = Figure(figsize=(9, 3.4))
    axes = figure.subplots()
    if examples > 0:
        band = 100 * np.array([wilson_interval(a, examples) for a in accuracies]).reshape(-1, 2)
        axes.fill_between(
            epsilons,
            band[:, 0],
            band[:, 1],
            color=ADVERSARIAL,
            alpha=0.16,
            linewidth=0,
            label="95 % interval",
        )
    line(axes, epsilons, 100 * accuracies, "robust accuracy", ADVERSARIAL, "-")
    if training_epsilon is not None:
        label = f"trained with ε = {radius(training_epsilon)}"
        axes.axvline(training_epsilon, color=INK, linestyle="--", linewidth=1.2, label=label)
    levels = 255 * epsilons
    if len(levels) and levels.max() >= 1 and np.allclose(levels, np.round(levels), atol=1e-3):
        step = math.ceil(levels.max() / 8)
        if levels.max() <= 32:  # a radius people state in 255ths
            axes.xaxis.set_major_locator(MultipleLocator(step / 255))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: radius(x)))
    axes.set(xlabel="radius ε of the attack (pixels in [0, 1])", ylabel="accuracy (%)", ylim=(0, 102))
    axes.yaxis.set_major_formatter(PercentFormatter(symbol="", decimals=0))
    legend(axes)
    return figure


def _floats(columns: Mapping[str, ArrayLike]) -> dict[str, Floats]:
    return {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}


def _smoothed_line(axes: Axes, x: Floats, y: Floats, label: str, color: str) -> Floats:
    """Draw a curve, a long one faintly and smoothed on top; return the values of the strong line."""
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    window = len(y) // 100
    if window < 2:
        line(axes, x, y, label, color, "-")
        return y
    smooth = moving_mean(y, window)
    kept = slice(None, None, math.ceil(len(y) / 2000))
    axes.plot(x[kept], y[kept], color=color, linewidth=0.6, alpha=0.3)
    axes.plot(x[kept], smooth[kept], color=color, label=f"{label} (end: {smooth[-1]:.3g})")
    return smooth[kept]


def moving_mean(values: Floats, window: int) -> Floats:
    """Return the mean over `window` values around each; at the ends, over those that are there."""
    ones = np.ones(window)
    total: Floats = np.convolve(values, ones, "same")
    return total / np.convolve(np.ones_like(values), ones, "same")
