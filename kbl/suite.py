"""From a suite to a folder of runs, and what was measured in them."""

import json
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from kbl import evaluation, experiment, report
from kbl.errors import DivergenceError, UserError
from kbl.files import write_text
from kbl.recipe import Plan, Planned, difference

_FAILURE = "failure.txt"


def run(plan: Plan, folder: Path, *, quiet: bool = False) -> list[str]:
    """Run what is missing of the chosen runs, one after another; go on with what was cut off.

    After each run the suite's table and figures are written anew. A run that fails leaves `failure.txt` in its folder
    and does not stop the others; it is tried again when the suite is called again. A folder that holds the run of
    another recipe is left as it is, and counts as failed.

    Args:
        plan: the runs.
        folder: the suite's, which exists.
        quiet: draw no progress.

    Returns:
        What failed, a line for each run; nothing if all is well.
    """
    console = Console(quiet=quiet)
    failed = []
    for number, planned in enumerate(plan.chosen, 1):
        place = folder / planned.folder
        if another := _another(planned, place):
            failed.append(f"{planned.folder}: {another}")
            continue
        if (place / "report.html").is_file():
            continue
        console.print(f"[{number}/{len(plan.chosen)}] {place}", markup=False, highlight=False)
        place.mkdir(exist_ok=True)
        (place / _FAILURE).unlink(missing_ok=True)
        try:
            experiment.run(planned.recipe, place, resume=True, quiet=quiet)
        except Exception as error:  # whatever it is, the other runs go on
            known = isinstance(error, UserError | DivergenceError)
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            write_text(place / _FAILURE, reason + "\n")
            failed.append(f"{planned.folder}: {reason}")
        keras.backend.clear_session()
        write(plan, folder)
    write(plan, folder)
    return failed


def write(plan: Plan, folder: Path) -> None:
    """Write `suite.json`, the table and the figures of what there is."""
    write_text(folder / "suite.json", json.dumps(measured(plan, folder), indent=2) + "\n")
    report.write_suite(folder)


def measured(plan: Plan, folder: Path) -> dict[str, Any]:
    """Return what `suite.json` holds: the layout of the suite, and each run's values in %.

    Of the runs that are not chosen it holds those that are there.
    """
    suite = plan.suite
    runs = [(each, _measured(each, folder / each.folder, suite.measures)) for each in plan.runs]
    return {
        "name": suite.name,
        "title": suite.title,
        "scale": plan.scale,
        "note": plan.note,
        "transposed": suite.transposed,
        "groups": {group.id: group.label for group in suite.groups},
        "measures": [measure.model_dump() for measure in suite.measures],
        "figures": [figure.model_dump() for figure in suite.figures],
        "versions": evaluation.versions(),
        "runs": [found for each, found in runs if each in plan.chosen or found["state"] != "missing"],
    }


def _another(planned: Planned, place: Path) -> str:
    """Say that a folder holds the run of another recipe; nothing where it does not."""
    told = difference(planned.recipe, place / "recipe.toml")
    return told and f"{told}: remove that folder, or give another one by --out"


def _measured(planned: Planned, place: Path, measures: Any) -> dict[str, Any]:
    described: dict[str, Any] = {
        "id": planned.id,
        "label": planned.label,
        "group": planned.group,
        "seed": planned.seed,
        "folder": planned.folder,
        "paper": planned.paper,
        "recipe": planned.recipe.model_dump(mode="json"),
        "state": "missing",
    }
    if another := _another(planned, place):
        return {**described, "state": "failed", "failure": another}
    if (place / _FAILURE).is_file():
        failure = (place / _FAILURE).read_text(encoding="utf-8").strip()
        return {**described, "state": "failed", "failure": failure}
    if not (place / "evaluation.json").is_file():
        return described
    result = json.loads((place / "evaluation.json").read_text(encoding="utf-8"))
    seconds = json.loads((place / "environment.json").read_text(encoding="utf-8")).get("seconds")
    values = {measure.label: _value(result, measure) for measure in measures}
    return {
        **described,
        "state": "finished",
        "backend": result["backend"],  # the suite may have been gone on with on another
        "examples": result["examples"],
        "robust": 100 * result["robust"],
        "seconds": seconds,
        "warnings": [warning["name"] for warning in result["warnings"]],
        "values": {label: 100 * value for label, value in values.items() if value is not None},
    }


def _value(result: dict[str, Any], measure: Any) -> float | None:
    """Return a measure's accuracy as a fraction, or None where it was not measured."""
    where = (result.get("transfer") or {}) if measure.black_box else result
    if measure.attack is None:
        return where.get("clean")
    found = [each["accuracy"] for each in where.get("attacks", ()) if each["label"] == measure.attack]
    return found[0] if found else None
