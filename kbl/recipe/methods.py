"""The training methods that a recipe may name, with the ranges and defaults of their fields."""

from typing import Annotated, Literal

from pydantic import Field

from kbl.recipe.attacks import TrainingAttack
from kbl.recipe.fields import NonNegative, Positive, Section


class Natural(Section):
    """Training on clean images."""

    name: Literal["natural"] = "natural"


class _Adversarial(Section):
    attack: TrainingAttack
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
