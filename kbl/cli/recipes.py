"""``kbl check`` and ``kbl recipes``."""

from typing import Annotated

import typer

from kbl.cli.shared import print_rows
from kbl.errors import UserError


def check(recipes: Annotated[list[str], typer.Argument(metavar="RECIPE…", help="Files or names.")]) -> None:
    """Check recipes and suites, and list every fault."""
    from kbl.recipe import check as check_file

    faults = []
    for name in recipes:
        try:
            check_file(name)
            typer.echo(f"{name}: valid")
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n".join(faults))


def list_recipes() -> None:
    """List the recipes that come with kbl."""
    from kbl.recipe import is_suite, load, packaged, plan

    rows = []
    for path in packaged():
        if is_suite(path):
            rows.append((path.stem, "", "suite", plan(path).suite.title))
            continue
        recipe = load(path)
        rows.append((path.stem, recipe.data.name, recipe.method.name, recipe.description))
    print_rows(rows, headings=("Recipe", "Data", "Method", "Description"))
