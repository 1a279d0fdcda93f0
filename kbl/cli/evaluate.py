"""``kbl eval``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from kbl.cli.shared import BackendOption, QuietOption, check_file, show
from kbl.files import write_text


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
    check_file("--json", json_file)
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
    show(result)
    if json_file:
        write_text(json_file, json.dumps(result, indent=2) + "\n")
