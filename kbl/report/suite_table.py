"""The table of a suite: what the paper says beside what was measured."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from kbl.report.formatting import MISSING
from kbl.report.intervals import wilson_interval
from kbl.report.markdown import markdown_row


@dataclass(frozen=True)
class Cell:
    """One measure of one row, in %: the paper's value, and the mean over seeds with its spread."""

    paper: float | None
    values: tuple[float, ...]
    examples: int

    @property
    def measured(self) -> str:
        """The mean, with the standard deviation over seeds where there are several."""
        if not self.values:
            return MISSING
        spread = f" ± {stdev(self.values):.1f}" if len(self.values) > 1 else ""
        return f"{mean(self.values):.1f}{spread}"

    @property
    def beside(self) -> str:
        """The paper's value and the difference to it."""
        if self.paper is None:
            return ""
        difference = f", {mean(self.values) - self.paper:+.1f}" if self.values else ""
        return f"paper {self.paper:g}{difference}"

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % Wilson interval of a single seed's value."""
        if len(self.values) != 1 or not self.examples:
            return None
        low, high = wilson_interval(self.values[0] / 100, self.examples)
        return 100 * low, 100 * high


@dataclass(frozen=True)
class Row:
    """A run, all its seeds together."""

    label: str
    group: str
    state: str
    cells: dict[str, Cell]


def rows(suite: Mapping[str, Any]) -> list[Row]:
    """Return the rows of what `suite.json` holds."""
    by_id: dict[str, list[Mapping[str, Any]]] = {}
    for run in suite["runs"]:
        by_id.setdefault(run["id"], []).append(run)
    return [_row(suite, runs) for runs in by_id.values()]


def _row(suite: Mapping[str, Any], runs: list[Mapping[str, Any]]) -> Row:
    finished = [run for run in runs if run["state"] == "finished"]
    failures = [run["failure"] for run in runs if run["state"] == "failed"]
    missing = len(runs) - len(finished) - len(failures)
    states = [f"failed: {failure}" for failure in failures] + ([f"{missing} not run"] if missing else [])
    cells = {
        measure["label"]: Cell(
            runs[0]["paper"].get(measure["label"]),
            tuple(run["values"][measure["label"]] for run in finished if measure["label"] in run["values"]),
            finished[0]["examples"] if finished else 0,
        )
        for measure in suite["measures"]
    }
    label = runs[0]["label"]
    if finished and len(_backends(suite, suite["runs"])) > 1:
        label += f" ({' and '.join(_backends(suite, finished))})"
    return Row(label, suite["groups"].get(runs[0]["group"], ""), "; ".join(states), cells)


def _backends(suite: Mapping[str, Any], runs: list[Mapping[str, Any]]) -> list[str]:
    """Return the backends that the finished ones of some runs were measured on; older suites state one for all."""
    return sorted({run.get("backend") or suite["backend"] for run in runs if run["state"] == "finished"})


def notes(suite: Mapping[str, Any]) -> list[str]:
    """Return what a reader of the table must know."""
    finished = [run for run in suite["runs"] if run["state"] == "finished"]
    found = [f"Scale {suite['scale']}: {suite['note']}."]
    examples = sorted({run["examples"] for run in finished})
    seeds = sorted({run["seed"] for run in finished})
    compared = any(run["paper"] for run in suite["runs"])
    if finished:
        found.append(
            f"Accuracy in %, on {' or '.join(map(str, examples))} test images, "
            + (f"mean ± standard deviation of {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}")
            + f", on {' and '.join(_backends(suite, finished))}"
            + ("; in brackets the paper's value and the difference to it." if compared else ".")
        )
        if len(seeds) == 1:
            widest = max(_half_width(row) for row in rows(suite))
            found.append(
                f"A single value is uncertain by up to ±{widest:.1f} (95 %, from the number of images alone)."
            )
    if any(measure["black_box"] for measure in suite["measures"]):
        found.append("Black box: images crafted on a network trained likewise from another seed.")
    return found


def _half_width(row: Row) -> float:
    intervals = [cell.interval for cell in row.cells.values()]
    return max((0.5 * (high - low) for low, high in filter(None, intervals)), default=0.0)


def to_markdown(suite: Mapping[str, Any]) -> str:
    """Return title, notes and table in Markdown."""
    lines = [f"# {suite['title']} ({suite['scale']} scale)", "", *(f"{note}  " for note in notes(suite)), ""]
    found = rows(suite)
    if suite["transposed"]:
        lines += _transposed(found, [measure["label"] for measure in suite["measures"]])
    else:
        lines += _plain(found, [measure["label"] for measure in suite["measures"]])
    return "\n".join(lines) + "\n"


def _plain(found: list[Row], labels: list[str]) -> Iterator[str]:
    yield markdown_row("Run", *labels)
    yield "|:---|" + "---:|" * len(labels)
    group = ""
    for row in found:
        if row.group != group:
            group = row.group
            yield markdown_row(f"*{group}*", *("" for _ in labels))
        yield markdown_row(row.label, *(_text(row.cells[label]) for label in labels))
    yield from _states(found)


def _transposed(found: list[Row], labels: list[str]) -> Iterator[str]:
    yield markdown_row("", *(row.label for row in found))
    yield "|:---|" + "---:|" * len(found)
    for label in labels:
        yield markdown_row(label, *(_text(row.cells[label]) for row in found))
    yield from _states(found)


def _states(found: list[Row]) -> Iterator[str]:
    yield ""
    for row in found:
        if row.state:
            yield f"- {row.group + ', ' if row.group else ''}{row.label}: {row.state}"


def _text(cell: Cell) -> str:
    return f"{cell.measured} ({cell.beside})" if cell.beside else cell.measured
