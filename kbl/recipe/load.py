"""From TOML text, with `--set` on top, to a checked recipe."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from kbl.recipe.attacks import Attack
from kbl.recipe.combinations import combination_faults
from kbl.recipe.faults import Fault, RecipeError, from_validation
from kbl.recipe.fields import DataName, Positive
from kbl.recipe.packaged import find
from kbl.recipe.schema import Recipe


def load(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, or a packaged recipe by its name.

    Args:
        source: a path, or a name that `packaged` lists.
        overrides: each `key.path=value`, as given to `--set`; a list's entry is chosen by its index. The value is read
            as TOML and else taken as text; `none` stands for nothing.

    Raises:
        RecipeError: all faults of the file and the overrides together.
        UserError: there is no such recipe.
    """
    path = find(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(str(path), [Fault("", f"cannot be read: {error}")]) from error
    return parse(text, overrides, origin=str(path), name=re.sub(r"[^\w.-]+", "-", path.stem))


def parse(
    text: str, overrides: Sequence[str] = (), *, origin: str = "recipe", name: str = "recipe"
) -> Recipe:
    """Read a recipe from TOML text; `origin` is what messages call it, `name` its name if it states none.

    Raises:
        RecipeError: all faults together.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        line = f":{place[1]}" if place else ""
        raise RecipeError(f"{origin}{line}", [Fault("", f"not valid TOML: {error}")]) from error
    table.setdefault("name", name)
    faults = [fault for override in overrides if (fault := set_value(table, override))]
    given = tuple(override.partition("=")[0].strip() for override in overrides)
    recipe, found = validated(table)
    for key, message in found:
        is_set = any(f"{key}.".startswith(f"{start}.") for start in given)
        faults.append(Fault(key, f"{message} (from --set)" if is_set else message))
    if faults or recipe is None:
        raise RecipeError(origin, faults)
    return recipe


def validated(table: dict[str, Any]) -> tuple[Recipe | None, list[Fault]]:
    """Return the recipe of a table, or None and every fault."""
    try:
        return Recipe.model_validate(table), []
    except ValidationError as error:
        return None, from_validation(error, Recipe) + [Fault(*fault) for fault in combination_faults(table)]


def attack_from_text(text: str) -> Attack:
    """Read an attack such as `pgd:steps=40,epsilon=8/255,restarts=3`.

    Raises:
        RecipeError: all faults together.
    """
    name, _, settings = text.partition(":")
    table: dict[str, Any] = {"name": name.strip()}
    faults = [fault for setting in settings.split(",") if setting and (fault := set_value(table, setting))]
    return _validate(Attack, table, f"--attack {text}", faults)


def data_name_from_text(text: str) -> str:
    """Check the name of a data source, or a path ending in .npz, which is made absolute.

    Raises:
        RecipeError: it is neither.
    """
    return str(_validate(DataName, text, "--data"))


def radius_from_text(text: str) -> float:
    """Read a radius such as `0.3` or `8/255`.

    Raises:
        RecipeError: it is none.
    """
    return float(_validate(Positive, text, "--certify"))


def _validate(kind: Any, value: Any, origin: str, faults: Sequence[Fault] = ()) -> Any:
    try:
        valid = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        faults = [*faults, *from_validation(error, kind)]
    if faults:
        raise RecipeError(origin, faults)
    return valid


def set_value(table: dict[str, Any], text: str) -> Fault | None:
    """Put the value of `key.path=value` into nested tables and lists, or say why not."""
    read = assignment(text)
    return read if isinstance(read, Fault) else put(table, *read)


def assignment(text: str) -> tuple[str, Any] | Fault:
    """Return key and value of `key.path=value`, or say that it is none."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not all(key.split(".")):
        return Fault("", f"expected key.path=value, received {text}")
    return key, _value(value)


def put(table: dict[str, Any], key: str, value: Any) -> Fault | None:
    """Put a value at a dotted key into nested tables and lists, or say why not."""
    *parents, last = key.split(".")
    place: Any = table
    try:
        for parent in parents:
            place = place.setdefault(parent, {}) if isinstance(place, dict) else place[int(parent)]
        place[last if isinstance(place, dict) else int(last)] = value
    except (IndexError, TypeError, ValueError):
        return Fault(key, "expected a key of a table or the index of a list's entry; there is no such place")
    return None


def _value(text: str) -> Any:
    """Read a TOML value; what is none is text, such as 8/255 or adam."""
    if text == "none":
        return None
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return table["value"] if len(table) == 1 else text
