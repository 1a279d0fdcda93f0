"""Robust accuracy: the pointwise worst case over attacks, and whether it can be trusted."""

import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from kbl.attacks import AttackWarning, Progress, predict, standard
from kbl.certification import certify
from kbl.evaluation.detection import detection, detection_attacks, rejection
from kbl.evaluation.diagnostics import Evidence, diagnose
from kbl.evaluation.judge import Judge, Listener, Trial, start
from kbl.evaluation.ledger import Ledger, fingerprint
from kbl.evaluation.probes import Probes, probe
from kbl.evaluation.result import AttackResult, Result
from kbl.evaluation.standard import standard_for
from kbl.evaluation.versions import versions
from kbl.layers import has_gmm_head
from kbl.typing import Network, Norm, Tensor

_PROBED = 128  # images


def evaluate(
    network: Network,
    x: Tensor,
    y: Tensor,
    attacks: Iterable[Any] | Literal["standard"] = "standard",
    *,
    epsilon: float | None = None,
    norm: Norm = "linf",
    epsilons: Sequence[float] = (),
    substitute: Network | None = None,
    diagnostics: bool = True,
    detect: bool = False,
    reject_below: float | None = None,
    certified_epsilon: float | None = None,
    calibration: Tensor | None = None,
    batch_size: int = 256,
    seed: int = 0,
    progress: Listener | None = None,
    records: Path | None = None,
    resume: bool = False,
) -> Result:
    """Measure a network's accuracy on clean images and under attacks, and look for signs that it flatters.

    A clean mistake counts as a mistake and is not attacked. Each attack tries every image that is right unattacked (the
    parts of `AutoAttack`: what the earlier parts left); an image is robust when all attacks with an ε leave it right.
    Images are predicted again from what the attacks return. A targeted attack aims at the likeliest wrong class of the
    clean image.

    Args:
        network: any Keras model that returns logits; see `as_network` for others.
        x: (N, ...) floats in [0, 1].
        y: (N,) labels, or (N, K) one-hot.
        attacks: attacks, or pairs of a label and an attack; "standard" is `kbl.attacks.standard`: AutoAttack and, where
            the head is Gaussian, attacks made for it.
        epsilon: radius of "standard"; for everything else, and by default, that of the first attack that has one.
        norm: norm of "standard".
        epsilons: radii of the curve of robust accuracy against ε; taken with the first attack of more than one step,
            its step size scaled along.
        substitute: a network trained independently; the attacks by gradients are crafted on it, too, and scored on this
            one (black box).
        diagnostics: run `kbl.evaluation.diagnostics`, which costs some passes over 128 images.
        detect: measure how well log-likelihood tells adversarial images; needs a Gaussian head.
        reject_below: quantile of the scores of known clean images below which an image is rejected; implies `detect`.
        certified_epsilon: L∞ radius within which images are certified (`kbl.certification.certify`); for small networks
            of convolutions, dense layers and ReLU.
        calibration: the known images, (M, ...) floats in [0, 1]; best training images. Default: x.
        batch_size: images at a time.
        seed: seed of the random numbers.
        progress: called with a label and a `Progress` every few steps.
        records: a file that is written after every batch.
        resume: go on with the file of records; the result is the same as without a break.

    Returns:
        The `Result`.

    Raises:
        ValueError: x, y, the network's outputs or the arguments are not as expected.
        UserError: the file of records is of another evaluation.
    """
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttackWarning)  # a diagnostic says the same
        images, labels, logits = start(network, x, y, batch_size)
        named = _named(attacks, epsilon, norm, network)
        epsilon, norm = _ball([attack for _, attack in named], epsilon, norm)
        if detect or reject_below is not None:
            named += _detection(network, epsilon, norm, reject_below)
        described = [(label, attack.name, attack.get_config()) for label, attack in named]
        settings: list[Any] = [described, epsilon, norm, list(epsilons), seed, batch_size, certified_epsilon]
        settings += [keras.config.backend(), versions()["kbl"]]
        both = [model for model in (network, substitute) if model is not None]
        weights = [weight for model in both for weight in model.get_weights()]
        ledger = Ledger(records, fingerprint(images, labels, *weights, settings) if records else "", resume)
        judge = Judge(network, images, labels, logits, ledger, batch_size, seed, progress)
        tried = [(attack, *judge.attack(str(n), label, attack)) for n, (label, attack) in enumerate(named)]
        results = [result for _, result, _ in tried]
        transfer = None if substitute is None else _transfer(judge, substitute, named, epsilon, norm)
        curve = _curve(judge, named, epsilons)
        certified = None if certified_epsilon is None else _certified(judge, certified_epsilon)
        probes = _probes(judge, epsilon, norm) if diagnostics else None
        found, checks = diagnose(
            Evidence(
                logits,
                judge.right,
                results,
                float(judge.robust.mean()),
                float(judge.robust_rounded.mean()),
                transfer["robust"] if transfer else None,
                probes,
            )
        )
        detected, rejected = _by_likelihood(judge, tried, reject_below, calibration)
    return Result(
        backend=keras.config.backend(),
        examples=len(images),
        clean=float(judge.right.mean()),
        robust=float(judge.robust.mean()),
        attacks=results,
        warnings=found,
        checks=checks,
        transfer=transfer,
        certified=certified,
        detection=detected,
        rejection=rejected,
        versions=versions(),
        epsilon_curve=curve,
        seconds=time.perf_counter() - started,
    )


def _named(attacks: Any, epsilon: float | None, norm: Norm, network: Network) -> list[tuple[str, Any]]:
    if attacks == "standard":
        if epsilon is None:
            raise ValueError('attacks="standard" needs an epsilon, in pixel units of [0, 1]')
        attacks = standard_for(network, epsilon, norm)
    elif isinstance(attacks, str):
        raise ValueError(f'attacks must be a list of attacks or "standard". Received: attacks={attacks!r}')
    return [entry if isinstance(entry, tuple) else (entry.label, entry) for entry in attacks]


def _ball(attacks: list[Any], epsilon: float | None, norm: Norm) -> tuple[float | None, Norm]:
    """Return the ball given, or that of the first attack that has one."""
    for attack in attacks:
        if getattr(attack, "epsilon", None) and hasattr(attack, "norm") and epsilon is None:
            return attack.epsilon, attack.norm
    return epsilon, norm


def _detection(
    network: Network, epsilon: float | None, norm: Norm, quantile: float | None
) -> list[tuple[str, Any]]:
    if quantile is not None and not 0 <= quantile < 1:
        raise ValueError(f"reject_below must be in [0, 1). Received: reject_below={quantile}")
    if not has_gmm_head(network):
        raise ValueError("Detection by likelihood needs a network that ends with kbl.layers.GMMHead")
    if epsilon is None:
        raise ValueError("Detection needs an epsilon, or an attack that has one")
    return list(detection_attacks(epsilon, norm))


def _by_likelihood(
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


def _transfer(
    judge: Judge, substitute: Network, named: list[tuple[str, Any]], epsilon: float | None, norm: Norm
) -> dict[str, Any]:
    """Craft on the substitute with every attack by gradients, to the last step; score on the network."""
    crafting = [
        (label, replace(attack, early_stop=False))
        for label, attack in named
        if hasattr(attack, "early_stop") and attack.name not in ("detection", "adaptive")
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
        "clean": float((logits.argmax(axis=1) == judge.labels).mean()),
        "robust": float(robust.mean()),
        "attacks": [asdict(result) for result in results],
    }


def _certified(judge: Judge, epsilon: float) -> dict[str, Any]:
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


def _curve(judge: Judge, named: list[tuple[str, Any]], epsilons: Sequence[float]) -> list[dict[str, float]]:
    strongest = next((a for _, a in named if getattr(a, "steps", 0) > 1 and getattr(a, "epsilon", 0)), None)
    if strongest is None:
        return []
    curve = []
    for number, epsilon in enumerate(epsilons):
        changes = {"epsilon": epsilon}
        if hasattr(strongest, "step_size"):
            changes["step_size"] = strongest.step_size * epsilon / strongest.epsilon
        weaker = replace(strongest, **changes)
        trial = judge.trial(f"curve.{number}", f"ε = {epsilon:.3g}", weaker, judge.right)
        curve.append({"epsilon": epsilon, "accuracy": float(trial.stands.mean())})
    return curve


def _probes(judge: Judge, epsilon: float | None, norm: Norm) -> Probes | None:
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
