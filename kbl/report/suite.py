"""The report of a suite: its table and its figures, from `suite.json` and the folders of its runs."""

import base64
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kbl.errors import UserError
from kbl.files import atomic, write_text
from kbl.report import suite_table
from kbl.report.folder import read, read_json
from kbl.report.html import render
from kbl.report.likelihood_plots import likelihood_curves
from kbl.report.style import png
from kbl.report.training_plots import feature_plane, sweep_curves

_DOTS_PER_INCH = 160


def write_suite(folder: Path) -> Path:
    """Write `table.md`, `figures/*.png` and `report.html` into a suite's folder, and return the path of the page.

    Raises:
        UserError: the folder holds no suite.
    """
    suite = read_suite(folder)
    drawn = dict(_figures(suite, folder))
    (folder / "figures").mkdir(exist_ok=True)
    sources = {}
    for name, figure in drawn.items():
        image = png(figure, _DOTS_PER_INCH)
        with atomic(folder / "figures" / f"{name}.png") as draft:
            draft.write_bytes(image)
        sources[name] = "data:image/png;base64," + base64.b64encode(image).decode("ascii")
    write_text(folder / "table.md", suite_table.to_markdown(suite))
    content = {
        "kind": "suite",
        "source": "the runs of this suite",
        "name": f"{suite['title']} ({suite['scale']} scale)",
        "suite": suite,
        "notes": suite_table.notes(suite),
        "rows": suite_table.rows(suite),
        "labels": [measure["label"] for measure in suite["measures"]],
        "figures": sources,
    }
    write_text(folder / "report.html", render("suite.html", content))
    return folder / "report.html"


def read_suite(folder: Path) -> dict[str, Any]:
    """Return what a suite's folder says of it.

    Raises:
        UserError: the folder holds no suite.
    """
    suite = read_json(folder / "suite.json")
    if suite is None:
        raise UserError(f"{folder} holds no suite: expected suite.json, which `kbl run` writes for a suite")
    return suite


def _figures(suite: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, Figure]]:
    """Yield the figures whose runs are there."""
    finished = {run["id"]: run for run in reversed(suite["runs"]) if run["state"] == "finished"}
    for figure in suite["figures"]:
        if figure["kind"] == "sweep":
            panels = _panels(suite, figure["key"])
            if panels:
                yield "sweep", _titled(sweep_curves(panels, figure["axis"]), suite)
            continue
        shown = {
            _title(suite, finished[each]): folder / finished[each]["folder"]
            for each in figure["runs"]
            if each in finished
        }
        if figure["kind"] == "likelihood":
            curves = {title: read(place).batches for title, place in shown.items()}
            curves = {title: columns for title, columns in curves.items() if "clean_lkd" in columns}
            if curves:
                yield "likelihood", _titled(likelihood_curves(curves), suite)
        else:
            planes = {title: read(place).features for title, place in shown.items()}
            planes = {title: arrays for title, arrays in planes.items() if arrays}
            if planes:
                yield "features", _titled(feature_plane(planes), suite)


def _panels(suite: Mapping[str, Any], key: str) -> dict[str, dict[str, dict[float, float]]]:
    """Return, for each group and measure, the mean accuracy over seeds at each value of a recipe's key."""
    sums: dict[tuple[str, str, float], list[float]] = {}
    for run in suite["runs"]:
        value: Any = run["recipe"]
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if run["state"] != "finished" or not isinstance(value, int | float):
            continue
        title = suite["groups"].get(run["group"], suite["title"])
        for label, accuracy in run["values"].items():
            sums.setdefault((title, label, float(value)), []).append(accuracy)
    panels: dict[str, dict[str, dict[float, float]]] = {}
    for (title, label, value), accuracies in sums.items():
        panels.setdefault(title, {}).setdefault(label, {})[value] = float(np.mean(accuracies))
    return panels


def _title(suite: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    group = suite["groups"].get(run["group"])
    return f"{group}: {run['label']}" if group else str(run["label"])


def _titled(figure: Figure, suite: Mapping[str, Any]) -> Figure:
    """Say in the picture itself what was computed: a figure is shown without the page around it, too."""
    note = textwrap.wrap(f"Scale {suite['scale']}: {suite['note']}.", 12 * int(figure.get_figwidth()))
    figure.suptitle("\n".join([suite["title"], *note]), fontsize=9)
    return figure
