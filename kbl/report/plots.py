"""Pictures of accuracy and loss. Each function takes plain data and returns a matplotlib `Figure`."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator, PercentFormatter
from numpy.typing import ArrayLike

from kbl.report.formatting import radius
from kbl.report.intervals import wilson_interval
from kbl.report.style import ADVERSARIAL, CLEAN, INK, PROBE, float_columns, legend, line, styled


@styled
def training_curves(history: Mapping[str, ArrayLike]) -> Figure:
    """Draw accuracy and loss against the epoch: training dashed, validation solid, under the probe dash-dotted.

    Args:
        history: Columns named as in `history.csv`; absent ones are not drawn.

    Raises:
        ValueError: If there is no `epoch`.
    """
    columns = float_columns(history)
    if "epoch" not in columns:
        raise ValueError(f"`history` needs the column `epoch`. Received: {sorted(columns)}")
    is_probed = "probe_accuracy" in columns
    figure = Figure(figsize=(9, 4.2 if is_probed else 3.4))
    accuracy, loss = figure.subplots(1, 2)
    for prefix, name, dash in (("", "training", "--"), ("val_", "validation", "-")):
        for kind, color in (("clean", CLEAN), ("adversarial", ADVERSARIAL), ("certified", INK)):
            values = columns.get(f"{prefix}{kind}_accuracy")
            if values is not None:
                line(accuracy, columns["epoch"], 100 * values, f"{kind}, {name}", color, dash)
        if f"{prefix}loss" in columns:
            line(loss, columns["epoch"], columns[f"{prefix}loss"], name, INK, dash)
    if is_probed:
        line(accuracy, columns["epoch"], 100 * columns["probe_accuracy"], "probe, validation", PROBE, "-.")
    accuracy.set(title="Accuracy", xlabel="epoch", ylabel="accuracy (%)", ylim=(0, 102))
    loss.set(title="Loss", xlabel="epoch", ylabel="loss (mean over examples)")
    for axes in (accuracy, loss):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        legend(axes)
    if is_probed:  # where it falls, a legend inside would hide it
        accuracy.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return figure


@styled
def epsilon_curve(
    points: Sequence[Mapping[str, float]],
    training_epsilon: float | None = None,
    examples: int = 0,
    attack: str = "",
) -> Figure:
    """Draw robust accuracy against the radius of the attack.

    Args:
        points: Each with `epsilon` (pixels in [0, 1]) and `accuracy` (a fraction), in any order.
        training_epsilon: The radius trained with; marked when given.
        examples: How many examples each point was judged on; 0 leaves the 95 % band out.
        attack: What the attack is called, where that is known.
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
    label = f"accuracy under {attack}".replace("$", r"\$") if attack else "robust accuracy"
    line(axes, epsilons, 100 * accuracies, label, ADVERSARIAL, "-")
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
