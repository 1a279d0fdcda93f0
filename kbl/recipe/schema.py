"""What a recipe may say: its sections, their keys, ranges and defaults."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kbl.recipe.attacks import Attack
from kbl.recipe.combinations import combination_faults
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
    tf32: Flag = False  # a GPU may multiply float32 matrices in TensorFloat-32: faster, 10 bits of mantissa
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
