"""Which attacks of an evaluation may be compared with each other, and what one kind fools beyond another."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from kbl.evaluation.result import AttackResult

_WITHOUT_GRADIENTS = ("square", "uniform_noise", "gaussian_noise")
_OF_A_LOSS = ("pgd", "cw", "apgd", "bim")

Kind = Callable[[AttackResult], bool]


def ball(attack: AttackResult) -> tuple[Any, Any]:
    """Return the norm and ε of an attack; what it does can only be compared within them."""
    return attack.parameters.get("norm"), attack.parameters.get("epsilon")


def fooled_after(parts: Sequence[AttackResult], failed: Kind, fools: Kind) -> float:
    """Return the share of images that one kind of parts fools after another kind failed on them in the same ball.

    Args:
        parts: of an ensemble; the accuracy of each is what is left right after it.
        failed: tells the kind that comes before.
        fools: tells the kind whose images are counted.
    """
    fooled: dict[Any, float] = {}
    for before, part in pairwise(parts):
        if failed(before):
            fooled.setdefault(ball(before), 0.0)
        if fools(part) and ball(part) in fooled:
            fooled[ball(part)] += before.accuracy - part.accuracy
    return max(fooled.values(), default=0.0)


def loss_of(attack: AttackResult) -> str | None:
    """Return the loss that an untargeted attack raises step by step, or None where it is another attack."""
    is_of_a_loss = attack.name in _OF_A_LOSS and not attack.parameters.get("targeted")
    return attack.parameters["loss"] if is_of_a_loss else None


def is_square(attack: AttackResult) -> bool:
    """Tell whether the attack asks for scores alone."""
    return attack.name == "square"


def is_by_gradients(attack: AttackResult) -> bool:
    """Tell whether the attack follows gradients; noise does not, nor does Square."""
    return attack.name not in _WITHOUT_GRADIENTS


def is_on_cross_entropy(attack: AttackResult) -> bool:
    """Tell whether the attack raises cross-entropy."""
    return loss_of(attack) == "cross_entropy"


def is_on_margin(attack: AttackResult) -> bool:
    """Tell whether the attack raises the margin or its quotient DLR."""
    return loss_of(attack) in ("margin", "dlr")
