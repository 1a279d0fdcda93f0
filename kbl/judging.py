"""From a trained network and settings to an evaluation, with a progress bar."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kbl import attacks, evaluation
from kbl import recipe as recipes
from kbl.evaluation import Result
from kbl.from_recipe import to_attacks
from kbl.training import overfitting, read_history

_CALIBRATION = 1000  # training images that the threshold of rejection is taken from


def judge(
    network: Any,
    dataset: Any,
    settings: recipes.Evaluation,
    named: list[tuple[str, Any]],
    console: Console,
    **options: Any,
) -> Result:
    """Evaluate as the settings say, with a progress bar."""
    x, y = dataset.x_test[: settings.samples], dataset.y_test[: settings.samples]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[standing]}"), console=console, transient=True) as bar:
        task = bar.add_task("clean", total=len(x), standing="")

        def listen(label: str, state: attacks.Progress) -> None:
            standing = f"{state.standing} of {len(x)} stand"
            bar.update(task, description=label, total=state.total, completed=state.done, standing=standing)

        return evaluation.evaluate(
            network,
            x,
            y,
            named,
            epsilons=settings.epsilons,
            diagnostics=settings.diagnostics,
            detect=settings.detect,
            reject_below=settings.reject_below,
            certified_epsilon=settings.certified_epsilon,
            calibration=dataset.x_train[:_CALIBRATION],
            batch_size=settings.batch_size,
            seed=settings.seed,
            progress=listen,
            **options,
        )


def with_substitute(result: Result, substitute: str) -> Result:
    """Say what the substitute is."""
    return replace(result, transfer={**(result.transfer or {}), "substitute": substitute})


def warned_of_overfitting(result: Result, probe: recipes.Attack, network: Any, folder: Path) -> Result:
    """Add what the probe found to what the evaluation did."""
    name, found = "catastrophic_overfitting", overfitting(read_history(folder))
    result = replace(result, checks=[*result.checks, name])
    if found is None:
        return result
    [(label, _)] = to_attacks([probe], network)
    remedy = (
        "What was evaluated is the last network; best.keras is that of the best epoch under the probe. Train on more "
        "steps, or on a smaller step size or ε."
    )
    warning = {"name": name, "message": found.message(label), "remedy": remedy}
    return replace(result, warnings=[*result.warnings, warning])
