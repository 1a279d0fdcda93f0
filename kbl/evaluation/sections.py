"""What an evaluation measures beside its attacks: transfer, certificates, a curve over ε, probes, detection."""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from keras import ops

from kbl.attacks import Progress, predict, standard
from kbl.attacks.prediction import is_right
from kbl.certification import certify
from kbl.evaluation.detection import detection, detection_attacks, rejection
from kbl.evaluation.judge import Judge, Trial
from kbl.evaluation.probes import Probes, probe
from kbl.evaluation.result import AttackResult
from kbl.layers import has_gmm_head
from kbl.typing import Network, Norm, Tensor

_PROBED = 128  # images
_FOR_GAUSSIAN_HEADS = ("adaptive", "detection")  # names of attacks that look at the likelihood


def transferred(
    judge: Judge, substitute: Network, named: list[tuple[str, Any]], epsilon: float | None, norm: Norm
) -> dict[str, Any]:
    """Craft on the substitute with every attack by gradients, to the last step; score on the network."""
    crafting = [
        (label, replace(attack, early_stop=False))
        for label, attack in named
        if hasattr(attack, "early_stop") and attack.name not in _FOR_GAUSSIAN_HEADS
    ]
    if not crafting and epsilon is not None:
        pairs = standard(epsilon, norm)[0].parts(judge.logits.shape[1])[:1]
        crafting = [(attack.label, replace(attack, early_stop=False)) for attack in pairs]
    robust = judge.right.copy()
    results: list[AttackResult] = []
    for number, (label, attack) in enumerate(crafting):
        trial = judge.trial(f"transfer.{number}", f"{label} (substitute)", attack, judge.right, substitute)
        robust &= trial.stands
        results.append(replace(judge.result(label, attack, trial), worst=float(robust.mean())))
    logits = predict(substitute, judge.images, judge.batch_size)
    return {
        "substitute": substitute.name,
        "clean": float(is_right(logits, judge.labels).mean()),
        "robust": float(robust.mean()),
        "attacks": [asdict(result) for result in results],
    }


def certified(judge: Judge, epsilon: float) -> dict[str, Any]:
    """Certify what is right unattacked."""
    started = time.perf_counter()
    rows = np.flatnonzero(judge.right)

    def listen(done: int, total: int) -> None:
        if judge.progress is not None:
            judge.progress("certificates", Progress(done, total, total))

    def find() -> dict[str, Any]:
        images, labels = judge.images[rows], judge.labels[rows]
        held = certify(judge.network, images, labels, epsilon, progress=listen) if len(rows) else rows
        return {"count": int(held.sum()), "seconds": time.perf_counter() - started}

    found = judge.ledger.record("certified", find)
    accuracy = found["count"] / len(judge.images)
    return {"epsilon": epsilon, "norm": "linf", "accuracy": accuracy, "seconds": found["seconds"]}


def curve(judge: Judge, named: list[tuple[str, Any]], epsilons: Sequence[float]) -> list[dict[str, Any]]:
    """Return robust accuracy at each ε under one attack, its step size scaled along, and what that attack is called.

    It is the first attack, or part of an ensemble, that has an ε and more than one step, and is not made for one head.
    """
    single = [pair for label, attack in named for pair in _single(label, attack, judge.logits.shape[1])]
    fitting = [(label, attack) for label, attack in single if _takes_steps(attack)]
    if not fitting:
        return []
    label, first = fitting[0]
    points = []
    for number, epsilon in enumerate(epsilons):
        changes = {"epsilon": epsilon}
        if hasattr(first, "step_size"):
            changes["step_size"] = first.step_size * epsilon / first.epsilon
        trial = judge.trial(f"curve.{number}", f"ε = {epsilon:.3g}", replace(first, **changes), judge.right)
        points.append({"epsilon": epsilon, "accuracy": float(trial.stands.mean()), "attack": label})
    return points


def _single(label: str, attack: Any, classes: int) -> list[tuple[str, Any]]:
    """Return the attack, or the parts of an ensemble, with their labels."""
    if hasattr(attack, "parts"):
        return [(part.label, part) for part in attack.parts(classes)]
    return [(label, attack)]


def _takes_steps(attack: Any) -> bool:
    is_for_any_head = attack.name not in _FOR_GAUSSIAN_HEADS
    return is_for_any_head and getattr(attack, "steps", 0) > 1 and bool(getattr(attack, "epsilon", None))


def probed(judge: Judge, epsilon: float | None, norm: Norm) -> Probes | None:
    """Return what the diagnostics look at, of the first images that are right."""
    rows = np.flatnonzero(judge.right)[:_PROBED]
    if len(rows) == 0:
        return None
    radius = epsilon or 8 / 255
    record = judge.ledger.record(
        "probes",
        lambda: asdict(
            probe(judge.network, judge.images[rows], judge.labels[rows], radius, norm, judge.seed)
        ),
    )
    return Probes(**record)


def for_detection(
    network: Network, epsilon: float | None, norm: Norm, quantile: float | None
) -> list[tuple[str, Any]]:
    """Return the attacks by which detection is measured.

    Raises:
        ValueError: the quantile is not in [0, 1), the head is not Gaussian, or there is no ε.
    """
    if quantile is not None and not 0 <= quantile < 1:
        raise ValueError(f"reject_below must be in [0, 1). Received: reject_below={quantile}")
    if not has_gmm_head(network):
        raise ValueError("Detection by likelihood needs a network that ends with kbl.layers.GMMHead")
    if epsilon is None:
        raise ValueError("Detection needs an epsilon, or an attack that has one")
    return list(detection_attacks(epsilon, norm))


def by_likelihood(
    judge: Judge,
    tried: list[tuple[Any, AttackResult, Trial]],
    quantile: float | None,
    calibration: Tensor | None,
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the sections "detection" and "rejection", where they were asked for."""
    top = judge.logits.max(axis=1).astype(float)
    fools = {
        result.label: trial.top[judge.right & ~trial.stands]
        for attack, result, trial in tried
        if attack.name == "detection"
    }
    detected = detection(top, fools) if fools else None
    if quantile is None:
        return detected, None
    known, words = top, f"{len(top):,} of these same clean images"
    if calibration is not None:
        images = np.asarray(ops.convert_to_numpy(calibration), "float32")
        known = predict(judge.network, images, judge.batch_size).max(axis=1)
        words = f"{len(known):,} known clean images"
    attacked = [
        (result.label, trial.stands, trial.top)
        for attack, result, trial in tried
        if getattr(attack, "epsilon", None) is not None
    ]
    return detected, rejection(quantile, known, words, top, judge.right, attacked)
