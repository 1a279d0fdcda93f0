"""Recipe to objects: what a recipe describes, built."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kbl import attacks, methods, networks
from kbl import recipe as recipes
from kbl.errors import UserError
from kbl.evaluation import standard_for
from kbl.layers import RandomFlipCrop, has_gmm_head
from kbl.training import RobustModel

_ATTACKS: dict[str, Any] = {
    "fgsm": attacks.FGSM,
    "bim": attacks.BIM,
    "pgd": attacks.PGD,
    "cw": attacks.CarliniWagnerLinf,
    "carlini_wagner": attacks.CarliniWagner,
    "apgd": attacks.APGD,
    "fab": attacks.FAB,
    "square": attacks.Square,
    "jsma": attacks.JSMA,
    "lbfgs": attacks.LBFGS,
    "uniform_noise": attacks.UniformNoise,
    "gaussian_noise": attacks.GaussianNoise,
    "autoattack": attacks.AutoAttack,
}

_METHODS: dict[str, Any] = {
    "natural": methods.Natural,
    "lgm": methods.LGM,
    "center_loss": methods.CenterLoss,
    "defensive_distillation": methods.DefensiveDistillation,
    "adversarial_training": methods.AdversarialTraining,
    "atblr": methods.ATBLR,
    "iaat": methods.IAAT,
    "patda": methods.PATDA,
    "trades": methods.TRADES,
    "mart": methods.MART,
    "certified_training": methods.CertifiedTraining,
    "ensemble_adversarial_training": methods.EnsembleAdversarialTraining,
}


def to_attack(attack: recipes.Attack) -> Any:
    """Return the attack that a recipe describes."""
    return _ATTACKS[attack.name](**attack.model_dump(exclude={"name", "label"}))


def to_attacks(described: Iterable[recipes.Attack], network: Any) -> list[tuple[str, Any]]:
    """Return labels and attacks on a network; "standard" becomes the standard list for it.

    Args:
        described: the recipe's attacks.
        network: what is attacked.

    Raises:
        UserError: an attack's loss needs a Gaussian head, or one of another covariance than the network's.
    """
    found: list[tuple[str, Any]] = []
    for attack in described:
        loss = getattr(attack, "loss", None)
        if loss in recipes.GAUSSIAN_LOSSES and not has_gmm_head(network):
            raise UserError(f'loss="{loss}" needs a network that ends with kbl.layers.GMMHead')
        if loss == "distance_margin" and has_gmm_head(network, "diagonal"):
            raise UserError(
                f'loss="{loss}" needs the identity covariance, and the network learns a diagonal one; take "margin"'
            )
        if attack.name == "standard":
            found += [(each.label, each) for each in standard_for(network, attack.epsilon, attack.norm)]
        else:
            built = to_attack(attack)
            found.append((attack.label or built.label, built))
    return found


def chosen(
    path: Path, given: Sequence[recipes.Attack | str], recipe: recipes.Recipe | None
) -> list[recipes.Attack]:
    """Replace "paper" and "standard" by what a run's recipe makes of them.

    Args:
        path: what is evaluated, for messages.
        given: attacks, "paper" for the recipe's own, "standard" for the standard list at the radius it names.
        recipe: the run's, or None for a model without one.

    Raises:
        UserError: the recipe that they need is not there, or names no attack or radius.
    """
    found: list[recipes.Attack] = []
    for attack in given:
        if attack == "paper":
            if recipe is None or not recipe.evaluation.attacks:
                raise UserError(
                    f"{path} comes without attacks: give some by --attack, such as standard:epsilon=8/255"
                )
            found += recipe.evaluation.attacks
        elif attack == "standard":
            trained = (
                [] if recipe is None else [getattr(recipe.method, "attack", None), *recipe.evaluation.attacks]
            )
            ball: Any = next((each for each in trained if getattr(each, "epsilon", None)), None)
            if ball is None:
                raise UserError(f"{path} names no ε: give it by --attack standard:epsilon=8/255")
            found.append(recipes.Standard(epsilon=ball.epsilon, norm=getattr(ball, "norm", "linf")))
        else:
            assert not isinstance(attack, str)
            found.append(attack)
    return found


def to_method(
    method: recipes.Method,
    *,
    steps_an_epoch: int,
    images: int,
    epsilon_warmup_epochs: float = 0.0,
    companions: Sequence[Any] = (),
) -> methods.Method:
    """Return the training method that a recipe describes.

    Args:
        method: the recipe's.
        steps_an_epoch: what epochs are turned into steps by.
        images: number of training images.
        epsilon_warmup_epochs: over which ε grows.
        companions: the trained networks that it needs beside its own, in the order of `companion_recipes`.
    """
    given = method.model_dump(exclude={"name", "attack", "weight_perturbation"})
    if getattr(method, "attack", None) is not None:
        given["attack"] = to_attack(method.attack)  # type: ignore[union-attr]
    if getattr(method, "attack", None) is not None or method.name == "certified_training":
        given["warmup_steps"] = round(epsilon_warmup_epochs * steps_an_epoch)
    if method.name == "iaat":
        given["images"] = images
        given["fixed_steps"] = round(given.pop("fixed_epochs") * steps_an_epoch)
    if method.name == "ensemble_adversarial_training":
        given["sources"] = tuple(companions)
    if method.name == "defensive_distillation" and companions:
        given["teacher"] = companions[0]
    built: methods.Method = _METHODS[method.name](**given)
    return built


def companion_recipes(recipe: recipes.Recipe) -> dict[str, recipes.Recipe]:
    """Return the recipes of the networks that the method needs trained beforehand, by the name of their folder."""
    method, training = recipe.method, recipe.training
    if method.name == "defensive_distillation":
        return {"teacher": recipe}
    if method.name != "ensemble_adversarial_training":
        return {}
    return {
        f"source-{number}": recipe.model_copy(
            update={
                "network": source.network,
                "method": recipes.Natural(),
                "training": training.model_copy(
                    update={"seed": source.seed, "epochs": source.epochs or training.epochs, "probe": None}
                ),
            }
        )
        for number, source in enumerate(method.sources)
    }


def to_model(
    recipe: recipes.Recipe, dataset: Any, *, steps_an_epoch: int, images: int, companions: Sequence[Any] = ()
) -> RobustModel:
    """Return the compiled model that a recipe describes, for a `kbl.data.Dataset`; see `to_method`."""
    training = recipe.training
    network = networks.build(
        recipe.network.name,
        num_classes=dataset.num_classes,
        image_shape=dataset.image_shape,
        seed=training.seed,
        **recipe.network.model_dump(exclude={"name"}),
    )
    wanted = recipe.data.augmentation
    augmentation = None
    if wanted.mirror or wanted.crop_padding:
        augmentation = RandomFlipCrop(**wanted.model_dump(), seed=training.seed)
    model = RobustModel(network, augmentation, seed=training.seed)
    method = to_method(
        recipe.method,
        steps_an_epoch=steps_an_epoch,
        images=images,
        epsilon_warmup_epochs=training.epsilon_warmup_epochs,
        companions=companions,
    )
    model.compile(
        _optimizer(training, steps_an_epoch),
        method=method,
        weight_perturbation=_weight_perturbation(recipe.method, steps_an_epoch),
        jit_compile=_jit_compile(),
    )
    return model


def _weight_perturbation(method: recipes.Method, steps_an_epoch: int) -> methods.AWP | None:
    wanted = method.weight_perturbation
    if wanted is None:
        return None
    return methods.AWP(gamma=wanted.gamma, warmup_steps=round(wanted.warmup_epochs * steps_an_epoch))


def split(dataset: Any, training: recipes.Training) -> tuple[tuple[Any, Any], tuple[Any, Any] | None]:
    """Set aside validation images by the seed, in whole batches where that is at least one."""
    count = round(len(dataset.x_train) * training.validation_split)
    if count >= training.batch_size:
        count -= count % training.batch_size
    order = np.random.Generator(np.random.PCG64([training.seed, 0x5EED])).permutation(len(dataset.x_train))
    held, kept = np.sort(order[:count]), np.sort(order[count:])
    if len(kept) == 0:
        raise UserError("training.validation_split leaves no images to train on")
    validation = (dataset.x_train[held], dataset.y_train[held]) if count else None
    return (dataset.x_train[kept], dataset.y_train[kept]), validation


def _optimizer(training: recipes.Training, steps_an_epoch: int) -> Any:
    total = training.epochs * steps_an_epoch
    peak = training.learning_rate
    schedules = keras.optimizers.schedules
    rate: Any = peak
    if training.schedule == "cosine":
        rate = schedules.CosineDecay(peak, total)
    elif training.schedule == "one_cycle":
        rise = math.ceil(0.3 * total)
        rate = schedules.CosineDecay(peak / 25, max(total - rise, 1), warmup_target=peak, warmup_steps=rise)
    decay = training.weight_decay or None
    average: dict[str, Any] = {}
    if training.weight_averaging:
        average = {"use_ema": True, "ema_momentum": training.weight_averaging}
    if training.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=training.momentum, weight_decay=decay, **average)
    if training.optimizer == "adamw":
        return keras.optimizers.AdamW(rate, weight_decay=training.weight_decay, **average)
    return keras.optimizers.Adam(rate, weight_decay=decay, **average)


def _jit_compile() -> Any:
    """XLA where it is the backend's compiler; TensorFlow's own kernels are quicker on a CPU."""
    return False if keras.config.backend() == "tensorflow" else "auto"
