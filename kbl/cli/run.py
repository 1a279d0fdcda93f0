"""``kbl run``."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from kbl.cli.shared import BackendOption, QuietOption, show
from kbl.errors import UserError


def run(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or a name that `kbl recipes` lists.")],
    backend: BackendOption = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the recipe: training.epochs=5."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="By default runs/NAME-BACKEND.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished run; a suite always does.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the run in --out; not for a suite.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Train and evaluate what a recipe describes, or all that a suite lists."""
    from kbl import backend_choice, run_folder
    from kbl.recipe import is_suite, load

    if is_suite(recipe):
        if force:
            raise UserError(
                "--force: a suite replaces no run; remove the folder of a run, or give another one by --out"
            )
        _run_suite(recipe, backend, set_ or (), out, quiet=quiet)
        return
    chosen = load(recipe, set_ or ())
    backend = backend_choice.choose(backend, chosen.backend)
    try:
        folder, resume = run_folder.prepare(chosen, backend, out=out, resume=resume, force=force)
    except run_folder.AlreadyFinished as finished:
        typer.echo(str(finished))
        return
    if not quiet:
        typer.echo(f"{'Going on with' if resume else 'Writing to'} {folder} (backend: {backend})")
    try:
        from kbl import experiment

        result = experiment.run(chosen, folder, resume=resume, force=force, quiet=quiet)
    except KeyboardInterrupt:
        changes = [word for change in set_ or () for word in ("--set", change)]
        again = ["kbl", "run", recipe, "--backend", backend, *changes, "--out", str(folder), "--resume"]
        raise KeyboardInterrupt(f"stopped; go on with: {shlex.join(again)}") from None
    show(result)
    typer.echo(f"Report: {folder / 'report.html'}")


def _run_suite(
    suite: str, backend: str | None, changes: Sequence[str], out: Path | None, *, quiet: bool
) -> None:
    """Run what is missing of a suite, and name what failed."""
    from kbl import backend_choice, run_folder
    from kbl.recipe import plan

    planned = plan(suite, changes)
    backend = backend_choice.choose(backend, planned.chosen[0].recipe.backend)
    folder = out or run_folder.RUNS / f"{planned.suite.name}-{planned.scale}-{backend}"
    run_folder.make(folder)
    if not quiet:
        typer.echo(f"Writing to {folder} (backend: {backend}). {planned.note}")
    from kbl import suite as suites

    try:
        failed = suites.run(planned, folder, quiet=quiet)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; go on with the same command") from None
    typer.echo((folder / "table.md").read_text(encoding="utf-8"))
    typer.echo(f"Report: {folder / 'report.html'}")
    if failed:
        raise UserError(f"{len(failed)} of {len(planned.chosen)} runs failed:\n  " + "\n  ".join(failed))
