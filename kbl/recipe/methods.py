"""The training methods that a recipe may name, with the ranges and defaults of their fields."""

from typing import Annotated, Literal

from pydantic import Field

from kbl.recipe.attacks import TrainingAttack
from kbl.recipe.fields import Count, Fraction01, NonNegative, Positive, Section, Seed, Share
from kbl.recipe.networks import Network


class WeightPerturbation(Section):
    """Adversarial weight perturbation (AWP), for any method."""

    gamma: Positive = 0.005
    warmup_epochs: NonNegative = 0.0  # taken without it


class _Method(Section):
    label_smoothing: Fraction01 = 0.0
    weight_perturbation: WeightPerturbation | None = None


class Natural(_Method):
    """Training on clean images."""

    name: Literal["natural"] = "natural"


class LGM(_Method):
    """The large-margin Gaussian mixture loss on clean images."""

    name: Literal["lgm"] = "lgm"
    margin: NonNegative = 0.3
    likelihood_weight: NonNegative = 0.1


class CenterLoss(_Method):
    """Cross-entropy and the distance of each feature to its class' centre."""

    name: Literal["center_loss"] = "center_loss"
    weight: NonNegative = 0.003
    centre_rate: Share = 0.5


class DefensiveDistillation(_Method):
    """Training on the softened predictions of a teacher, which is trained first."""

    name: Literal["defensive_distillation"] = "defensive_distillation"
    temperature: Positive = 20.0


class _Adversarial(_Method):
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


class IAAT(_Adversarial):
    """Instance adaptive adversarial training: a radius of its own for each image."""

    name: Literal["iaat"] = "iaat"
    examples: Literal["adversarial", "clean and adversarial"] = "adversarial"
    gamma: Positive
    beta: Share = 0.1
    fixed_epochs: NonNegative = 0.0  # the attack's ε for all images during so many first epochs


class PATDA(_Adversarial):
    """Adversarial training with domain adaptation."""

    name: Literal["patda"] = "patda"
    adaptation_weight: NonNegative = Field(default=1 / 3)
    centre_rate: Share = 0.1


class TRADES(_Adversarial):
    """Cross-entropy on clean images and the divergence of the predictions for both."""

    name: Literal["trades"] = "trades"
    beta: NonNegative = 6.0


class MART(_Adversarial):
    """Misclassification-aware adversarial training."""

    name: Literal["mart"] = "mart"
    regularization_weight: NonNegative = 5.0


class CertifiedTraining(_Method):
    """Training on a bound of the worst case within ε."""

    name: Literal["certified_training"] = "certified_training"
    epsilon: Positive
    norm: Literal["linf", "l2"] = "linf"


class Source(Section):
    """A network trained beforehand on clean images, to craft on."""

    network: Network
    seed: Seed
    epochs: Count | None = None  # by default as many as the recipe's


class EnsembleAdversarialTraining(_Adversarial):
    """Adversarial images from other, fixed networks too."""

    name: Literal["ensemble_adversarial_training"] = "ensemble_adversarial_training"
    sources: tuple[Source, ...] = Field(min_length=1)


Method = Annotated[
    Natural
    | LGM
    | CenterLoss
    | DefensiveDistillation
    | AdversarialTraining
    | ATBLR
    | IAAT
    | PATDA
    | TRADES
    | MART
    | EnsembleAdversarialTraining
    | CertifiedTraining,
    Field(discriminator="name"),
]
