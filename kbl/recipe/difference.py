"""In what a recipe differs from the one that a run was begun with."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kbl.recipe.faults import show
from kbl.recipe.schema import Recipe
from kbl.recipe.write import to_toml

_TOLD = 5  # so many keys are named; the others are counted


def difference(recipe: Recipe, file: Path) -> str:
    """Say in which keys a recipe differs from that of a run, with the values of both.

    Args:
        recipe: what is asked for.
        file: the run's `recipe.toml`.

    Returns:
        A sentence without its full stop; nothing where the two are the same, or there is no file.
    """
    if not file.is_file():
        return ""
    start = f"the recipe differs from {file}"
    try:
        there = _values(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return f"{start}, which is not valid TOML: {error}"
    here = _values(to_toml(recipe))
    keys = [key for key in {**here, **there} if here.get(key) != there.get(key)]
    if not keys:
        return ""
    told = [f"{key} ({show(there.get(key))} there, {show(here.get(key))} here)" for key in keys[:_TOLD]]
    more = f" and {len(keys) - _TOLD} more" if len(keys) > _TOLD else ""
    return f"{start} in {', '.join(told)}{more}"


def _values(text: str) -> dict[str, Any]:
    return dict(_flat(tomllib.loads(text), ""))


def _flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield each plain value, and each list of plain values, with its dotted key as `--set` takes it."""
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        yield key, value
        return
    for name, entry in value.items():
        yield from _flat(entry, f"{key}.{name}".lstrip("."))
