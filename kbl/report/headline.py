"""The head of a run's page, and the facts at its end."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kbl.report.evaluation import Evaluation, entries, example_count, has_radius
from kbl.report.formatting import MISSING, count, duration, number, percent
from kbl.report.rows import AccuracyRow, accuracy_rows


def facts(environment: Mapping[str, Any]) -> list[str]:
    """Return what stands beneath the title: backend, device, when, how long."""
    backend = " ".join(str(environment.get(key) or "") for key in ("backend", "backend_version"))
    found = [backend.strip(), str(environment.get("device") or "")]
    if environment.get("started"):
        found.append(f"started {_moment(str(environment['started']))}")
    if duration(number(environment.get("seconds"))) != MISSING:
        found.append(f"took {duration(number(environment['seconds']))}")
    return [fact for fact in found if fact]


def numbers(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the three numbers of the headline: label, value, and what to know of it."""
    rows = {row.kind: row for row in accuracy_rows(evaluation)}
    attacks = sum(has_radius(attack) for attack in entries(evaluation, "attacks"))
    under = f"worst case of {attacks} attacks" if attacks > 1 else "under one attack"
    unknown = {"value": MISSING, "notes": ["not measured: no attack was run"]}
    return [
        {"label": "Clean accuracy", "kind": "clean"} | _measured(rows["clean"], ""),
        {"label": "Robust accuracy", "kind": "robust"}
        | (_measured(rows["worst"], under) if attacks else unknown),
        {
            "label": "Test examples",
            "kind": "examples",
            "value": count(example_count(evaluation) or float("nan")),
            "notes": [],
        },
    ]


def environment_table(environment: Mapping[str, Any], evaluation: Evaluation) -> dict[str, str]:
    """Return what the run and its evaluation ran on, which may be two machines, as one flat table."""
    table = _flat(environment)
    if "backend" in evaluation:
        table["evaluation.backend"] = str(evaluation["backend"])
    return table | _flat(evaluation.get("versions") or {}, "evaluation.")


def _moment(started: str) -> str:
    """Write an ISO time to the minute; leave what is no ISO time as it is."""
    try:
        return f"{datetime.fromisoformat(started):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return started


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
