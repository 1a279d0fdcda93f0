"""What does not go together in a recipe, and why."""

from typing import Any

from kbl.recipe.attacks import GAUSSIAN_LOSSES


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
