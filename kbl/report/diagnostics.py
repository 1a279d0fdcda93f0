"""What was checked about an evaluation, and what makes its numbers less trustworthy."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kbl.report.evaluation import Evaluation
from kbl.report.formatting import counted


@dataclass(frozen=True)
class Diagnostics:
    """The warnings as (name, message, remedy), and the names of all checks; None where none are recorded."""

    warnings: tuple[tuple[str, str, str], ...]
    checks: tuple[str, ...] | None

    @property
    def summary(self) -> str:
        """How many checks were run and how many warnings they gave: `13 checks, 1 warning`."""
        warnings = counted(len(self.warnings), "warning")
        if self.checks is None:
            return warnings if self.warnings else "no warnings"
        if not self.warnings:
            return f"{counted(len(self.checks), 'check')}, none fired" if self.checks else "no check was run"
        return f"{counted(len(self.checks), 'check')}, {warnings}"

    @property
    def marked_checks(self) -> list[tuple[str, bool]]:
        """The name of each check, and whether it fired."""
        fired = {name for name, _, _ in self.warnings}
        return [(check, check in fired) for check in self.checks or ()]


def diagnostics(evaluation: Evaluation) -> Diagnostics:
    """Read the diagnostics of an evaluation."""
    checks = evaluation.get("checks")
    return Diagnostics(
        tuple(warning_texts(evaluation)),
        tuple(_readable(check) for check in checks) if isinstance(checks, list) else None,
    )


def warning_texts(evaluation: Evaluation) -> Iterator[tuple[str, str, str]]:
    """Yield (name, message, remedy) of every warning; a plain string is a message only."""
    for warning in evaluation.get("warnings") or []:
        if isinstance(warning, Mapping):
            name, message, remedy = (warning.get(key) for key in ("name", "message", "remedy"))
            yield _readable(name or ""), str(message or ""), str(remedy or "")
        else:
            yield "", str(warning), ""


def _readable(name: object) -> str:
    """Write a name of the code as words: `zero_gradients` is `zero gradients`."""
    return str(name).replace("_", " ")
