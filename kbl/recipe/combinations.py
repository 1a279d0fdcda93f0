"""What does not go together in a recipe, and why."""

from collections.abc import Sequence
from typing import Any

from kbl.recipe.attacks import GAUSSIAN_LOSSES
from kbl.recipe.fields import to_number


def combination_faults(recipe: Any) -> list[tuple[str, str]]:
    """List what does not go together, as (dotted key, reason).

    Works on plain, possibly faulty tables, so that these faults are told together with all others.
    """
    return [
        *_head_faults(recipe),
        *_method_faults(recipe),
        *_probe_faults(recipe),
        *_detection_faults(recipe),
        *_certificate_faults(recipe),
        *_purifier_faults(recipe),
        *_substitute_faults(recipe),
    ]


def _head_faults(recipe: Any) -> list[tuple[str, str]]:
    """What needs the Gaussian head though the head is dense, or its identity covariance though it learns another."""
    head, method = _get(recipe, "network", "head"), _get(recipe, "method", "name")
    losses = {"method.attack.loss": _get(recipe, "method", "attack", "loss")}
    for index, attack in enumerate(_attacks(recipe)):
        losses[f"evaluation.attacks.{index}.loss"] = _get(attack, "loss")
    losses["training.probe.loss"] = _get(recipe, "training", "probe", "loss")
    if head == "gmm_diagonal":
        needy = ["method.name"] if method == "atblr" else []
        needy += [key for key, loss in losses.items() if loss == "distance_margin"]
        reason = (
            "needs squared distances, -2 times the logits of an identity covariance; with log det Σ they may be "
            'negative; network.head is "gmm_diagonal", set it to "gmm"'
        )
        return [(key, reason) for key in needy]
    if head != "dense":
        return []
    needy = ["method.name"] if method in ("atblr", "lgm") else []
    needy += [key for key, loss in losses.items() if loss in GAUSSIAN_LOSSES]
    needy += [f"evaluation.{key}" for key in _detecting(recipe)]
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
    if name == "iaat" and _is_zero(_get(attack, "epsilon")):
        faults.append(("method.attack.epsilon", "IAAT's radii begin there and scale with it; set it above 0"))
    return faults


def _probe_faults(recipe: Any) -> list[tuple[str, str]]:
    """What the attack after each epoch may not be."""
    probe, faults = _get(recipe, "training", "probe"), []
    if probe and _get(recipe, "training", "validation_split") == 0:
        faults.append(("training.probe", "attacks validation images; set training.validation_split above 0"))
    if _get(probe, "name") in ("standard", "autoattack"):
        reason = (
            'is a list of attacks, and the probe is one after each epoch; take one, such as "pgd" or "apgd"'
        )
        faults.append(("training.probe.name", reason))
    if _get(probe, "targeted"):
        faults.append(
            ("training.probe.targeted", "the probe leads images away from their labels; leave it out")
        )
    return faults


def _detection_faults(recipe: Any) -> list[tuple[str, str]]:
    """What is measured at the ε of an attack though there is none."""
    radii = [_get(attack, "epsilon") for attack in _attacks(recipe)]
    if any(radius is not None and not _is_zero(radius) for radius in radii):
        return []
    reason = "is measured at the ε of an attack; give evaluation.attacks one with an ε above 0"
    return [(f"evaluation.{key}", reason) for key in _detecting(recipe)]


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


def _substitute_faults(recipe: Any) -> list[tuple[str, str]]:
    """A substitute that would be the network itself."""
    seed, own = _get(recipe, "evaluation", "substitute", "seed"), _get(recipe, "training", "seed") or 0
    if seed is None or seed != own:
        return []
    reason = "trains the network itself again, and attacks on it are no black box; take another seed than training.seed"
    return [("evaluation.substitute.seed", reason)]


def _attacks(recipe: Any) -> Sequence[Any]:
    attacks = _get(recipe, "evaluation", "attacks")
    return attacks if isinstance(attacks, list | tuple) else ()


def _detecting(recipe: Any) -> list[str]:
    """Which keys of the evaluation ask for scores by likelihood."""
    return [key for key in ("detect", "reject_below") if _get(recipe, "evaluation", key) not in (None, False)]


def _is_zero(value: Any) -> bool:
    try:
        return bool(to_number(value) == 0)
    except ValueError:  # another fault, told elsewhere
        return False


def _get(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
