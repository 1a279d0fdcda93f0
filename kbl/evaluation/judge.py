"""One evaluation under way: attacks tried on images batch by batch, what they leave right written down at once."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from kbl.attacks import Progress, checks, predict
from kbl.attacks.prediction import is_right
from kbl.evaluation.ledger import Ledger
from kbl.evaluation.result import AttackResult
from kbl.typing import Network

Listener = Callable[[str, Progress], None]
Array = np.ndarray[Any, Any]


@dataclass
class Trial:
    """What an attack did to each of N images; those that it was not tried on keep their clean outcome.

    Args:
        stands: (N,) bool, right after the attack.
        rounded: (N,) bool, right after the attack and rounding to 8 bits.
        top: (N,) float, the greatest logit of the attacked image; NaN where one is NaN, which is a mistake.
        distance: (N,) float, how far the attacked image is, in the attack's norm; NaN where none was made.
    """

    stands: Array
    rounded: Array
    top: Array
    distance: Array
    attacked: int = 0
    forward: int = 0
    backward: int = 0
    seconds: float = 0.0


@dataclass
class Judge:
    """A network, images, and what is known of them.

    Args:
        network: any Keras model that returns logits.
        images: (N, ...) float32 in [0, 1].
        labels: (N,) int32.
        ledger: where records go.
        batch_size: images at a time.
        seed: seed of the attacks' random numbers.
        progress: called with a label and a `Progress`.

    As attacks are tried, `robust` and `robust_rounded` tell which images every attack with an ε has left right,
    `broken` for which an attack has found a logit that is NaN.
    """

    network: Network
    images: Array
    labels: Array
    logits: Array
    ledger: Ledger
    batch_size: int
    seed: int
    progress: Listener | None = None
    broken: Array = field(init=False)
    robust: Array = field(init=False)
    robust_rounded: Array = field(init=False)

    def __post_init__(self) -> None:
        self.right = self.logits.argmax(axis=1) == self.labels
        self.robust, self.robust_rounded = self.right.copy(), self.right.copy()
        self.broken = np.zeros_like(self.right)
        own = np.eye(self.logits.shape[1], dtype=bool)[self.labels]
        self.targets = np.where(own, -np.inf, self.logits).argmax(axis=1).astype("int32")

    def attack(self, key: str, label: str, attack: Any) -> tuple[AttackResult, Trial]:
        """Try an attack on all images that are right unattacked; the worst case takes note of it if it has an ε."""
        if hasattr(attack, "parts"):
            result, trial = self._ensemble(key, label, attack)
        else:
            trial = self.trial(key, label, attack, self.right)
            result = self.result(label, attack, trial)
        self.broken |= np.isnan(trial.top)
        if getattr(attack, "epsilon", None) is not None:
            self.robust &= trial.stands
            self.robust_rounded &= trial.rounded
            result = replace(result, worst=float(self.robust.mean()))
        return result, trial

    def _ensemble(self, key: str, label: str, attack: Any) -> tuple[AttackResult, Trial]:
        """Try each part on what the earlier ones leave."""
        whole = self._untouched()
        results = []
        for number, part in enumerate(attack.parts(self.logits.shape[1])):
            trial = self.trial(f"{key}.{number}", f"{label}: {part.label}", part, whole.stands)
            tried = whole.stands.copy()
            for name in ("stands", "rounded", "top", "distance"):
                getattr(whole, name)[tried] = getattr(trial, name)[tried]
            whole.forward += trial.forward
            whole.backward += trial.backward
            whole.seconds += trial.seconds
            trial.stands &= tried
            results.append(self.result(part.label, part, trial))
        whole.attacked = int(self.right.sum())
        result = self.result(label, attack, whole)
        result.parts.extend(results)
        return result, whole

    def trial(
        self, key: str, label: str, attack: Any, rows: Array, crafted_on: Network | None = None
    ) -> Trial:
        """Try an attack on the images that a mask chooses, batch by batch.

        Args:
            key: names the records.
            label: what progress calls it.
            attack: the attack.
            rows: (N,) bool.
            crafted_on: another network to craft on; then all steps are taken, whatever that network says.
        """
        trial = self._untouched()
        chosen = np.flatnonzero(rows)
        trial.attacked = len(chosen)
        standing = int(rows.sum())
        for start in range(0, len(chosen), self.batch_size):
            batch = chosen[start : start + self.batch_size]

            def listen(
                state: Progress, start: int = start, size: int = len(batch), left: int = standing
            ) -> None:
                if self.progress is not None:
                    gone = size - state.standing
                    done = start + state.done / state.total * size
                    self.progress(label, Progress(done, len(chosen), left - gone))

            find = partial(self._batch, attack, batch, crafted_on, listen)
            record = self.ledger.record(f"{key}.{start}", find)
            for name in ("stands", "rounded", "top", "distance"):
                values = [np.nan if value is None else value for value in record[name]]
                getattr(trial, name)[batch] = values
            trial.forward += record["forward"]
            trial.backward += record["backward"]
            trial.seconds += record["seconds"]
            standing -= int((~trial.stands[batch]).sum())
        return trial

    def _batch(self, attack: Any, rows: Array, crafted_on: Network | None, listen: Any) -> dict[str, Any]:
        """Attack some images and judge what comes back, predicting it anew."""
        started = time.perf_counter()
        x, labels = self.images[rows], self.labels[rows]
        aims = self.targets[rows] if getattr(attack, "targeted", False) else labels
        found = attack.search(
            self.network if crafted_on is None else crafted_on,
            x,
            aims,
            seed=self.seed,
            batch_size=self.batch_size,
            index=rows.astype("int32"),
            progress=listen,
            spare_mistakes=False,  # there are none: only images that are right get here
        )
        logits = predict(self.network, found.x_adv, self.batch_size)
        stands = is_right(logits, labels)
        as_bytes = np.round(found.x_adv * 255).astype("float32") / np.float32(255)
        rounded = is_right(predict(self.network, as_bytes, self.batch_size), labels)
        distance = _distance(found.x_adv - x, getattr(attack, "norm", "l2"))
        distance = np.where(found.fooled, distance, np.inf if attack.minimum_norm else distance)
        return {
            "stands": stands.tolist(),
            "rounded": rounded.tolist(),
            "top": [None if np.isnan(top) else float(top) for top in logits.max(axis=1)],
            "distance": [float(d) if np.isfinite(d) else None for d in distance],
            "forward": found.forward + 2 * len(rows),
            "backward": found.backward,
            "seconds": time.perf_counter() - started,
        }

    def _untouched(self) -> Trial:
        nothing = np.full(len(self.images), np.nan)
        return Trial(self.right.copy(), self.right.copy(), self.logits.max(axis=1).astype(float), nothing)

    def result(self, label: str, attack: Any, trial: Trial) -> AttackResult:
        """Return a trial in figures."""
        distance = None
        if attack.minimum_norm:
            norm = getattr(attack, "norm", "l2")
            far = np.where(np.isnan(trial.distance[self.right]), np.inf, trial.distance[self.right])
            median = float(np.median(far)) if len(far) else np.nan
            distance = {"norm": norm, "median": median if np.isfinite(median) else None}
        parameters = {key: value for key, value in attack.get_config().items() if key != "name"}
        return AttackResult(
            attack.name,
            label,
            {key: value if value != float("inf") else None for key, value in parameters.items()},
            float(trial.stands.mean()),
            trial.seconds,
            trial.attacked,
            None,
            trial.forward,
            trial.backward,
            distance,
        )


def start(network: Network, x: Any, y: Any, batch_size: int) -> tuple[Array, Array, Array]:
    """Return checked images, checked labels and the logits of the images."""
    images = checks.images(x)
    checks.fit(network, images.shape[1:])
    if len(images) == 0:
        raise ValueError("x holds no images")
    logits = predict(network, images, batch_size)
    checks.logits(logits)
    return images, checks.labels(y, len(images), logits.shape[1]), logits


def _distance(offset: Array, norm: str) -> Array:
    flat = np.abs(offset.reshape(len(offset), -1).astype("float64"))
    return flat.max(axis=1) if norm == "linf" else np.sqrt((flat**2).sum(axis=1))
