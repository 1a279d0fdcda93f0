"""The page of a run: one HTML file that needs nothing beside it."""

import base64
import os
from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from kbl.report.figures import Picture, pictures
from kbl.report.folder import RunFolder, read
from kbl.report.formatting import MISSING, count, duration, number, percent
from kbl.report.tables import AccuracyRow, accuracy_rows, example_count, warning_texts

_DOTS_PER_INCH = 160


def write(folder: Path) -> Path:
    """Write `report.html` and `figures/*.png` into a run folder, and return the path of the page.

    The pictures are inside the page as well, so it can be sent alone. Each file appears whole or
    not at all; a picture of an earlier report whose data are gone is removed.

    Args:
        folder: What `kbl run` wrote. Sections whose files are missing are left out.

    Raises:
        UserError: If the folder does not exist, or holds no file of a run or an unreadable one.
    """
    run = read(Path(folder))
    drawn = pictures(run)
    pngs = {name: _png(picture.figure) for name, picture in drawn.items() if picture}
    page = _render(run, drawn, pngs)
    (run.path / "figures").mkdir(exist_ok=True)
    for name in drawn:
        path = run.path / "figures" / f"{name}.png"
        if name in pngs:
            _replace(path, pngs[name])
        else:
            path.unlink(missing_ok=True)
    _replace(run.path / "report.html", page.encode())
    return run.path / "report.html"


def _render(run: RunFolder, drawn: Mapping[str, Picture | None], pngs: Mapping[str, bytes]) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "duration": duration}
    template = files("kbl.report").joinpath("template.html").read_text(encoding="utf-8")
    evaluation = run.evaluation
    return environment.from_string(template).render(
        name=run.name,
        description=str(run.recipe.get("description") or ""),
        facts=_facts(run.environment),
        is_evaluated=evaluation is not None,
        numbers=_numbers(evaluation) if evaluation is not None else [],
        warnings=list(warning_texts(evaluation or {})),
        rows=accuracy_rows(evaluation) if evaluation is not None else [],
        examples=count(example_count(evaluation or {})),
        pictures={name: _inline(picture, pngs[name]) for name, picture in drawn.items() if picture},
        environment=_flat(run.environment) | _versions(evaluation or {}),
        recipe=run.recipe_text,
        kbl_version=str(run.environment.get("kbl") or ""),
    )


def _inline(picture: Picture, png: bytes) -> dict[str, Any]:
    return {
        "picture": picture,
        "src": "data:image/png;base64," + base64.b64encode(png).decode("ascii"),
        "width": round(96 * picture.figure.get_figwidth()),  # CSS counts 96 pixels to the inch
    }


def _facts(environment: Mapping[str, Any]) -> list[str]:
    """Return what stands beneath the title: backend, device, when, how long."""
    backend = " ".join(str(environment.get(key) or "") for key in ("backend", "backend_version"))
    facts = [backend.strip(), str(environment.get("device") or "")]
    if environment.get("started"):
        facts.append(f"started {_moment(str(environment['started']))}")
    if duration(number(environment.get("seconds"))) != MISSING:
        facts.append(f"took {duration(number(environment['seconds']))}")
    return [fact for fact in facts if fact]


def _moment(started: str) -> str:
    """Write an ISO time to the minute; leave what is no ISO time as it is."""
    try:
        return f"{datetime.fromisoformat(started):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return started


def _numbers(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the three numbers of the headline: label, value, and what to know of it."""
    rows = {row.kind: row for row in accuracy_rows(evaluation)}
    attacks = len(evaluation.get("attacks") or [])
    under = f"worst case of {attacks} attacks" if attacks > 1 else "under one attack"
    return [
        {"label": "Clean accuracy", "kind": "clean"} | _measured(rows["clean"], ""),
        {"label": "Robust accuracy", "kind": "robust"}
        | (
            _measured(rows["worst"], under)
            if attacks
            else {"value": MISSING, "notes": ["not measured: no attack was run"]}
        ),
        {
            "label": "Test examples",
            "kind": "examples",
            "value": count(example_count(evaluation) or float("nan")),
            "notes": [],
        },
    ]


def _measured(row: AccuracyRow, note: str) -> dict[str, Any]:
    parts = [note, f"95 % interval {row.interval}" if row.interval else ""]
    return {"value": percent(row.accuracy), "notes": [part for part in parts if part]}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested tables as one, keys joined by dots, values as text."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = MISSING if value is None else str(value)
    return flat


def _versions(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Return what the evaluation ran on, which may be another machine than the training's."""
    backend = {"backend": evaluation["backend"]} if "backend" in evaluation else {}
    return _flat({"evaluation": backend | dict(evaluation.get("versions") or {})})


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
