"""What a recipe may say: its sections, their keys, ranges and defaults."""

from fractions import Fraction
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Backend: TypeAlias = Literal["torch", "jax", "tensorflow"]


def _expected(what: str) -> PydanticCustomError:
    return PydanticCustomError("expected", "Input should be {expected}", {"expected": what})


def _to_number(value: Any) -> Any:
    """Turn a fraction such as "8/255" into a float; leave other numbers as they are."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    try:
        return float(Fraction(*map(Fraction, value.split("/"))))
    except (AttributeError, TypeError, ValueError, ArithmeticError):
        raise _expected('a number or a fraction such as "8/255"') from None


def _check_data_name(name: str) -> str:
    if name in ("digits", "mnist") or name.endswith(".npz"):
        return name
    raise _expected("'digits', 'mnist' or a path ending in '.npz'")


def _check_name(name: str) -> str:
    if name.replace("-", "").replace(".", "").replace("_", "").isalnum() and name[0] != ".":
        return name
    raise _expected("letters, digits and any of . _ - (it names the run's folder)")


Number = Annotated[float, BeforeValidator(_to_number)]
NonNegative = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Fraction01 = Annotated[Number, Field(ge=0, lt=1)]
# Strict: neither true nor "5" is an integer, and neither 1 nor "yes" is a flag.
Count = Annotated[int, Field(ge=1, strict=True)]
CountFromZero = Annotated[int, Field(ge=0, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
DataName = Annotated[str, AfterValidator(_check_data_name)]
Name = Annotated[str, AfterValidator(_check_name)]


class Section(BaseModel):
    """A table of the recipe: immutable, and an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Gradient(Section):
    label: str | None = None  # shown in tables
    epsilon: NonNegative
    norm: Literal["linf", "l2"] = "linf"
    loss: Literal["cross_entropy", "margin", "dlr", "likelihood"] = "cross_entropy"
    targeted: Flag = False


class FGSM(_Gradient):
    """One step of the fast gradient sign method."""

    name: Literal["fgsm"] = "fgsm"


class _Iterative(_Gradient):
    steps: Count
    # 2.5 ε / steps crosses the ball with room to spare (Madry et al. 2018); any step will do where ε = 0.
    step_size: Positive = Field(default_factory=lambda given: 2.5 * given["epsilon"] / given["steps"] or 1.0)
    early_stop: Flag = True


class BIM(_Iterative):
    """The basic iterative method: steps from the clean image."""

    name: Literal["bim"] = "bim"


class PGD(_Iterative):
    """Projected gradient descent: steps from random places in the ball, the worst restart counts."""

    name: Literal["pgd"] = "pgd"
    restarts: Count = 1
    random_start: Flag = True


Attack = Annotated[FGSM | BIM | PGD, Field(discriminator="name")]


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


class Convnet(Section):
    """A plain convolutional network."""

    name: Literal["digits_convnet", "mnist_convnet", "mnist_small_convnet"]
    head: Literal["gmm", "dense"] = "gmm"
    batch_normalization: Flag = False


# A network with the same keys is one more name above; one with its own keys is a class, joined as in `Attack`.
Network = Convnet


class Natural(Section):
    """Training on clean images."""

    name: Literal["natural"] = "natural"


class _Adversarial(Section):
    attack: Attack
    batch_norm: Literal["joint", "separate"] = "joint"
    crafting_mode: Literal["inference", "training"] = "inference"


class AdversarialTraining(_Adversarial):
    """Cross-entropy on adversarial examples, or on them and the clean images in equal parts."""

    name: Literal["adversarial_training"] = "adversarial_training"
    examples: Literal["adversarial", "clean and adversarial"] = "adversarial"


class ATBLR(_Adversarial):
    """Adversarial training with bi-directional likelihood regularization."""

    name: Literal["atblr"] = "atblr"
    likelihood_weight: NonNegative
    bound: Positive | None = None
    gradient_through: Literal["features and means", "features", "means"] = "features and means"


Method = Annotated[Natural | AdversarialTraining | ATBLR, Field(discriminator="name")]


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


class Evaluation(Section):
    """How robustness is measured."""

    attacks: tuple[Attack, ...] = ()
    samples: Count | None = None  # the first test images only
    batch_size: Count = 256
    seed: Seed = 0
    epsilons: tuple[NonNegative, ...] = ()  # the curve of robust accuracy against ε


class Recipe(Section):
    """One experiment: data, network, method, training and evaluation."""

    name: Name
    description: str = ""
    backend: Backend | None = None
    data: Data
    network: Network
    method: Method
    training: Training
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _check_head(self) -> Self:
        for key, reason in head_faults(self.model_dump()):
            raise ValueError(f"{key}: {reason}")
        return self


def head_faults(recipe: Any) -> list[tuple[str, str]]:
    """List what needs the Gaussian head though the head is dense, as (dotted key, reason).

    Works on plain, possibly faulty tables, so that these faults are told together with all others.
    """
    if _get(recipe, "network", "head") != "dense":
        return []
    losses = {"method.attack.loss": _get(recipe, "method", "attack", "loss")}
    attacks = _get(recipe, "evaluation", "attacks")
    for index, attack in enumerate(attacks if isinstance(attacks, list | tuple) else ()):
        losses[f"evaluation.attacks.{index}.loss"] = _get(attack, "loss")
    needy = ["method.name"] if _get(recipe, "method", "name") == "atblr" else []
    needy += [key for key, loss in losses.items() if loss == "likelihood"]
    return [(key, 'needs the Gaussian head; network.head is "dense", set it to "gmm"') for key in needy]


def _get(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
