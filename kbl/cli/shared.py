"""What commands share: how they fail, options, what they print."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
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
        except OSError as error:
            if error.filename is None or error.strerror is None:
                raise  # not about a file, so no path mends it
            message = f"{error.strerror}: {error.filename}; give a path that can be read and written"
            code = 2
        except KeyboardInterrupt as stop:
            message, code = str(stop) or "stopped", 130
        typer.echo(f"kbl: {message}", err=True)
        raise typer.Exit(code)


BackendOption: TypeAlias = Annotated[
    str | None, typer.Option("--backend", metavar="NAME", help="torch, jax or tensorflow.")
]
QuietOption: TypeAlias = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


def check_file(option: str, file: Path | None) -> None:
    """Refuse a file that cannot be written, before the work that it is for.

    Raises:
        UserError: the file's folder is not there or takes no files, or the file is a folder.
    """
    if file is None:
        return
    if file.is_dir() or not file.parent.is_dir():
        raise UserError(f"{option}: expected a file in a folder that exists, received {file}")
    try:
        tempfile.TemporaryFile(dir=file.parent).close()
    except OSError as error:
        raise UserError(
            f"{option}: expected a folder that takes files, received {file} ({error.strerror}); give another"
        ) from error


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
