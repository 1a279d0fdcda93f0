"""Robust accuracy: the pointwise worst case over attacks."""

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

import keras
import numpy as np

from kbl.attacks import PGD, AttackWarning, Progress, checks, predict
from kbl.evaluation.result import AttackResult, Result
from kbl.evaluation.versions import versions
from kbl.typing import Network, Tensor

Listener = Callable[[str, Progress], None]


def evaluate(
    network: Network,
    x: Tensor,
    y: Tensor,
    attacks: Iterable[PGD | tuple[str, PGD]],
    *,
    epsilons: Sequence[float] = (),
    batch_size: int = 256,
    seed: int = 0,
    progress: Listener | None = None,
) -> Result:
    """Measure a network's accuracy on clean images and under attacks.

    A clean mistake counts as a mistake and is not attacked. Each attack tries every image that is right unattacked;
    an image is robust when all attacks leave it right. Images are predicted again from what the attacks return. A
    targeted attack aims at the likeliest wrong class of the clean image.

    Args:
        network: any Keras model that returns logits.
        x: (N, ...) floats in [0, 1].
        y: (N,) labels, or (N, K) one-hot.
        attacks: attacks, or pairs of a label and an attack.
        epsilons: radii of the curve of robust accuracy against ε; taken with the first attack of more than one step,
            its step size scaled along.
        batch_size: images at a time.
        seed: seed of the random starts.
        progress: called with a label and a `Progress` after each batch.

    Returns:
        The `Result`.

    Raises:
        ValueError: x, y or the network's outputs are not as expected.
    """
    started = time.perf_counter()
    named = [_named(attack) for attack in attacks]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AttackWarning)
        images = checks.images(x)
        logits = predict(network, images, batch_size)
        checks.logits(logits)
        labels = checks.labels(y, len(images), logits.shape[1])
        right = logits.argmax(axis=1) == labels
        targets = np.where(np.eye(logits.shape[1], dtype=bool)[labels], -np.inf, logits).argmax(axis=1)

        def survivors(label: str, attack: PGD) -> Any:
            stands = right.copy()
            rows = np.flatnonzero(right)
            aims = (targets if attack.targeted else labels)[rows].astype("int32")
            listen = None if progress is None else lambda state: progress(label, state)
            x_adv = attack(network, images[rows], aims, seed=seed, batch_size=batch_size, progress=listen)
            stands[rows] = predict(network, x_adv, batch_size).argmax(axis=1) == labels[rows]
            return stands

        robust = right.copy()
        results = []
        for label, attack in named:
            before = time.perf_counter()
            stands = survivors(label, attack)
            robust &= stands
            seconds = time.perf_counter() - before
            parameters = {key: value for key, value in asdict(attack).items() if key != "name"}
            results.append(AttackResult(attack.name, label, parameters, float(stands.mean()), seconds))
        curve = []
        strongest = next((attack for _, attack in named if attack.steps > 1 and attack.epsilon), None)
        if strongest is not None:
            for epsilon in epsilons:
                step_size = strongest.step_size * epsilon / strongest.epsilon
                weaker = replace(strongest, epsilon=epsilon, step_size=step_size)
                accuracy = float(survivors(f"ε = {epsilon:.3g}", weaker).mean())
                curve.append({"epsilon": epsilon, "accuracy": accuracy})
    misleading = []
    for entry in caught:
        if issubclass(entry.category, AttackWarning):
            misleading.append(str(entry.message))
        else:
            warnings.warn_explicit(entry.message, entry.category, entry.filename, entry.lineno)
    return Result(
        backend=keras.config.backend(),
        examples=len(images),
        clean=float(right.mean()),
        robust=float(robust.mean()),
        attacks=results,
        warnings=_warnings(misleading, results),
        versions=versions(),
        epsilon_curve=curve,
        seconds=time.perf_counter() - started,
    )


def _named(attack: PGD | tuple[str, PGD]) -> tuple[str, PGD]:
    return attack if isinstance(attack, tuple) else (attack.label, attack)


def _warnings(messages: list[str], results: list[AttackResult]) -> list[dict[str, str]]:
    """Return the warnings caught, once each, and those that the numbers give cause for."""
    found = [
        {"name": "probabilities", "message": message, "remedy": "Evaluate the network without its softmax."}
        for message in dict.fromkeys(messages)
    ]
    by_ball: dict[Any, dict[str, float]] = {}
    for result in results:
        given = result.parameters
        if given["steps"] > 1 and not given["targeted"]:
            by_loss = by_ball.setdefault((given["norm"], given["epsilon"]), {})
            by_loss[given["loss"]] = min(by_loss.get(given["loss"], 1.0), result.accuracy)
    gaps = [
        by_loss["cross_entropy"] - by_loss[other]
        for by_loss in by_ball.values()
        for other in ("margin", "dlr")
        if {"cross_entropy", other} <= by_loss.keys()
    ]
    if max(gaps, default=0.0) > 0.02:
        gap = 100 * max(gaps)
        found.append(
            {
                "name": "cross_entropy_weaker",
                "message": f"PGD on cross-entropy is {gap:.1f} points weaker than on the logit margin: "
                "the loss hides gradients from the attack.",
                "remedy": "Judge by the worst case, and attack with margin or DLR losses and more restarts.",
            }
        )
    return found
