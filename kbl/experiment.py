"""From a recipe to a run folder: objects, fit, evaluate, report. The one file that knows every room."""

import json
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kbl import attacks, backend, evaluation, report
from kbl import recipe as recipes
from kbl.data import load as load_data
from kbl.errors import DivergenceError, UserError
from kbl.evaluation import Result
from kbl.files import atomic, write_text
from kbl.from_recipe import split, to_attack, to_model
from kbl.training import Batches, ProgressBar, Recorder, RobustModel

_GALLERY = 8


def run(recipe: recipes.Recipe, folder: Path, *, resume: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Train, evaluate and report; return the content of ``evaluation.json``.

    Args:
        recipe: what to do.
        folder: an existing folder to write to.
        resume: go on from the folder's checkpoint, if there is one.
        quiet: draw no progress.

    Raises:
        UserError: the data cannot be had, or do not fit the recipe.
        DivergenceError: training ran away; the folder keeps the last good epoch.
    """
    console = Console(quiet=quiet)
    started = time.perf_counter()
    keras.utils.set_random_seed(recipe.training.seed)
    keras.config.set_dtype_policy(recipe.training.precision)
    dataset = load_data(recipe.data.name, recipe.data.limit)
    described = folder / "recipe.toml"
    if resume and described.is_file() and described.read_text(encoding="utf-8") != recipes.to_toml(recipe):
        raise UserError(f"the recipe differs from {described}: go on with that one, or begin another run")
    write_text(described, recipes.to_toml(recipe))
    environment = _environment(recipe, started)
    write_text(folder / "environment.json", json.dumps(environment, indent=2) + "\n")
    model = train(recipe, dataset, folder, resume=resume, quiet=quiet)
    result = _judge(
        model.network,
        dataset.x_test[: recipe.evaluation.samples],
        dataset.y_test[: recipe.evaluation.samples],
        [(attack.label, to_attack(attack)) for attack in recipe.evaluation.attacks],
        console,
        epsilons=recipe.evaluation.epsilons,
        batch_size=recipe.evaluation.batch_size,
        seed=recipe.evaluation.seed,
    )
    _write_gallery(recipe, dataset, model.network, folder)
    write_text(folder / "evaluation.json", result.to_json())
    environment = _environment(recipe, started)
    write_text(folder / "environment.json", json.dumps(environment, indent=2) + "\n")
    report.write(folder)
    Recorder(folder, "").remove_checkpoint()
    return result.to_dict()


def evaluate(
    path: Path,
    *,
    data: str | None = None,
    attacks: list[recipes.Attack] | None = None,
    samples: int | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Evaluate a run folder or any ``.keras`` file that returns logits; return what ``evaluation.json`` holds.

    Args:
        path: a run folder, whose recipe gives what is not given here, or a ``.keras`` file.
        data: data set or ``.npz`` file; needed where there is no run folder.
        attacks: attacks in place of the recipe's.
        samples: first test images only.
        quiet: draw no progress.

    Raises:
        UserError: the file is no model that Keras' safe mode loads, or data or attacks are missing or do not fit.
    """
    settings = recipes.Evaluation()
    if (path / "recipe.toml").is_file():
        recipe = recipes.load(str(path / "recipe.toml"))
        settings, data = recipe.evaluation, data or recipe.data.name
    if data is None:
        raise UserError(
            f"{path} comes without a recipe: name its data by --data digits, --data mnist or a .npz file"
        )
    chosen = attacks or settings.attacks
    if not chosen:
        raise UserError(
            f"{path} comes without attacks: give some by --attack, such as pgd:epsilon=8/255,steps=20"
        )
    network = load_network(path / "model.keras" if path.is_dir() else path)
    dataset = load_data(data)
    samples = samples or settings.samples
    try:
        result = _judge(
            network,
            dataset.x_test[:samples],
            dataset.y_test[:samples],
            [(attack.label, to_attack(attack)) for attack in chosen],
            Console(quiet=quiet),
            batch_size=settings.batch_size,
            seed=settings.seed,
        )
    except ValueError as error:
        raise UserError(f"{path} cannot be evaluated on {dataset.name}: {error}") from error
    return result.to_dict()


def load_network(path: Path) -> Any:
    """Load a ``.keras`` file without running code from it.

    Raises:
        UserError: it is corrupt, not a Keras model, or holds code or layers that safe mode refuses.
    """
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path} is not a Keras model that can be loaded safely: {reason}") from error
    return model.network if isinstance(model, RobustModel) else model


def train(
    recipe: recipes.Recipe, dataset: Any, folder: Path, *, resume: bool = False, quiet: bool = False
) -> RobustModel:
    """Train as the recipe says on a `kbl.data.Dataset`; history, models and checkpoint go to the folder.

    Raises:
        UserError: the data do not fit the recipe.
        DivergenceError: training ran away; the folder keeps the last good epoch.
    """
    training = recipe.training
    train, validation = split(dataset, training)
    model = to_model(recipe, dataset, steps_an_epoch=len(Batches(*train, training.batch_size, training.seed)))
    watched = "val_clean_accuracy" if model.method.attack is None else "val_adversarial_accuracy"
    recorder = Recorder(folder, watched)
    done = recorder.restore(model) if resume else 0
    if done >= training.epochs:
        return model
    with ProgressBar(Console(quiet=quiet), training.epochs, done) as bar:
        try:
            model.fit(
                Batches(*train, training.batch_size, training.seed, epoch=done),
                initial_epoch=done,
                epochs=training.epochs,
                validation_data=validation,
                validation_batch_size=training.batch_size,
                callbacks=[bar, recorder],
                verbose=0,
            )
        except DivergenceError as error:
            kept = folder / "model.keras"
            last = f"The last good epoch is kept in {kept}." if kept.exists() else "No epoch was finished."
            raise DivergenceError(f"{error} {last}") from None
    return model


def _judge(
    network: Any,
    x: Any,
    y: Any,
    named: list[tuple[str | None, attacks.PGD]],
    console: Console,
    **options: Any,
) -> Result:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[standing]}"), console=console, transient=True) as bar:
        task = bar.add_task("clean", total=len(x), standing="")

        def listen(label: str, state: attacks.Progress) -> None:
            restart = f" start {state.restart + 1}" if state.restart else ""
            bar.update(
                task,
                description=label + restart,
                total=state.total,
                completed=state.done,
                standing=f"{state.standing} of {len(x)} stand",
            )

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", attacks.AttackWarning)
            pairs = [(label or attack.label, attack) for label, attack in named]
            return evaluation.evaluate(network, x, y, pairs, progress=listen, **options)


def _write_gallery(recipe: recipes.Recipe, dataset: Any, network: Any, folder: Path) -> None:
    """Save some test images, what the first attack of the evaluation makes of them, and the predictions."""
    described = [attack for attack in recipe.evaluation.attacks if not attack.targeted]
    if not described:
        return
    attack = to_attack(next((attack for attack in described if attack.name == "pgd"), described[0]))
    x, y = dataset.x_test[:_GALLERY], dataset.y_test[:_GALLERY]
    x_adv = attack(network, x, y, seed=recipe.evaluation.seed)
    arrays: dict[str, Any] = {"x": x, "x_adv": x_adv, "y": y, "class_names": np.asarray(dataset.class_names)}
    for images, suffix in ((x, ""), (x_adv, "_adv")):
        logits = attacks.predict(network, images)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        arrays[f"prediction{suffix}"] = logits.argmax(axis=1)
        arrays[f"confidence{suffix}"] = shares.max(axis=1) / shares.sum(axis=1)
    with atomic(folder / "gallery.npz") as path:
        np.savez_compressed(path, **arrays)


def _environment(recipe: recipes.Recipe, started: float) -> dict[str, Any]:
    versions = evaluation.versions()
    name = keras.config.backend()
    return {
        **{key: versions[key] for key in ("kbl", "python", "keras", "numpy")},
        "backend": name,
        "backend_version": versions[name],
        "device": backend.devices()[0],
        "platform": versions["platform"],
        "seed": recipe.training.seed,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - started, 1),
    }
