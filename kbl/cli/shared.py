"""What commands share: how they fail, options, what they print."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeAlias

import typer
from typer.core import TyperGroup

from kbl.errors import DivergenceError, UserError


class Commands(TyperGroup):
    """Turns what a user can mend into one message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            message, code = str(error), 2
        except DivergenceError as error:
            message, code = str(error), 3
        except KeyboardInterrupt as stop:
            message, code = str(stop) or "stopped", 130
        typer.echo(f"kbl: {message}", err=True)
        raise typer.Exit(code)


BackendOption: TypeAlias = Annotated[
    str | None, typer.Option("--backend", metavar="NAME", help="torch, jax or tensorflow.")
]
QuietOption: TypeAlias = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


def show(result: Mapping[str, Any]) -> None:
    """Print the accuracies of an evaluation and its warnings."""
    from rich.console import Console

    from kbl.report import evaluation_tables
    from kbl.report.tables import warning_texts

    Console().print(evaluation_tables(result))
    for texts in warning_texts(result):
        typer.echo("Warning: " + " ".join(text for text in texts if text), err=True)


def print_rows(rows: Iterable[tuple[str, ...]], headings: tuple[str, ...] = ()) -> None:
    """Print rows in columns, as wide as the terminal lets them be."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headings, box=None, show_header=bool(headings))
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
