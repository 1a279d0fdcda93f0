"""How the pictures look: one set of colours, one set of lines."""

from collections.abc import Callable, Mapping
from functools import wraps
from io import BytesIO
from typing import Any, ParamSpec, TypeAlias

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

Parameters = ParamSpec("Parameters")
Floats: TypeAlias = NDArray[np.float64]

INK, FAINT = "#22262b", "#d9dde2"
# Blue and vermillion of Okabe and Ito: told apart with every common colour blindness, and in grey.
CLEAN, ADVERSARIAL = "#0072B2", "#D55E00"
ADAPTIVE = "#7A3E9D"  # purple, darker than theirs: an attack made against this very defence
PROBE = "#00795A"  # green, darker than theirs: an attack that only looks on while training
STYLE: Any = {
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.family": ["sans-serif"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#8a929b",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.xmargin": 0.02,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.9,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


def styled(draw: Callable[Parameters, Figure]) -> Callable[Parameters, Figure]:
    """Let `draw` work under `STYLE`, and leave matplotlib's settings as they were."""

    @wraps(draw)
    def drawn(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def line(axes: Axes, x: Floats, y: Floats, label: str, color: str, dash: str) -> None:
    """Draw the finite points; a short curve also shows where its points are."""
    finite = np.isfinite(x) & np.isfinite(y)
    marker = "o" if finite.sum() <= 12 else ""
    width = 1.2 if dash == "--" else None
    axes.plot(
        x[finite],
        y[finite],
        dash,
        color=color,
        marker=marker,
        markersize=4,
        linewidth=width,
        label=label,
    )


def legend(axes: Axes) -> None:
    """Explain the lines, where there are any."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def float_columns(columns: Mapping[str, ArrayLike]) -> dict[str, Floats]:
    """Return columns as arrays of floats."""
    return {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}


def png(figure: Figure, dots_per_inch: int) -> bytes:
    """Return a figure as a PNG file, the same bytes each time."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return buffer.getvalue()
