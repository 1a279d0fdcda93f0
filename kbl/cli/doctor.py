"""``kbl doctor``."""

import typer

from kbl.cli.shared import BackendOption, print_rows


def doctor(backend: BackendOption = None) -> None:
    """Show what of kbl works on this machine."""
    from kbl.doctor import examine

    rows, can_run = examine(backend)
    print_rows(rows)
    if not can_run:
        raise typer.Exit(2)
