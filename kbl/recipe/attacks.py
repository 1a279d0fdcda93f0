"""The attacks that a recipe may name, with the ranges and defaults of their fields."""

from typing import Annotated, Any, Literal

from pydantic import Field

from kbl.recipe.fields import Count, CountFromZero, Flag, Fraction01, NonNegative, Number, Positive, Section

Norm = Literal["linf", "l2"]
Loss = Literal["cross_entropy", "margin", "dlr", "likelihood", "nearest_mean", "distance_margin"]

# What reads the logits as a Gaussian head's log-likelihoods.
GAUSSIAN_LOSSES = ("likelihood", "nearest_mean", "distance_margin")


def _step_size(given: dict[str, Any]) -> float:
    """Return 2.5 ε / steps, which crosses the ball with room to spare (Madry et al. 2018); any step will do at ε = 0.

    Where one of them is missing or wrong, which older pydantic does not wait for, that is the fault to report.
    """
    return 2.5 * given.get("epsilon", 0.0) / given.get("steps", 1) or 1.0


class _Attack(Section):
    label: str | None = None  # shown in tables


class _InBall(_Attack):
    epsilon: NonNegative
    norm: Norm = "linf"


class _Gradient(_InBall):
    loss: Loss = "cross_entropy"
    targeted: Flag = False


class FGSM(_Gradient):
    """One step of the fast gradient sign method."""

    name: Literal["fgsm"] = "fgsm"


class _Iterative(_Gradient):
    steps: Count
    step_size: Positive = Field(default_factory=_step_size)
    early_stop: Flag = True


class BIM(_Iterative):
    """The basic iterative method: steps from the clean image."""

    name: Literal["bim"] = "bim"


class PGD(_Iterative):
    """Projected gradient descent: steps from random places in the ball, the worst restart counts."""

    name: Literal["pgd"] = "pgd"
    restarts: Count = 1
    random_start: Flag = True


class CarliniWagnerLinf(_Attack):
    """PGD on Carlini & Wagner's loss in the L∞ ball, capped at the confidence κ."""

    name: Literal["cw"] = "cw"
    epsilon: NonNegative
    steps: Count = 40
    step_size: Positive = Field(default_factory=_step_size)
    kappa: NonNegative = 0.0
    restarts: Count = 1
    targeted: Flag = False
    early_stop: Flag = True


class CarliniWagner(_Attack):
    """Carlini & Wagner's search for the nearest adversarial image in L2."""

    name: Literal["carlini_wagner"] = "carlini_wagner"
    kappa: NonNegative = 0.0
    steps: Count = 1000
    binary_search_steps: Count = 9
    initial_c: Positive = 0.001
    learning_rate: Positive = 0.01
    targeted: Flag = False
    abort_early: Flag = True


class APGD(_Gradient):
    """Auto-PGD; with targets, towards so many other classes one after the other."""

    name: Literal["apgd"] = "apgd"
    steps: Count = 100
    restarts: Count = 1
    targets: CountFromZero = 0
    early_stop: Flag = True
    eot: Count = 1


class FAB(_Attack):
    """The fast adaptive boundary attack; without ε it looks for the nearest adversarial image."""

    name: Literal["fab"] = "fab"
    epsilon: NonNegative | None = None
    steps: Count = 100
    restarts: Count = 1
    targets: CountFromZero = 0
    norm: Norm = "linf"
    alpha_max: Positive = 0.1
    eta: Positive = 1.05
    beta: Fraction01 = 0.9


class Square(_InBall):
    """A random search that sees scores alone."""

    name: Literal["square"] = "square"
    queries: Count = 5000
    restarts: Count = 1
    p: Positive = 0.8
    targeted: Flag = False


class JSMA(_Attack):
    """Pairs of pixels by the Jacobian's saliency map."""

    name: Literal["jsma"] = "jsma"
    theta: Number = 1.0
    gamma: Positive = 0.1
    steps: Count = 1000
    targeted: Flag = False


class LBFGS(_Attack):
    """The first attack there was: the nearest adversarial image by limited-memory BFGS."""

    name: Literal["lbfgs"] = "lbfgs"
    steps: Count = 50
    binary_search_steps: Count = 15
    initial_c: Positive = 0.001
    history: Count = 5
    targeted: Flag = False


class UniformNoise(_Attack):
    """Noise drawn from the L∞ ball: the baseline that every attack must beat."""

    name: Literal["uniform_noise"] = "uniform_noise"
    epsilon: NonNegative
    draws: Count = 100
    targeted: Flag = False


class GaussianNoise(_Attack):
    """Normal noise of a standard deviation for each pixel."""

    name: Literal["gaussian_noise"] = "gaussian_noise"
    sigma: NonNegative
    draws: Count = 100
    targeted: Flag = False


class AutoAttack(_InBall):
    """AutoAttack: each of its parts tries what the earlier ones left."""

    name: Literal["autoattack"] = "autoattack"
    version: Literal["standard", "plus", "rand"] = "standard"


class Standard(_InBall):
    """AutoAttack, and for a Gaussian head the attacks made for it."""

    name: Literal["standard"] = "standard"


TrainingAttack = Annotated[FGSM | BIM | PGD, Field(discriminator="name")]
Attack = Annotated[
    FGSM
    | BIM
    | PGD
    | CarliniWagnerLinf
    | CarliniWagner
    | APGD
    | FAB
    | Square
    | JSMA
    | LBFGS
    | UniformNoise
    | GaussianNoise
    | AutoAttack
    | Standard,
    Field(discriminator="name"),
]
