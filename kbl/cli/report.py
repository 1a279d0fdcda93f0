"""``kbl report``."""

from pathlib import Path
from typing import Annotated

import typer

from kbl.cli.shared import check_file
from kbl.files import write_text


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders or evaluation.json files.")],
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page, too.")] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write a Markdown table, too.")
    ] = None,
) -> None:
    """Compare runs in one table, or render a suite's table and figures."""
    check_file("--html", html)
    check_file("--markdown", markdown)
    from rich.console import Console

    from kbl.report import compare, read_suite, suite_markdown, write_suite

    if len(runs) == 1 and (runs[0] / "suite.json").is_file():
        typer.echo(suite_markdown(read_suite(runs[0])))
        page = write_suite(runs[0])
        if html:
            write_text(html, page.read_text(encoding="utf-8"))
        if markdown:
            write_text(markdown, suite_markdown(read_suite(runs[0])))
        typer.echo(f"Report: {page}")
        return

    comparison = compare(runs)
    Console().print(comparison.table())
    if html:
        write_text(html, comparison.to_html())
    if markdown:
        write_text(markdown, comparison.to_markdown())
