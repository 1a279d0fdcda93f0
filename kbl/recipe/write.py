"""From a recipe back to TOML, with every default filled in."""

import json
from collections.abc import Iterator
from typing import Any

from kbl.recipe.schema import Recipe


def to_toml(recipe: Recipe) -> str:
    """Write a recipe as TOML that `parse` reads back as the same recipe; a key whose value is None is left out."""
    return "\n".join(_lines(recipe.model_dump(), "")).lstrip("\n") + "\n"


def _lines(table: dict[str, Any], path: str) -> Iterator[str]:
    """Write the plain values of a table first, then its tables and its lists of tables."""
    entries = {"name": table.get("name"), **table}  # the name comes first
    nested = {key: value for key, value in entries.items() if _is_nested(value)}
    for key, value in entries.items():
        if key not in nested and value is not None:
            yield f"{key} = {_value(value)}"
    for key, value in nested.items():
        inner = f"{path}{key}"
        for entry in [value] if isinstance(value, dict) else value:
            yield ""
            yield f"[{inner}]" if isinstance(value, dict) else f"[[{inner}]]"
            yield from _lines(entry, f"{inner}.")


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, tuple) and any(isinstance(v, dict) for v in value))


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    # JSON's numbers, flags and text are TOML's too, but for the one control character that JSON leaves as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
