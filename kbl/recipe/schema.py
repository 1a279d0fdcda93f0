"""What a recipe may say: its sections, their keys, ranges and defaults."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from kbl.recipe.attacks import GAUSSIAN_LOSSES, Attack
from kbl.recipe.fields import (
    Backend,
    Count,
    CountFromZero,
    DataName,
    Flag,
    Fraction01,
    Name,
    NonNegative,
    Positive,
    Section,
    Seed,
)
from kbl.recipe.methods import Method
from kbl.recipe.networks import Network


class Augmentation(Section):
    """Random changes to each training image."""

    mirror: Flag = False
    crop_padding: CountFromZero = 0
    padding_mode: Literal["zero", "reflection"] = "zero"


class Data(Section):
    """The images: a source that kbl knows, or an .npz file of x_train, y_train, x_test and y_test."""

    name: DataName
    limit: Count | None = None  # the first training images only
    augmentation: Augmentation = Augmentation()


class Training(Section):
    """How the network is fitted."""

    epochs: Count
    batch_size: Count = 128
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Positive = 0.001
    momentum: Fraction01 = 0.9  # of sgd; the others ignore it
    weight_decay: NonNegative = 0.0
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    seed: Seed = 0
    validation_split: Fraction01 = 0.1
    epsilon_warmup_epochs: NonNegative = 0.0  # ε and the step size grow linearly over so many epochs
    weight_averaging: Fraction01 = 0.0  # momentum of the weights' moving average; 0 keeps the last step's
    probe: Attack | None = None  # attacks the validation images after each epoch


class Purifier(Section):
    """PixelDefend: a PixelCNN, trained on the clean images, purifies what the network is given."""

    epsilon: Positive  # how far a pixel may move
    levels: Annotated[Count, Field(ge=2)] = 256
    filters: Count = 32
    blocks: Count = 3
    epochs: Count = 20
    learning_rate: Positive = 0.002


class Substitute(Section):
    """A network trained as the recipe says but from another seed, to craft black-box attacks on."""

    seed: Seed


class Evaluation(Section):
    """How robustness is measured."""

    attacks: tuple[Attack, ...] = ()
    samples: Count | None = None  # the first test images only
    batch_size: Count = 256
    seed: Seed = 0
    epsilons: tuple[NonNegative, ...] = ()  # the curve of robust accuracy against ε
    diagnostics: Flag = True
    detect: Flag = False  # how well log-likelihood tells adversarial images
    reject_below: Fraction01 | None = (
        None  # quantile of training images' scores below which an image is rejected
    )
    certified_epsilon: Positive | None = None  # within which images are certified, not attacked (L∞)
    substitute: Substitute | None = None


class Recipe(Section):
    """One experiment: data, network, method, training, perhaps a purifier, and evaluation."""

    name: Name
    description: str = ""
    backend: Backend | None = None
    data: Data
    network: Network
    method: Method
    training: Training
    purifier: Purifier | None = None
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        for key, reason in combination_faults(self.model_dump()):
            raise ValueError(f"{key}: {reason}")
        return self


def combination_faults(recipe: Any) -> list[tuple[str, str]]:
    """List what does not go together, as (dotted key, reason).

    Works on plain, possibly faulty tables, so that these faults are told together with all others.
    """
    return [
        *_head_faults(recipe),
        *_method_faults(recipe),
        *_certificate_faults(recipe),
        *_purifier_faults(recipe),
    ]


def _head_faults(recipe: Any) -> list[tuple[str, str]]:
    """What needs the Gaussian head though the head is dense."""
    if _get(recipe, "network", "head") != "dense":
        return []
    losses = {"method.attack.loss": _get(recipe, "method", "attack", "loss")}
    attacks = _get(recipe, "evaluation", "attacks")
    for index, attack in enumerate(attacks if isinstance(attacks, list | tuple) else ()):
        losses[f"evaluation.attacks.{index}.loss"] = _get(attack, "loss")
    losses["training.probe.loss"] = _get(recipe, "training", "probe", "loss")
    needy = ["method.name"] if _get(recipe, "method", "name") in ("atblr", "lgm") else []
    needy += [key for key, loss in losses.items() if loss in GAUSSIAN_LOSSES]
    needy += [
        f"evaluation.{key}"
        for key in ("detect", "reject_below")
        if _get(recipe, "evaluation", key) not in (None, False)
    ]
    return [(key, 'needs the Gaussian head; network.head is "dense", set it to "gmm"') for key in needy]


def _method_faults(recipe: Any) -> list[tuple[str, str]]:
    """What a method and its attack or the training do not allow."""
    faults = []
    name, attack = _get(recipe, "method", "name"), _get(recipe, "method", "attack") or {}
    if name == "trades" and _get(attack, "loss") not in (None, "cross_entropy"):
        faults.append(
            (
                "method.attack.loss",
                'TRADES raises the divergence of predictions; it takes "cross_entropy" alone',
            )
        )
    if _get(attack, "targeted"):
        faults.append(("method.attack.targeted", "training crafts untargeted images; leave it out"))
    if _get(attack, "restarts") not in (None, 1):
        faults.append(("method.attack.restarts", "training crafts from one start; set it to 1"))
    if _get(recipe, "training", "probe") and _get(recipe, "training", "validation_split") == 0:
        faults.append(("training.probe", "attacks validation images; set training.validation_split above 0"))
    return faults


def _certificate_faults(recipe: Any) -> list[tuple[str, str]]:
    """What cannot be certified."""
    is_trained = _get(recipe, "method", "name") == "certified_training"
    if not is_trained and _get(recipe, "evaluation", "certified_epsilon") is None:
        return []
    key = "method.name" if is_trained else "evaluation.certified_epsilon"
    network = _get(recipe, "network") or {}
    faults = []
    if _get(network, "name") not in ("digits_convnet", "mnist_small_convnet"):
        faults.append(
            (
                key,
                'needs convolutions, dense layers and ReLU alone: "digits_convnet" or "mnist_small_convnet"',
            )
        )
    if _get(network, "head") == "gmm_diagonal":
        faults.append((key, 'needs a head that is affine in the features: "gmm" or "dense"'))
    if is_trained and _get(network, "batch_normalization"):
        faults.append(
            (key, "is not defined for the statistics of a batch; leave network.batch_normalization out")
        )
    return faults


def _purifier_faults(recipe: Any) -> list[tuple[str, str]]:
    """What a network behind a purifier does not allow."""
    evaluation = _get(recipe, "evaluation") or {}
    if _get(recipe, "purifier") is None:
        return []
    reasons = {
        "substitute": "attacks that do not know of the purifier are crafted on the network without it; leave it out",
        "certified_epsilon": "purified images cannot be certified; leave it out",
    }
    return [(f"evaluation.{key}", why) for key, why in reasons.items() if _get(evaluation, key) is not None]


def _get(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
