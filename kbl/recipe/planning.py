"""From a suite to the recipes of its runs."""

import copy
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kbl.recipe.faults import Fault, RecipeError, from_validation
from kbl.recipe.load import load, set_value, validated
from kbl.recipe.packaged import find
from kbl.recipe.schema import Recipe
from kbl.recipe.suite import Changes, Group, Run, ScaleName, Suite


@dataclass(frozen=True)
class Planned:
    """One run of a suite at a scale and a seed."""

    id: str
    label: str
    group: str | None
    seed: int
    recipe: Recipe
    paper: dict[str, float]

    @property
    def folder(self) -> str:
        """Name of its folder inside the suite's."""
        return f"{self.id}-seed{self.seed}"


@dataclass(frozen=True)
class Plan:
    """A suite at one scale: its runs in the order of the file, all of them valid."""

    suite: Suite
    scale: ScaleName
    runs: tuple[Planned, ...]

    @property
    def note(self) -> str:
        """What differs from the paper at this scale."""
        return self.suite.scales[self.scale].note


def is_suite(source: str | Path) -> bool:
    """Tell whether a file is a suite, which has runs, and not a recipe.

    Raises:
        UserError: there is no such file.
    """
    try:
        return "runs" in tomllib.loads(find(source).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False  # what is wrong with it is told where it is loaded


def check(source: str | Path) -> None:
    """Check a recipe, or a suite at every scale.

    Raises:
        RecipeError: all faults.
        UserError: there is no such file.
    """
    if not is_suite(source):
        load(source)
        return
    for scale in _read(find(source)).scales:
        plan(source, [f"scale={scale}"])


def plan(source: str | Path, overrides: Sequence[str] = ()) -> Plan:
    """Read a suite and make the recipes of its runs.

    Args:
        source: a path, or the name of a suite that comes with kbl.
        overrides: each `key=value` as given to `--set`: `scale` ("paper" by default), `seeds`, `only` (a list of runs'
            ids), and else a dotted key of the recipe, for every run.

    Raises:
        RecipeError: all faults of the suite, or of its recipes at this scale.
        UserError: there is no such file.
    """
    path = find(source)
    suite = _read(path)
    options: dict[str, Any] = {"scale": "paper", "seeds": None, "only": None}
    changes: Changes = {}
    for override in overrides:
        key, _, value = (part.strip() for part in override.partition("="))
        read: dict[str, Any] = {}
        if not key or set_value(read, f"value={value}"):
            raise RecipeError(f"--set {override}", [Fault("", f"expected key=value, received {override}")])
        (options if key in options else changes)[key] = read["value"]
    scale = options["scale"]
    if scale not in suite.scales:
        known = ", ".join(suite.scales)
        raise RecipeError(str(path), [Fault("scale", f"expected one of {known}, received {scale}")])
    faults, runs = list(_reference_faults(suite)), []
    for seed in options["seeds"] or suite.scales[scale].seeds:
        for run, table in _described(suite, scale, changes, seed):
            if options["only"] and run.id not in options["only"]:
                continue
            recipe, found = validated(table)
            faults += [Fault(f"runs.{run.id}.{key}".rstrip("."), message) for key, message in found]
            if recipe is not None:
                runs.append(Planned(run.id, run.label, run.group, seed, recipe, run.paper))
    if faults:
        raise RecipeError(f"{path} at scale {scale}", list(dict.fromkeys(faults)))
    return Plan(suite, scale, tuple(runs))


def _read(path: Path) -> Suite:
    try:
        return Suite.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(str(path), [Fault("", f"not valid TOML: {error}")]) from error
    except ValidationError as error:
        raise RecipeError(str(path), from_validation(error, Suite)) from error


def _described(
    suite: Suite, scale: ScaleName, overrides: Changes, seed: int
) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Yield each run, of grids each point, and the table of its recipe."""
    groups = {group.id: group for group in suite.groups}
    for run in suite.runs:
        group = groups.get(run.group or "") or Group(id="none", label="")
        for suffix, label, chosen in _grid(run.grid):
            table = copy.deepcopy(suite.base)
            table["name"] = f"{suite.name}-{run.id}{suffix}"
            for changes in (
                suite.scales[scale].changes,
                group.changes,
                group.scales.get(scale) or {},
                run.changes,
                run.scales.get(scale) or {},
                chosen,
                overrides,
                {"training.seed": seed},
            ):
                for key, value in changes.items():
                    _put(table, key, copy.deepcopy(value))
            for key in run.drop:
                _put(table, key, None)
            yield run.model_copy(update={"id": f"{run.id}{suffix}", "label": f"{run.label}{label}"}), table


def _grid(grid: dict[str, tuple[Any, ...]]) -> Iterator[tuple[str, str, Changes]]:
    """Yield an ending for the id, one for the label and the changes of each point of a grid."""
    points: list[Changes] = [{}]
    for key, values in grid.items():
        points = [{**point, key: value} for point in points for value in values]
    for point in points:
        short = [f"{key.rpartition('.')[2]} {value}" for key, value in point.items()]
        ending = "".join(f"-{value}" for value in point.values())
        yield ending.replace("/", "_").replace(" ", "_"), f" ({', '.join(short)})" if short else "", point


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted key; None removes what is there."""
    *parents, last = key.split(".")
    place: Any = table
    for parent in parents:
        place = place[int(parent)] if isinstance(place, list) else place.setdefault(parent, {})
    if value is None:
        place.pop(last, None)
    else:
        place[int(last) if isinstance(place, list) else last] = value


def _reference_faults(suite: Suite) -> Iterator[Fault]:
    """What names something that the suite does not have."""
    groups, measures = {group.id for group in suite.groups}, {measure.label for measure in suite.measures}
    ids = {run.id + suffix for run in suite.runs for suffix, _, _ in _grid(run.grid)}
    for run in suite.runs:
        if run.group is not None and run.group not in groups:
            yield Fault(f"runs.{run.id}.group", f"expected the id of a group, received {run.group}")
        for label in run.paper:
            if label not in measures:
                yield Fault(f"runs.{run.id}.paper", f"expected labels of measures, received {label}")
    for number, figure in enumerate(suite.figures):
        for run_id in getattr(figure, "runs", ()):
            if run_id not in ids:
                yield Fault(f"figures.{number}.runs", f"expected ids of runs, received {run_id}")
