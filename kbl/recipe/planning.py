"""From a suite to the recipes of its runs."""

import copy
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kbl.recipe.faults import Fault, RecipeError, from_validation, nearest, show
from kbl.recipe.load import assignment, load, put, validated
from kbl.recipe.packaged import find
from kbl.recipe.schema import Recipe
from kbl.recipe.suite import Changes, Group, Options, Run, ScaleName, Suite


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
    """A suite at one scale: its runs in the order of the file, all of them valid, and those that were asked for."""

    suite: Suite
    scale: ScaleName
    runs: tuple[Planned, ...]
    chosen: tuple[Planned, ...]
    changes: Changes = field(default_factory=dict)

    @property
    def note(self) -> str:
        """What differs from the paper at this scale, and what `--set` changed of the scale."""
        changed = ", ".join(f"{key} = {show(value)}" for key, value in self.changes.items())
        return self.suite.scales[self.scale].note + (f"; changed by --set: {changed}" if changed else "")


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
        overrides: each `key=value` as given to `--set`: `scale` ("paper" by default, else the file's first), `seeds`,
            `only` (a list of runs' ids), and else a dotted key of the recipe, for every run. A run that was not asked
            for and that they do not fit is left out.

    Raises:
        RecipeError: all faults of the suite, or of its recipes at this scale.
        UserError: there is no such file.
    """
    path = find(source)
    suite = _read(path)
    options, changes = _options(overrides)
    scale = options.scale or ("paper" if "paper" in suite.scales else next(iter(suite.scales)))
    if scale not in suite.scales:
        known = ", ".join(suite.scales)
        raise RecipeError(str(path), [Fault("scale", f"expected one of {known}, received {scale}")])
    faults = [*_repetition_faults(suite, options), *_reference_faults(suite, options.only or ())]
    runs, is_whole = [], True
    for seed in options.seeds or suite.scales[scale].seeds:
        for run, table, misplaced in _described(suite, scale, changes, seed):
            recipe, found = validated(table)
            if recipe is not None and not misplaced:
                runs.append(Planned(run.id, run.label, run.group, seed, recipe, run.paper))
                continue
            is_whole = False
            if options.only is None or run.id in options.only:
                found = [*misplaced, *found]
                faults += [Fault(f"runs.{run.id}.{key}".rstrip("."), message) for key, message in found]
    if is_whole:
        faults += _measure_faults(suite, runs)
    if faults:
        raise RecipeError(f"{path} at scale {scale}", list(dict.fromkeys(faults)))
    chosen = tuple(run for run in runs if options.only is None or run.id in options.only)
    if options.seeds:
        changes = {"seeds": options.seeds, **changes}
    return Plan(suite, scale, tuple(runs), chosen, changes)


def _options(overrides: Sequence[str]) -> tuple[Options, Changes]:
    """Tell the options of a suite from changes of its recipes."""
    given: Changes = {}
    for override in overrides:
        read = assignment(override)
        if isinstance(read, Fault):
            raise RecipeError(f"--set {override}", [read])
        given[read[0]] = read[1]
    if "training.seed" in given:
        reason = f"the seeds of a suite set it: give --set seeds={given['training.seed']}"
        raise RecipeError("--set", [Fault("training.seed", reason)])
    chosen = {key: given.pop(key) for key in Options.model_fields if key in given}
    try:
        return Options.model_validate(chosen), given
    except ValidationError as error:
        raise RecipeError("--set", from_validation(error, Options)) from error


def _read(path: Path) -> Suite:
    try:
        return Suite.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(str(path), [Fault("", f"not valid TOML: {error}")]) from error
    except ValidationError as error:
        raise RecipeError(str(path), from_validation(error, Suite)) from error


def _described(
    suite: Suite, scale: ScaleName, overrides: Changes, seed: int
) -> Iterator[tuple[Run, dict[str, Any], list[Fault]]]:
    """Yield each run, of grids each point, the table of its recipe, and which changes have no place there."""
    groups = {group.id: group for group in suite.groups}
    for run in suite.runs:
        group = groups.get(run.group or "") or Group(id="none", label="")
        for suffix, label, chosen in _grid(run.grid):
            table = copy.deepcopy(suite.base)
            table["name"] = f"{suite.name}-{run.id}{suffix}"
            changes = [
                suite.scales[scale].changes,
                group.changes,
                group.scales.get(scale) or {},
                run.changes,
                run.scales.get(scale) or {},
                chosen,
                overrides,
                {"training.seed": seed},
                dict.fromkeys(run.drop),
            ]
            pairs = [(key, copy.deepcopy(value)) for each in changes for key, value in each.items()]
            faults = [fault for key, value in pairs if (fault := put(table, key, value))]
            named = {"id": f"{run.id}{suffix}", "label": f"{run.label}{label}"}
            yield run.model_copy(update=named), _without_nothing(table), faults


def _without_nothing(value: Any) -> Any:
    """Leave out the keys of tables that were set to nothing."""
    if isinstance(value, list):
        return [_without_nothing(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _without_nothing(inner) for key, inner in value.items() if inner is not None}
    return value


def _grid(grid: dict[str, tuple[Any, ...]]) -> Iterator[tuple[str, str, Changes]]:
    """Yield an ending for the id, one for the label and the changes of each point of a grid."""
    points: list[Changes] = [{}]
    for key, values in grid.items():
        points = [{**point, key: value} for point in points for value in values]
    for point in points:
        short = [f"{key.rpartition('.')[2]} {value}" for key, value in point.items()]
        ending = "".join(f"-{value}" for value in point.values())
        yield ending.replace("/", "_").replace(" ", "_"), f" ({', '.join(short)})" if short else "", point


def _ids(suite: Suite) -> list[str]:
    return [run.id + suffix for run in suite.runs for suffix, _, _ in _grid(run.grid)]


def _repetition_faults(suite: Suite, options: Options) -> Iterator[Fault]:
    """What would put two runs into one folder, or count one twice."""
    ids = _ids(suite)
    for run_id in dict.fromkeys(ids):
        if ids.count(run_id) > 1:
            yield Fault(
                f"runs.{run_id}", f"expected an id for each run, received this one {ids.count(run_id)} times"
            )
    seeds = {f"scales.{name}.seeds": scale.seeds for name, scale in suite.scales.items()}
    for key, given in {**seeds, "seeds": options.seeds or ()}.items():
        if len(set(given)) < len(given):
            yield Fault(key, f"expected seeds that differ, received {list(given)}")


def _reference_faults(suite: Suite, only: Sequence[str]) -> Iterator[Fault]:
    """What names something that the suite does not have."""
    groups, measures = {group.id for group in suite.groups}, {measure.label for measure in suite.measures}
    ids = _ids(suite)
    for run_id in only:
        if run_id not in ids:
            known = ", ".join(ids)
            yield Fault("only", f"expected ids of runs ({known}), received {run_id}{nearest(run_id, ids)}")
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


def _measure_faults(suite: Suite, runs: Sequence[Planned]) -> Iterator[Fault]:
    """What no attack of any run is called; those without a label get theirs when they are built."""
    attacks = [attack for run in runs for attack in run.recipe.evaluation.attacks]
    if any(attack.label is None or attack.name == "standard" for attack in attacks):
        return
    labels = list(dict.fromkeys(str(attack.label) for attack in attacks))
    for number, measure in enumerate(suite.measures):
        if measure.attack is not None and measure.attack not in labels:
            known = ", ".join(labels) or "there is none"
            hint = nearest(measure.attack, labels)
            reason = f"expected the label of an attack ({known}), received {measure.attack}{hint}"
            yield Fault(f"measures.{number}.attack", reason)
