"""Reading an evaluation: what is missing, null or of another form than expected is as if it were not there."""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from kbl.report.formatting import number

Evaluation: TypeAlias = Mapping[str, Any]


def entries(table: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Return the tables of the list under `key`."""
    found = table.get(key)
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []


def section(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the table under `key`, or an empty one."""
    found = table.get(key)
    return found if isinstance(found, Mapping) else {}


def example_count(evaluation: Evaluation) -> int:
    """Return how many examples were judged; 0 where that is unknown."""
    examples = number(evaluation.get("examples"))
    return int(examples) if math.isfinite(examples) else 0


def name_of(attack: Mapping[str, Any]) -> str:
    """Return what the attack is called."""
    return str(attack.get("label") or attack.get("name") or "unnamed attack")


def is_minimum_norm(attack: Mapping[str, Any]) -> bool:
    """Tell whether the attack sought the nearest adversarial examples, at any distance."""
    return isinstance(attack.get("distance"), Mapping)


def has_radius(attack: Mapping[str, Any]) -> bool:
    """Tell whether the attack kept within a radius, as far as is known; only those are part of the worst case."""
    parameters = section(attack, "parameters")
    return not is_minimum_norm(attack) and (not parameters or "epsilon" in parameters)


def is_bounded(evaluation: Evaluation) -> bool:
    """Tell whether an attack within a radius was run: without one, robustness was not measured."""
    return any(has_radius(attack) for attack in entries(evaluation, "attacks"))
