"""Pictures of the likelihood: while training, and of clean beside attacked images."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

from kbl.report.style import ADAPTIVE, ADVERSARIAL, CLEAN, INK, Floats, float_columns, legend, line, styled


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
        columns = float_columns(run)
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
def likelihood_histogram(
    edges: ArrayLike, clean: ArrayLike, series: Mapping[str, ArrayLike], score: str = "log-likelihood"
) -> Figure:
    """Draw how the score of clean images is distributed, and that of attacked ones over it.

    Args:
        edges: The n + 1 edges of the bins.
        clean: How many clean images are in each of the n bins; only their shares are drawn.
        series: The same for each attack, by its label; more than three share the colours.
        score: What the horizontal axis shows.

    Raises:
        ValueError: If a series has not one value for each bin.
    """
    bins = np.asarray(edges, dtype=np.float64)
    heights = float_columns({"clean images": clean, **series})
    for label, values in heights.items():
        if values.shape != (len(bins) - 1,):
            raise ValueError(
                f"{label!r} needs one value for each of the {len(bins) - 1} bins. Received: shape {values.shape}"
            )
    figure = Figure(figsize=(9, 3.4))
    axes = figure.subplots()
    looks = [(ADVERSARIAL, "--"), (ADAPTIVE, "-"), (INK, ":")]
    for place, (label, values) in enumerate(heights.items()):
        shares = 100 * values / values.sum() if values.sum() > 0 else values
        if place == 0:
            axes.stairs(shares, bins, color=CLEAN, fill=True, alpha=0.25, linewidth=0)
            axes.stairs(shares, bins, color=CLEAN, linewidth=1.8, label=label)
        else:
            color, dash = looks[(place - 1) % len(looks)]
            axes.stairs(shares, bins, color=color, linestyle=dash, linewidth=1.8, label=label)
    axes.set(xlabel=score, ylabel="share of its images (%)")
    axes.set_ylim(bottom=0)
    legend(axes)
    return figure


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
