"""Pictures of examples: clean, adversarial, and what lies between them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from kbl.report.formatting import radius
from kbl.report.style import styled

RIGHT, WRONG = "#00664f", "#b00020"
_FACTORS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


@styled
def gallery(images: Mapping[str, NDArray[Any]], columns: int = 8) -> Figure:
    """Draw up to `columns` examples in three rows: clean, adversarial, and difference times k.

    Beneath each image stand the prediction, whether it is right, and its confidence; beneath each
    difference its largest pixel change. There mid-grey is no change; k is stated, and chosen so
    that nothing is cut off. Of two channels the first is drawn, in grey; of more than three the first three, in colour;
    beside the rows stands which.

    Args:
        images: `x` and `x_adv` (n, H, W, C) in [0, 1]; `y`, `prediction`,
            `prediction_adv` (n,) class indices; `confidence`, `confidence_adv` (n,) fractions;
            `class_names` (K,).
        columns: The largest number of examples to draw.

    Raises:
        ValueError: If there is no example, or `x` and `x_adv` differ in shape.
    """
    x, x_adv = images["x"], images["x_adv"]
    if len(x) == 0 or x.ndim != 4 or x.shape != x_adv.shape:
        raise ValueError(
            "`x` and `x_adv` must both have the shape (n, H, W, C), n > 0. "
            f"Received: x.shape={x.shape}, x_adv.shape={x_adv.shape}"
        )
    shown = min(columns, len(x))
    difference = x_adv[:shown].astype(np.float64) - x[:shown]
    factor = difference_factor(difference)
    spacing = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04)
    figure = Figure(figsize=(0.9 + 1.12 * shown, 4.9), layout=spacing)
    grid = figure.subplots(3, shown, squeeze=False)
    for column in range(shown):
        top, middle, bottom = grid[:, column]
        _image(top, x[column])
        _image(middle, x_adv[column])
        _image(bottom, 0.5 + factor * difference[column])
        top.set_title(f"label {_class_name(images, images['y'][column])}", loc="center", fontsize=9)
        _verdict(top, images, column, "")
        _verdict(middle, images, column, "_adv")
        largest = float(np.abs(difference[column]).max())
        bottom.set_xlabel(f"at most {radius(largest)}", fontsize=8.5)
    labels = ("clean", "adversarial", f"difference ×{factor}")
    which = channels_drawn(x.shape[-1])
    for axes, label in zip(grid[:, 0], labels, strict=True):
        axes.set_ylabel(f"{label}\n{which}".strip(), fontweight="bold", fontsize=9.5)
    return figure


def difference_factor(difference: NDArray[np.float64]) -> int:
    """Return the largest of 1, 2, 5, 10, … that keeps 0.5 + factor·difference within [0, 1], or 1."""
    largest = float(np.abs(difference).max())
    fitting = [factor for factor in _FACTORS if factor * largest <= 0.5 + 1e-6]
    return fitting[-1] if fitting and largest > 0 else 1


def channels_drawn(channels: int) -> str:
    """Return which of so many channels are drawn, or nothing where all are."""
    if channels in (1, 3):
        return ""
    return f"channel 1 of {channels}" if channels < 3 else f"channels 1–3 of {channels}"


def _image(axes: Axes, image: NDArray[Any]) -> None:
    pixels = np.clip(image, 0, 1)
    axes.imshow(
        pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., 0],
        cmap="gray",
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color="#b8bec5", linewidth=0.6)


def _verdict(axes: Axes, images: Mapping[str, NDArray[Any]], column: int, suffix: str) -> None:
    """Write the prediction under an image, in words and, besides, in colour and weight."""
    prediction = images[f"prediction{suffix}"][column]
    is_right = bool(prediction == images["y"][column])
    confidence = float(images[f"confidence{suffix}"][column])
    share = f" ({100 * confidence:.0f} %)" if np.isfinite(confidence) else ""
    axes.set_xlabel(
        f"{_class_name(images, prediction)}\n{'right' if is_right else 'wrong'}{share}",
        color=RIGHT if is_right else WRONG,
        fontweight="normal" if is_right else "bold",
        fontsize=8.5,
    )


def _class_name(images: Mapping[str, NDArray[Any]], index: Any) -> str:
    """Return the name of a class, or else its index, safe from being read as mathematics."""
    names = images["class_names"]
    name = str(names[int(index)]) if 0 <= int(index) < len(names) else str(int(index))
    return name.replace("$", r"\$")
