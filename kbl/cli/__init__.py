"""The command line. Nothing heavy is imported before a command needs it, and Keras not before its backend is chosen."""

from typing import Annotated

import typer

from kbl.cli.doctor import doctor
from kbl.cli.evaluate import evaluate
from kbl.cli.recipes import check, list_recipes
from kbl.cli.report import report
from kbl.cli.run import run
from kbl.cli.shared import Commands

__all__ = ["app"]

app = typer.Typer(
    cls=Commands,
    name="kbl",
    help="Train image classifiers that withstand adversarial examples, and measure how well they do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from kbl import __version__

        typer.echo(f"kbl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Hold the options that stand before a command."""


app.command()(run)
app.command("eval")(evaluate)
app.command()(report)
app.command()(check)
app.command("recipes")(list_recipes)
app.command()(doctor)
