"""Pictures, tables and the HTML page of a run: read from its folder, never computed again."""

from kbl.report.comparison import Comparison, compare
from kbl.report.html import write
from kbl.report.intervals import wilson_interval
from kbl.report.markdown import accuracy_markdown
from kbl.report.notebook import evaluation_figure, evaluation_html
from kbl.report.suite import read_suite, write_suite
from kbl.report.suite_table import to_markdown as suite_markdown
from kbl.report.tables import accuracy_table, evaluation_tables

__all__ = [
    "Comparison",
    "accuracy_markdown",
    "accuracy_table",
    "compare",
    "evaluation_figure",
    "evaluation_html",
    "evaluation_tables",
    "read_suite",
    "suite_markdown",
    "wilson_interval",
    "write",
    "write_suite",
]
