"""From a recipe and data to a trained model and the files of its training."""

from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from kbl import recipe as recipes
from kbl.errors import DivergenceError
from kbl.from_recipe import companion_recipes, split, to_attacks, to_model
from kbl.training import AveragedWeights, Batches, Probe, ProgressBar, Recorder, RobustModel


def train(
    recipe: recipes.Recipe,
    dataset: Any,
    folder: Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    is_companion: bool = False,
) -> RobustModel:
    """Train as the recipe says on a `kbl.data.Dataset`; history, models and checkpoint go to the folder.

    What the method needs trained beforehand (a teacher, source networks) is trained first, in folders inside; such a
    companion itself needs none.

    Raises:
        UserError: the data do not fit the recipe.
        DivergenceError: training ran away; the folder keeps the last good epoch.
    """
    training = recipe.training
    companions = [
        train(each, dataset, inside(folder, name), resume=resume, quiet=quiet, is_companion=True).network
        for name, each in ({} if is_companion else companion_recipes(recipe)).items()
    ]
    kept, validation = split(dataset, training)
    batches = Batches(*kept, training.batch_size, training.seed)
    model = to_model(recipe, dataset, steps_an_epoch=len(batches), images=len(kept[0]), companions=companions)
    recorder = Recorder(folder, _watched(recipe))
    done = recorder.restore(model) if resume else 0
    if done >= training.epochs:
        return model
    console = Console(quiet=quiet)
    with ProgressBar(console, training.epochs, done) as bar:
        callbacks: list[keras.callbacks.Callback] = [AveragedWeights()] if training.weight_averaging else []
        if training.probe is not None and validation is not None:
            [(_, attack)] = to_attacks([training.probe], model.network)
            probe = Probe(attack, *validation, seed=training.seed, say=console.print)
            probe.recall(recorder.history)
            callbacks.append(probe)
        batches.start(done)
        try:
            model.fit(
                batches,
                initial_epoch=done,
                epochs=training.epochs,
                validation_data=validation and Batches(*validation, training.batch_size, seed=None),
                callbacks=[*callbacks, bar, recorder],
                verbose=0,
            )
        except DivergenceError as error:
            saved = folder / "model.keras"
            last = f"The last good epoch is kept in {saved}." if saved.exists() else "No epoch was finished."
            raise DivergenceError(f"{error} {last}") from None
    return model


def inside(folder: Path, name: str) -> Path:
    """Make a folder within a run's for a network that the run needs."""
    (folder / name).mkdir(exist_ok=True)
    return folder / name


def _watched(recipe: recipes.Recipe) -> str:
    """Name the log by which the best epoch is known."""
    if recipe.training.probe is not None:
        return "probe_accuracy"
    if recipe.method.name == "certified_training":
        return "val_certified_accuracy"
    is_attacked = getattr(recipe.method, "attack", None) is not None
    return "val_adversarial_accuracy" if is_attacked else "val_clean_accuracy"
