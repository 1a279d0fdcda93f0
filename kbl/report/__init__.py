"""Pictures, tables and the HTML page of a run: read from its folder, never computed again."""

from kbl.report.html import write
from kbl.report.tables import accuracy_markdown, accuracy_table, wilson_interval

__all__ = ["accuracy_markdown", "accuracy_table", "wilson_interval", "write"]
