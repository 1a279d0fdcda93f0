"""From a recipe to a run folder: objects, fit, evaluate, report. The one file that knows every room."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console

from kbl import backend, evaluation, feature_picture, gallery, purification, report, run_folder
from kbl import recipe as recipes
from kbl.data import load as load_data
from kbl.errors import UserError
from kbl.files import atomic, write_text
from kbl.fitting import inside, train
from kbl.from_recipe import chosen, to_attacks
from kbl.judging import judge, warned_of_overfitting, with_substitute
from kbl.saved_model import have_same_weights, load_network
from kbl.training import Recorder

_RECORDS = "evaluation.progress.jsonl"


def run(
    recipe: recipes.Recipe, folder: Path, *, resume: bool = False, force: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Train, evaluate and report; return the content of ``evaluation.json``.

    Args:
        recipe: what to do.
        folder: an existing folder to write to.
        resume: go on from the folder's checkpoint, if there is one; it is of this recipe.
        force: empty the folder, once the data are read: what cannot start takes no earlier run away.
        quiet: draw no progress.

    Raises:
        UserError: the data cannot be had, or do not fit the recipe.
        DivergenceError: training ran away; the folder keeps the last good epoch.
    """
    console = Console(quiet=quiet)
    started = time.perf_counter()
    keras.utils.set_random_seed(recipe.training.seed)
    keras.config.set_dtype_policy(recipe.training.precision)
    backend.allow_tf32(recipe.training.tf32)
    dataset = load_data(recipe.data.name, recipe.data.limit)
    if force:
        run_folder.empty(folder)
    write_text(folder / "recipe.toml", recipes.to_toml(recipe))
    environment = _environment(recipe, started)
    write_text(folder / "environment.json", json.dumps(environment, indent=2) + "\n")
    model = train(recipe, dataset, folder, resume=resume, quiet=quiet)
    network = model.network
    if "radii" in model.method.memory:
        with atomic(folder / "radii.npy") as path:
            np.save(path, keras.ops.convert_to_numpy(model.method.memory["radii"]))
    settings = recipe.evaluation
    substitute, naming = None, ""
    if recipe.purifier is not None:
        substitute, naming = network, "the network without its purifier"
        network = purification.purified(network, recipe, dataset, folder, resume=resume, say=console.print)
    if settings.substitute is not None:
        seed, place = settings.substitute.seed, inside(folder, "substitute")
        naming = f"the same recipe, seed {seed}"
        substitute = _train_substitute(recipe, seed, dataset, place, resume=resume, quiet=quiet)
    records = folder / _RECORDS
    named = to_attacks(settings.attacks, network)
    result = judge(
        network,
        dataset,
        settings,
        named,
        console,
        substitute=substitute,
        records=records,
        resume=resume,
    )
    if naming:
        result = with_substitute(result, naming)
    if recipe.training.probe is not None and getattr(recipe.method, "attack", None) is not None:
        result = warned_of_overfitting(result, recipe.training.probe, network, folder)
    shown = [attack for _, attack in named if not getattr(attack, "targeted", False)]
    if shown:
        attack = next((attack for attack in shown if attack.name == "pgd"), shown[0])
        gallery.write(folder / "gallery.npz", network, dataset, attack, settings.seed)
        feature_picture.write(folder / "features.npz", network, dataset, attack, settings.seed)
    result.save(folder / "evaluation.json")
    environment = _environment(recipe, started)
    write_text(folder / "environment.json", json.dumps(environment, indent=2) + "\n")
    report.write(folder)
    Recorder(folder, "").remove_checkpoint()
    records.unlink(missing_ok=True)
    return result.to_dict()


def _train_substitute(
    recipe: recipes.Recipe, seed: int, dataset: Any, folder: Path, *, resume: bool, quiet: bool
) -> Any:
    """Train the network that black-box attacks are crafted on: the same recipe from another seed."""
    training = recipe.training.model_copy(update={"seed": seed})
    changed = recipe.model_copy(update={"training": training})
    return train(changed, dataset, folder, resume=resume, quiet=quiet).network


def evaluate(
    path: Path,
    *,
    data: str | None = None,
    attacks: Sequence[recipes.Attack | str] = (),
    samples: int | None = None,
    scale: float = 1.0,
    substitute: Path | None = None,
    detect: bool = False,
    reject_below: float | None = None,
    certified_epsilon: float | None = None,
    diagnostics: bool = True,
    records: Path | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Evaluate a run folder or any ``.keras`` file; return what ``evaluation.json`` holds.

    A GPU multiplies float32 in TensorFloat-32 if the run's recipe allows it, else, and for a file, in full.

    Args:
        path: a run folder, whose recipe gives what is not given here, or a ``.keras`` file.
        data: data set or ``.npz`` file; needed where there is no run folder.
        attacks: attacks in place of the recipe's; "paper" stands for the recipe's own, "standard" for the standard list
            at the radius that the recipe names.
        samples: first test images only.
        scale: what the model wants pixels multiplied by: 255 for pixels in [0, 255].
        substitute: a run folder or ``.keras`` file of a network trained independently, for black-box attacks.
        detect: measure detection by likelihood.
        reject_below: quantile of the training images' likelihood below which an image is rejected.
        certified_epsilon: L∞ radius within which images are certified.
        diagnostics: look for signs that the evaluation flatters.
        records: a file that is written after every batch.
        resume: go on with that file.
        quiet: draw no progress.

    Raises:
        UserError: the file is no model that Keras' safe mode loads, or data or attacks are missing or do not fit, or
            the substitute is the model itself.
    """
    settings, recipe = recipes.Evaluation(), None
    if (path / "recipe.toml").is_file():
        recipe = recipes.load(str(path / "recipe.toml"))
        settings, data = recipe.evaluation, data or recipe.data.name
    if data is None:
        raise UserError(
            f"{path} comes without a recipe: name its data by --data: digits, mnist, cifar10, cifar100 or a .npz file"
        )
    described = chosen(path, attacks or ["paper"], recipe)
    backend.allow_tf32(recipe is not None and recipe.training.tf32)
    dataset = load_data(data)
    changes: dict[str, Any] = {
        "samples": samples or settings.samples,
        "diagnostics": diagnostics,
        "epsilons": (),
    }
    changes |= {"detect": detect, "reject_below": reject_below, "certified_epsilon": certified_epsilon}
    try:
        network = _load(path, dataset, scale)
        other = None if substitute is None else _load(substitute, dataset, scale)
        if other is not None and have_same_weights(network, other):
            raise UserError(
                f"--substitute: expected a network trained independently. Received: {substitute}, whose weights are "
                f"those of {path}; train another one, such as by kbl run … --set training.seed=1"
            )
        result = judge(
            network,
            dataset,
            settings.model_copy(update=changes),
            to_attacks(described, network),
            Console(quiet=quiet),
            substitute=other,
            records=records,
            resume=resume,
        )
    except ValueError as error:
        raise UserError(f"{path} cannot be evaluated on {dataset.name}: {error}") from error
    if substitute is not None:
        result = with_substitute(result, str(substitute))
    if records is not None:
        records.unlink(missing_ok=True)
    return result.to_dict()


def _load(path: Path, dataset: Any, scale: float) -> Any:
    return evaluation.as_network(load_network(path), dataset.x_test, scale=scale)


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
