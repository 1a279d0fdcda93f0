"""The command line. Nothing heavy is imported before a command needs it, and Keras not before its backend is chosen."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from typer.core import TyperGroup

from kbl.errors import DivergenceError, UserError
from kbl.files import write_text


class _Commands(TyperGroup):
    """Turns what a user can mend into one message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
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


app = typer.Typer(
    cls=_Commands,
    name="kbl",
    help="Train image classifiers that withstand adversarial examples, and measure how well they do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

BackendOption: TypeAlias = Annotated[
    str | None, typer.Option("--backend", metavar="NAME", help="torch, jax or tensorflow.")
]
QuietOption: TypeAlias = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


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


@app.command()
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
        folder, resume = run_folder.prepare(chosen.name, backend, out=out, resume=resume, force=force)
    except run_folder.AlreadyFinished as finished:
        typer.echo(str(finished))
        return
    if not quiet:
        typer.echo(f"{'Going on with' if resume else 'Writing to'} {folder} (backend: {backend})")
    try:
        from kbl import experiment

        result = experiment.run(chosen, folder, resume=resume, quiet=quiet)
    except KeyboardInterrupt:
        changes = [word for change in set_ or () for word in ("--set", change)]
        again = ["kbl", "run", recipe, "--backend", backend, *changes, "--out", str(folder), "--resume"]
        raise KeyboardInterrupt(f"stopped; go on with: {shlex.join(again)}") from None
    _show(result)
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
    folder.mkdir(parents=True, exist_ok=True)
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


@app.command("eval")
def evaluate(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="RUN|MODEL", help="A run folder or .keras file; else the newest run."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="NAME|FILE.npz", help="By default the run's own data.")
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            "--attack",
            metavar="NAME:KEY=VALUE,…",
            help="standard, paper (the run's own attacks), or one such as pgd:steps=40,epsilon=8/255.",
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Only the first test images.")
    ] = None,
    substitute: Annotated[
        Path | None,
        typer.Option("--substitute", metavar="RUN|MODEL", help="Craft black-box attacks on this network."),
    ] = None,
    scale: Annotated[
        float, typer.Option("--scale", help="255 for a model that takes pixels in [0, 255].")
    ] = 1.0,
    detect: Annotated[
        bool, typer.Option("--detect", help="Measure how well likelihood tells adversarial images.")
    ] = False,
    reject_below: Annotated[
        float | None,
        typer.Option(
            "--reject-below", metavar="QUANTILE", min=0.0, max=0.999, help="Reject unlikely images."
        ),
    ] = None,
    certify: Annotated[
        str | None,
        typer.Option(
            "--certify", metavar="EPSILON", help="Certify images within this radius, such as 8/255."
        ),
    ] = None,
    diagnostics: Annotated[
        bool, typer.Option("--diagnostics/--no-diagnostics", help="Look for signs that the numbers flatter.")
    ] = True,
    backend: BackendOption = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the result to a file, too.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an evaluation that was cut off.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Measure the robustness of a trained model, on any backend."""
    from kbl import backend_choice, recipe, run_folder

    attacks = [
        text if text in ("standard", "paper") else recipe.attack_from_text(text) for text in attack or ()
    ]
    data = recipe.data_name_from_text(data) if data else None
    if json_file and (json_file.is_dir() or not json_file.parent.is_dir()):
        raise UserError(f"--json: expected a file in a folder that exists, received {json_file}")
    path = run_folder.find_model(model) if model else run_folder.newest_model()
    substitute = run_folder.find_model(substitute) if substitute else None
    backend = backend_choice.choose(backend)
    if not quiet:
        typer.echo(f"Evaluating {path} (backend: {backend})")
    from kbl import experiment

    try:
        result = experiment.evaluate(
            path,
            data=data,
            attacks=attacks,
            samples=samples,
            scale=scale,
            substitute=substitute,
            detect=detect,
            reject_below=reject_below,
            certified_epsilon=None if certify is None else recipe.radius_from_text(certify),
            diagnostics=diagnostics,
            records=run_folder.records(path, json_file),
            resume=resume,
            quiet=quiet,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; go on with the same command and --resume") from None
    _show(result)
    if json_file:
        write_text(json_file, json.dumps(result, indent=2) + "\n")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders or evaluation.json files.")],
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page, too.")] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write a Markdown table, too.")
    ] = None,
) -> None:
    """Compare runs in one table, or render a suite's table and figures."""
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


@app.command()
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


@app.command("recipes")
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
    _print_rows(rows, headings=("Recipe", "Data", "Method", "Description"))


@app.command()
def doctor(backend: BackendOption = None) -> None:
    """Show what of kbl works on this machine."""
    from kbl.doctor import examine

    rows, can_run = examine(backend)
    _print_rows(rows)
    if not can_run:
        raise typer.Exit(2)


def _show(result: Mapping[str, Any]) -> None:
    """Print the accuracies of an evaluation and its warnings."""
    from rich.console import Console

    from kbl.report import evaluation_tables
    from kbl.report.tables import warning_texts

    Console().print(evaluation_tables(result))
    for texts in warning_texts(result):
        typer.echo("Warning: " + " ".join(text for text in texts if text), err=True)


def _print_rows(rows: Iterable[tuple[str, ...]], headings: tuple[str, ...] = ()) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headings, box=None, show_header=bool(headings))
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
