"""Several runs in one table: for the terminal, for Markdown and as one HTML page."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kbl.errors import UserError
from kbl.report.compared_run import ComparedRun, compared_run, name_of_run
from kbl.report.comparison_table import ComparisonTable
from kbl.report.formatting import MISSING, counted
from kbl.report.html import render
from kbl.report.markdown import markdown_row, warning_lines


@dataclass(frozen=True)
class Comparison:
    """Evaluations side by side, a line for each run and a column for each attack that one of them has."""

    runs: tuple[ComparedRun, ...]

    @property
    def attacks(self) -> list[str]:
        """The labels of the attacks, in the order in which they appear."""
        return list(dict.fromkeys(label for run in self.runs for label in run.attacks))

    @property
    def notes(self) -> list[str]:
        """The sentences that a reader of the table needs."""
        notes = [
            "The intervals are 95 % Wilson intervals for N examples; what another seed would change is not in them.",
            "Worst case: every attack within ε failed on the example.",
        ]
        if len({run.epsilon for run in self.runs}) > 1:
            notes.append("The runs were attacked with different ε: only those with the same can be compared.")
        if any(run.black_box != MISSING for run in self.runs):
            notes.append("Black box: the lower accuracy of transferred images and of Square on every image.")
        return notes

    def table(self) -> ComparisonTable:
        """Return the table for the terminal (rich); attacks for which it is too narrow are left out."""
        return ComparisonTable(self.runs, self.attacks, self.notes)

    def to_markdown(self) -> str:
        """Return the table in Markdown, its notes, and a line for each warning."""
        headings = ["Run", "Data", "Method", "Backend", "N", "ε", "Clean", "Worst case", *self.attacks]
        lines = [
            markdown_row(*headings, "Black box", "Warnings"),
            "|:---|:---|:---|:---|" + "---:|" * (len(headings) - 2),
        ]
        for run in self.runs:
            facts = (run.name, run.data, run.method, run.backend, run.examples, run.epsilon or MISSING)
            measured = (run.clean.cell, run.worst.cell if run.worst else MISSING)
            cells = (run.attacks.get(label, MISSING) for label in self.attacks)
            lines.append(
                markdown_row(*facts, *measured, *cells, run.black_box, str(len(run.diagnostics.warnings)))
            )
        lines += ["", " ".join(self.notes)]
        for run in self.runs:
            lines += warning_lines(run.name, run.evaluation)
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        """Return one page that needs nothing beside it."""
        content = {
            "kind": "comparison",
            "source": "the evaluations of these runs",
            "name": f"{counted(len(self.runs), 'run')} compared",
            "runs": self.runs,
            "attacks": self.attacks,
            "notes": self.notes,
            "missing": MISSING,
        }
        return render("comparison.html", content)


def compare(paths: Iterable[Path | str]) -> Comparison:
    """Put runs side by side.

    Args:
        paths: Run folders, or files in the form of `evaluation.json`; data and method are known of a folder.

    Raises:
        UserError: If there is none, or one of them is neither.
    """
    places = [Path(path) for path in paths]
    if not places:
        raise UserError("expected one run folder or evaluation.json or more, received none")
    names = [name_of_run(path) for path in places]
    return Comparison(
        tuple(
            compared_run(path, str(path) if names.count(name) > 1 else name)
            for path, name in zip(places, names, strict=True)
        )
    )
