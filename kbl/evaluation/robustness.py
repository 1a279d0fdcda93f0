"""Robust accuracy: the pointwise worst case over attacks, and whether it can be trusted."""

import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import keras

from kbl.attacks import AttackWarning, checks
from kbl.evaluation import sections
from kbl.evaluation.diagnostics import diagnose
from kbl.evaluation.fingerprint import description, fingerprint
from kbl.evaluation.judge import Judge, Listener, start
from kbl.evaluation.ledger import Ledger
from kbl.evaluation.result import Result
from kbl.evaluation.signs import Evidence
from kbl.evaluation.standard import standard_for
from kbl.evaluation.versions import versions
from kbl.typing import Network, Norm, Tensor


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
        epsilons: radii of the curve of robust accuracy against ε; taken with the first attack, or part of an ensemble,
            of more than one step (not with one made for a Gaussian head), its step size scaled along.
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
    epsilon, reject_below, certified_epsilon = map(_number, (epsilon, reject_below, certified_epsilon))
    epsilons = [float(each) for each in epsilons]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttackWarning)  # a diagnostic says the same
        images, labels, logits = start(network, x, y, batch_size)
        named = _named(attacks, epsilon, norm, network)
        epsilon, norm = _ball([attack for _, attack in named], epsilon, norm)
        if detect or reject_below is not None:
            named += sections.for_detection(network, epsilon, norm, reject_below)
        for _, attack in named:
            checks.attack(attack, images.shape[1:], logits.shape[1])
        described = [(label, attack.name, attack.get_config()) for label, attack in named]
        settings: list[Any] = [described, epsilon, norm, list(epsilons), seed, batch_size, certified_epsilon]
        settings += [keras.config.backend(), versions()["kbl"]]
        both = [model for model in (network, substitute) if model is not None]
        settings += [description(model) for model in both] if records else []
        weights = [weight for model in both for weight in model.get_weights()]
        ledger = Ledger(records, fingerprint(images, labels, *weights, settings) if records else "", resume)
        judge = Judge(network, images, labels, logits, ledger, batch_size, seed, progress)
        tried = [(attack, *judge.attack(str(n), label, attack)) for n, (label, attack) in enumerate(named)]
        results = [result for _, result, _ in tried]
        transfer = (
            None if substitute is None else sections.transferred(judge, substitute, named, epsilon, norm)
        )
        curve = sections.curve(judge, named, epsilons)
        certified = None if certified_epsilon is None else sections.certified(judge, certified_epsilon)
        probes = sections.probed(judge, epsilon, norm) if diagnostics else None
        found, run = diagnose(
            Evidence(
                logits,
                judge.right,
                results,
                float(judge.robust.mean()),
                float(judge.robust_rounded.mean()),
                transfer["robust"] if transfer else None,
                probes,
                float(judge.broken.mean()),
            )
        )
        detected, rejected = sections.by_likelihood(judge, tried, reject_below, calibration)
    return Result(
        backend=keras.config.backend(),
        examples=len(images),
        clean=float(judge.right.mean()),
        robust=float(judge.robust.mean()),
        attacks=results,
        warnings=found,
        checks=run,
        transfer=transfer,
        certified=certified,
        detection=detected,
        rejection=rejected,
        versions=versions(),
        epsilon_curve=curve,
        seconds=time.perf_counter() - started,
    )


def _number(value: float | None) -> float | None:
    """Return a number as Python's own: JSON writes none of NumPy's."""
    return None if value is None else float(value)


def _named(attacks: Any, epsilon: float | None, norm: Norm, network: Network) -> list[tuple[str, Any]]:
    if attacks == "standard":
        if epsilon is None:
            raise ValueError('attacks="standard" needs an epsilon, in pixel units of [0, 1]')
        attacks = standard_for(network, epsilon, norm)
    try:
        return [entry if isinstance(entry, tuple) else (entry.label, entry) for entry in attacks]
    except (TypeError, AttributeError) as error:  # no list, or not of attacks
        raise ValueError(
            f'attacks must be a list of attacks or "standard". Received: attacks={attacks!r}'
        ) from error


def _ball(attacks: list[Any], epsilon: float | None, norm: Norm) -> tuple[float | None, Norm]:
    """Return the ball given, or that of the first attack that has one."""
    for attack in attacks:
        if getattr(attack, "epsilon", None) and hasattr(attack, "norm") and epsilon is None:
            return attack.epsilon, attack.norm
    return epsilon, norm
