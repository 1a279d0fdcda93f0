"""The page of a run: one HTML file that needs nothing beside it."""

import base64
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from kbl.files import atomic, write_text
from kbl.report.black_box import black_box
from kbl.report.detection import detection, rejection
from kbl.report.diagnostics import diagnostics
from kbl.report.figures import Picture, pictures
from kbl.report.folder import RunFolder, read
from kbl.report.formatting import percent
from kbl.report.headline import environment_table, facts, numbers
from kbl.report.rows import OPTIONAL, accuracy_notes, accuracy_rows, columns_in_use
from kbl.report.style import png

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
    pngs = {name: png(picture.figure, _DOTS_PER_INCH) for name, picture in drawn.items() if picture}
    page = render("run.html", _content(run, drawn, pngs))
    (run.path / "figures").mkdir(exist_ok=True)
    for name in drawn:
        path = run.path / "figures" / f"{name}.png"
        if name in pngs:
            with atomic(path) as draft:
                draft.write_bytes(pngs[name])
        else:
            path.unlink(missing_ok=True)
    write_text(run.path / "report.html", page)
    return run.path / "report.html"


def render(template: str, content: Mapping[str, Any]) -> str:
    """Return a template of this room filled with what others wrote, which is escaped."""
    return _environment().get_template(template).render(content)


@cache
def _environment() -> jinja2.Environment:
    folder = files("kbl.report").joinpath("templates")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.globals["optional"] = OPTIONAL
    return environment


def _content(
    run: RunFolder, drawn: Mapping[str, Picture | None], pngs: Mapping[str, bytes]
) -> dict[str, Any]:
    evaluation = run.evaluation or {}
    is_evaluated = run.evaluation is not None
    rows = accuracy_rows(evaluation) if is_evaluated else []
    black = black_box(evaluation)
    return {
        "kind": "run report",
        "source": "the files of this run",
        "name": run.name,
        "description": str(run.recipe.get("description") or ""),
        "facts": facts(run.environment),
        "numbers": numbers(evaluation) if is_evaluated else [],
        "diagnostics": diagnostics(evaluation) if is_evaluated else None,
        "rows": rows,
        "columns": columns_in_use(rows),
        "notes": accuracy_notes(evaluation),
        "black_box": black,
        "black_box_columns": columns_in_use(black.rows) if black else [],
        "detection": detection(evaluation),
        "rejection": rejection(evaluation),
        "pictures": {name: _inline(picture, pngs[name]) for name, picture in drawn.items() if picture},
        "environment": environment_table(run.environment, evaluation),
        "recipe": run.recipe_text,
        "kbl_version": str(run.environment.get("kbl") or ""),
    }


def _inline(picture: Picture, png: bytes) -> dict[str, Any]:
    return {
        "picture": picture,
        "src": "data:image/png;base64," + base64.b64encode(png).decode("ascii"),
        "width": round(96 * picture.figure.get_figwidth()),  # CSS counts 96 pixels to the inch
    }
