"""How an attack meets a user's arrays: checked, batched, restarted; what is fooled leaves the batch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from kbl import backend, random
from kbl.attacks import ahead, checks
from kbl.attacks.outcome import Outcome, Progress
from kbl.attacks.prediction import batches, compiled, filled, padded_size, predict, to_numpy
from kbl.typing import Network, Tensor

# Steps between looks at who is done. The first comes sooner, as most are fooled early; not where each number of images
# that are left compiles.
_CHUNK = ahead.SPAN
_FIRST = _CHUNK if backend.COMPILES_SHAPES else 5


def search(
    attack: Any,
    network: Network,
    x: Tensor,
    y: Tensor,
    *,
    seed: int = 0,
    batch_size: int = 128,
    index: Tensor | None = None,
    progress: Callable[[Progress], None] | None = None,
    spare_mistakes: bool = True,
) -> Outcome:
    """Run an attack (`kbl.attacks.attack.Attack`) on images of any number; see its `__call__`.

    Images that are fooled leave, unless a minimum norm is sought; the others start anew until the starts are used up,
    from several at once when few are left. What is found does not depend on how many go together.

    Raises:
        ValueError: x, y or the network's outputs are not what `kbl.attacks.checks` expects.
    """
    images = checks.images(x)
    checks.fit(network, images.shape[1:])
    checks.size(batch_size)
    total = len(images)
    outcome = Outcome(np.empty_like(images), np.zeros(total, bool), np.full(total, -np.inf, "float32"))
    if total == 0:
        return outcome
    looks = spare_mistakes and not attack.begins_at_image
    predicted = predict(network, images if looks else images[:8], batch_size)
    checks.logits(predicted)
    classes = predicted.shape[1]
    checks.attack(attack, images.shape[1:], classes)
    labels = checks.labels(y, total, classes)
    places = np.arange(total) if index is None else to_numpy(index)
    if looks:
        reached = predicted.argmax(axis=1) == labels
        outcome.fooled = reached if getattr(attack, "targeted", False) else ~reached
        outcome.x_adv[outcome.fooled] = images[outcome.fooled]
        if attack.minimum_norm:
            outcome.score[outcome.fooled] = 0.0  # minus the distance
        outcome.forward += total
    inputs = {"x": images, "y": labels, "index": places.astype("int32")}
    starts = attack.starts(classes)
    running = _Search(attack, network, inputs, outcome, seed, batch_size, attack.passes(classes), starts)
    standing, restart = np.flatnonzero(~outcome.fooled), 0
    while restart < starts and len(standing):
        # The first start fools most, so it goes alone; then as many go together as a batch holds.
        together = min(starts - restart, max(batch_size // len(standing), 1)) if restart else 1
        rows = np.tile(standing, together)
        restarts = np.repeat(np.arange(restart, restart + together, dtype="int32"), len(standing))
        for part in batches(np.arange(len(rows)), batch_size):
            for share in running.batch(rows[part], restarts[part]):
                if progress is not None:
                    done = (restart + together * (part[0] + share * len(part)) / len(rows)) / starts
                    progress(Progress(done * total, total, int((~outcome.fooled).sum())))
        restart += together
        if not attack.minimum_norm:
            standing = standing[~outcome.fooled[standing]]
    if progress is not None:
        progress(Progress(total, total, int((~outcome.fooled).sum())))
    return outcome


@dataclass
class _Search:
    """An attack on its way through the batches; what it finds goes to `outcome`."""

    attack: Any
    network: Network
    inputs: dict[str, np.ndarray[Any, Any]]
    outcome: Outcome
    seed: int
    batch_size: int
    passes: Any
    starts: int

    def __post_init__(self) -> None:
        attack = self.attack
        self.numbers = attack.numbers(self.inputs["x"].shape[1:])
        # Of each image the first start that fooled it.
        self.first = np.full(len(self.inputs["x"]), self.starts)

        def begin(forward: Any, numbers: Any, state: Any) -> Any:
            state = {
                **state,
                "best": state["x"],
                "score": ops.full_like(ops.cast(state["done"], "float32"), -float("inf")),
                "fooled": ops.zeros_like(state["done"]),
            }
            if attack.looks_ahead:
                state["taken"] = ops.zeros_like(state["y"])
            return {**state, **attack.with_numbers(numbers).begin(forward, state)}

        def plan(forward: Any, numbers: Any, state: Any) -> Any:
            return ahead.plan(attack.with_numbers(numbers), state)

        def step(forward: Any, numbers: Any, state: Any, i: Tensor) -> Any:
            if attack.looks_ahead:
                return ahead.step(attack.with_numbers(numbers), forward, state)
            return attack.with_numbers(numbers).step(forward, state, i)

        def finish(forward: Any, numbers: Any, state: Any) -> Any:
            return {**state, **attack.with_numbers(numbers).finish(forward, state)}

        self.begin, self.plan, self.finish = (
            compiled(self.network, (kernel.__name__, *attack.identity), kernel)
            for kernel in (begin, plan, finish)
        )
        self.advance = compiled(self.network, ("step", *attack.identity), step, backend.repeated)

    def batch(self, rows: np.ndarray[Any, Any], restarts: np.ndarray[Any, Any]) -> Iterator[float]:
        """Attack the images of some rows, each from a start; yield the share of the steps that is done."""
        size = padded_size(len(rows), self.batch_size)
        state = self.begin(self.numbers, self._arrays(rows, restarts, size))
        at_begin, at_step, at_end = self.passes
        self._count(at_begin, len(rows))
        i, length = 0, self.attack.length
        while i < length:
            if self.attack.looks_ahead:
                state = self.plan(self.numbers, {**state, **self._ahead(size)})
            stop = np.int32(min((i // _CHUNK + 1) * _CHUNK if i else _FIRST, length))
            reached, state = self.advance(self.numbers, state, np.int32(i), stop)
            tried = state["ahead"].shape[1] if self.attack.looks_ahead else 1
            self._count(at_step, (int(reached) - i) * len(rows) * tried)
            i = int(reached)
            share = to_numpy(state["taken"]).mean() / length if self.attack.looks_ahead else i / length
            done, fooled = (to_numpy(state[name])[: len(rows)] for name in ("done", "fooled"))
            if not self.attack.minimum_norm:
                np.minimum.at(self.first, rows[fooled], restarts[fooled])
                done = done | (restarts > self.first[rows])
            left = np.flatnonzero(~done)
            fewer = share < 0.9 and padded_size(len(left), self.batch_size) < 0.8 * size
            if len(left) < len(rows) and (len(left) == 0 or fewer):
                self._harvest(state, rows, restarts, np.flatnonzero(done))
                rows, restarts = rows[left], restarts[left]
                if len(rows) == 0:
                    break
                size = padded_size(len(rows), self.batch_size)
                state = _take(state, left, size)
            yield float(share)
        if len(rows):
            state = self.finish(self.numbers, state)
            self._count(at_end, len(rows))
            self._harvest(state, rows, restarts, np.arange(len(rows)))
        yield 1.0

    def _ahead(self, size: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return for so many images their steps and those tried at once, see `kbl.attacks.ahead`."""
        tried = np.arange(min(self.batch_size // size, ahead.MOST), dtype="int32")
        return {"ahead": np.tile(tried, (size, 1)), "length": np.full(size, self.attack.length, "int32")}

    def _arrays(
        self, rows: np.ndarray[Any, Any], restarts: np.ndarray[Any, Any], size: int
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Return what a state begins with, filled up to `size` (done there); nothing else keeps the arrays."""
        given = {name: array[rows] for name, array in self.inputs.items()}
        given |= {"restart": restarts, "key": to_numpy(random.key(self.seed, restarts))}
        state = {name: filled(array, size) for name, array in given.items()}
        return {**state, "done": np.arange(size) >= len(rows)}

    def _harvest(
        self,
        state: Any,
        rows: np.ndarray[Any, Any],
        restarts: np.ndarray[Any, Any],
        slots: np.ndarray[Any, Any],
    ) -> None:
        """Keep of each image what its first start found that fools it, or else what scores highest."""
        outcome = self.outcome
        best, score, fooled = (to_numpy(state[name])[slots] for name in ("best", "score", "fooled"))
        rows, restarts = rows[slots], restarts[slots]
        before, found = outcome.fooled[rows], outcome.score[rows]
        better = (fooled & ~before) | ((fooled == before) & (score > found))
        better |= ~before & (found == -np.inf)  # nothing is known of it yet
        if not self.attack.minimum_norm:
            np.minimum.at(self.first, rows[fooled], restarts[fooled])
            better = np.where(fooled, restarts == self.first[rows], better)
        # Of several starts of an image the last is kept: the best, of equals the first.
        order = np.lexsort((-restarts, score, fooled))
        order = order[better[order]]
        outcome.x_adv[rows[order]] = best[order]
        outcome.score[rows[order]] = score[order]
        outcome.fooled[rows[fooled]] = True

    def _count(self, passes: Any, images: int) -> None:
        self.outcome.forward += passes.forward * images
        self.outcome.backward += passes.backward * images


def _take(state: Any, slots: np.ndarray[Any, Any], size: int) -> Any:
    """Keep some slots of every tensor, filled up to `size`; what is filled up is done."""
    places = ops.convert_to_tensor(filled(slots, size).astype("int32"))
    state = keras.tree.map_structure(lambda tensor: ops.take(tensor, places, axis=0), state)
    return {
        **state,
        "done": ops.logical_or(state["done"], ops.convert_to_tensor(np.arange(size) >= len(slots))),
    }
