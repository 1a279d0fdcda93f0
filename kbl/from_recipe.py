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
from kbl.layers import RandomFlipCrop
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


def to_attack(attack: recipes.Attack) -> Any:
    """Return the attack that a recipe describes."""
    return _ATTACKS[attack.name](**attack.model_dump(exclude={"name", "label"}))


def to_attacks(described: Iterable[recipes.Attack], *, gaussian_head: bool) -> list[tuple[str, Any]]:
    """Return labels and attacks; what the recipe calls "standard" becomes `kbl.attacks.standard`.

    Args:
        described: the recipe's attacks.
        gaussian_head: whether the network ends with a Gaussian head.

    Raises:
        UserError: an attack's loss needs a Gaussian head, and there is none.
    """
    found: list[tuple[str, Any]] = []
    for attack in described:
        loss = getattr(attack, "loss", None)
        if loss in recipes.GAUSSIAN_LOSSES and not gaussian_head:
            raise UserError(f'loss="{loss}" needs a network that ends with kbl.layers.GMMHead')
        if attack.name == "standard":
            several = attacks.standard(attack.epsilon, attack.norm, gaussian_head=gaussian_head)
            found += [(each.label, each) for each in several]
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


def to_method(method: recipes.Method, warmup_steps: int = 0) -> methods.Method:
    """Return the training method that a recipe describes."""
    fields = method.model_dump(exclude={"name", "attack"})
    if method.name == "natural":
        return methods.Natural(**fields)
    kinds: dict[str, Any] = {"adversarial_training": methods.AdversarialTraining, "atblr": methods.ATBLR}
    built: methods.Method = kinds[method.name](
        attack=to_attack(method.attack), warmup_steps=warmup_steps, **fields
    )
    return built


def to_model(recipe: recipes.Recipe, dataset: Any, steps_an_epoch: int) -> RobustModel:
    """Return the compiled model that a recipe describes, for a `kbl.data.Dataset`."""
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
    method = to_method(recipe.method, round(training.epsilon_warmup_epochs * steps_an_epoch))
    model.compile(_optimizer(training, steps_an_epoch), method=method, jit_compile=_jit_compile())
    return model


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
    if training.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=training.momentum, weight_decay=decay)
    if training.optimizer == "adamw":
        return keras.optimizers.AdamW(rate, weight_decay=training.weight_decay)
    return keras.optimizers.Adam(rate, weight_decay=decay)


def _jit_compile() -> Any:
    """XLA where it is the backend's compiler; TensorFlow's own kernels are quicker on a CPU."""
    return False if keras.config.backend() == "tensorflow" else "auto"
