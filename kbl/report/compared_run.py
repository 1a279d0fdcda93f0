"""One run as a line of a comparison."""

from dataclasses import dataclass
from pathlib import Path

from kbl.errors import UserError
from kbl.report.black_box import lowest_accuracy
from kbl.report.diagnostics import Diagnostics, diagnostics
from kbl.report.evaluation import Evaluation, entries, example_count, is_minimum_norm, name_of, section
from kbl.report.folder import read_json, read_recipe
from kbl.report.formatting import MISSING, count, distance, number, percent
from kbl.report.rows import AccuracyRow, accuracy_rows, radius_of, shared_radius


@dataclass(frozen=True)
class ComparedRun:
    """A line of the comparison; text that is not known is a dash, and a worst case not measured None."""

    name: str
    data: str
    method: str
    backend: str
    examples: str
    epsilon: str
    clean: AccuracyRow
    worst: AccuracyRow | None
    attacks: dict[str, str]
    black_box: str
    evaluation: Evaluation

    @property
    def diagnostics(self) -> Diagnostics:
        """What was checked about its evaluation."""
        return diagnostics(self.evaluation)


def compared_run(path: Path, name: str) -> ComparedRun:
    """Read a run folder, or a file in the form of `evaluation.json`.

    Raises:
        UserError: If it is neither.
    """
    evaluation, folder = _evaluation(path)
    recipe = read_recipe(folder)[1] if folder else {}
    try:
        rows = {row.kind: row for row in accuracy_rows(evaluation)}
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return ComparedRun(
        name=name,
        data=str(section(recipe, "data").get("name") or MISSING),
        method=str(section(recipe, "method").get("name") or MISSING),
        backend=str(evaluation.get("backend") or MISSING),
        examples=count(example_count(evaluation) or float("nan")),
        epsilon=shared_radius(evaluation),
        clean=rows["clean"],
        worst=rows.get("worst"),
        attacks=_attack_cells(evaluation),
        black_box=percent(lowest_accuracy(evaluation)),
        evaluation=evaluation,
    )


def _evaluation(path: Path) -> tuple[Evaluation, Path | None]:
    """Return an evaluation, and the folder of its run where it is one's."""
    file = path / "evaluation.json" if path.is_dir() else path
    content = read_json(file)
    if content is not None and {"clean", "examples"} <= content.keys():
        return content, file.parent if file.name == "evaluation.json" else None
    if content is not None:
        received = "JSON without `clean` and `examples`"
    else:
        received = "a folder without evaluation.json" if path.is_dir() else "what does not exist"
    raise UserError(f"{path}: expected a run folder or an evaluation.json, received {received}")


def name_of_run(path: Path) -> str:
    """Return what to call a run: its folder, or the file where that says more than `evaluation.json`."""
    if path.is_dir():
        return path.resolve().name
    return path.resolve().parent.name if path.name == "evaluation.json" else path.stem


def _attack_cells(evaluation: Evaluation) -> dict[str, str]:
    """Map the label of each attack to its cell, which states ε where that is not the whole run's."""
    cells: dict[str, str] = {}
    shared = shared_radius(evaluation)
    for attack in entries(evaluation, "attacks"):
        label, alike = name_of(attack), 2
        while label in cells:
            label, alike = f"{name_of(attack)} ({alike})", alike + 1
        radius = radius_of(attack)
        nearest = section(attack, "distance")
        if is_minimum_norm(attack):
            cells[label] = distance(number(nearest.get("median")), str(nearest.get("norm") or "l2"))
        else:
            own = f" (ε {radius})" if radius and radius != shared else ""
            cells[label] = percent(number(attack.get("accuracy"))) + own
    return cells
