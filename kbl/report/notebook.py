"""One evaluation in a notebook: a piece of HTML, and a picture."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kbl.report.black_box import black_box, transferred_rows
from kbl.report.diagnostics import diagnostics
from kbl.report.evaluation import Evaluation, example_count
from kbl.report.formatting import count, percent
from kbl.report.html import render
from kbl.report.rows import AccuracyRow, accuracy_rows, columns_in_use, shared_radius
from kbl.report.style import ADAPTIVE, ADVERSARIAL, CLEAN, INK, png, styled


class _ShownFigure(Figure):
    """A figure that a notebook also shows where nobody has imported pyplot."""

    def _repr_png_(self) -> bytes:
        return png(self, dots_per_inch=100)


def evaluation_html(evaluation: Evaluation) -> str:
    """Return the tables and warnings of one evaluation as a piece of HTML, its styles inline, its texts escaped."""
    black = black_box(evaluation)
    tables = [("Accuracy", accuracy_rows(evaluation))] + ([("Black box", black.rows)] if black else [])
    content = {
        "tables": [{"title": title, "rows": rows, "columns": columns_in_use(rows)} for title, rows in tables],
        "examples": count(example_count(evaluation)),
        "diagnostics": diagnostics(evaluation),
    }
    return render("fragment.html", content)


@styled
def evaluation_figure(evaluation: Evaluation) -> Figure:
    """Draw the accuracy under each attack with its 95 % interval, a line for each.

    A part of an attack is a ring: what was left right after it. A minimum-norm attack has no accuracy
    at a radius; its line states the median distance. Transferred attacks are purple.
    """
    rows, transferred = accuracy_rows(evaluation), transferred_rows(evaluation)
    colors = [{"clean": CLEAN, "worst": INK, "certified": INK}.get(row.kind, ADVERSARIAL) for row in rows]
    colors += [ADAPTIVE] * len(transferred)
    lines = rows + transferred
    figure = _ShownFigure(figsize=(9, 0.9 + 0.3 * len(lines)))
    axes = figure.subplots()
    for place, (row, color) in enumerate(zip(lines, colors, strict=True)):
        _draw(axes, place, row, color)
    is_transferred = [False] * len(rows) + [True] * len(transferred)
    labels = [_label(row, beyond) for row, beyond in zip(lines, is_transferred, strict=True)]
    axes.set_yticks(range(len(lines)), labels)
    for tick, row in zip(axes.get_yticklabels(), lines, strict=True):
        tick.set_fontweight("bold" if row.kind == "worst" else "normal")
        tick.set_fontsize(9 if row.kind == "part" else 10)
    shared = shared_radius(evaluation)
    axes.set(xlim=(-1, 101), ylim=(len(lines) - 0.5, -0.5), xlabel="accuracy (%)")
    axes.set_title(f"Accuracy at ε = {shared}" if shared else "Accuracy")
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    return figure


def _label(row: AccuracyRow, is_transferred: bool) -> str:
    suffix = " (transferred)" if is_transferred and row.kind == "attack" else ""
    return "↳ " * (row.depth > 0) + row.label.replace("$", r"\$") + suffix


def _draw(axes: Axes, place: int, row: AccuracyRow, color: str) -> None:
    """Draw a dot with its interval, and the number at the right."""
    said = f"median {row.distance}" if row.distance else percent(row.accuracy)
    axes.annotate(
        said,
        (1.01, place),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=9.5,
        annotation_clip=False,
    )
    if row.distance or row.accuracy != row.accuracy:
        return
    axes.plot([100 * row.low, 100 * row.high], [place, place], color=color, linewidth=1.6)
    face = "white" if row.kind == "part" else color
    size = 5 if row.kind == "part" else 6.5
    axes.plot(100 * row.accuracy, place, "o", color=color, markerfacecolor=face, markersize=size)
