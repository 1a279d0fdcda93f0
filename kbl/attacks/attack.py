"""How every attack meets a user's arrays: checked, batched, compiled, restarted on what still stands."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from kbl import backend, random
from kbl.attacks import checks
from kbl.typing import Network, Tensor

Kernel = Callable[..., tuple[Tensor, Tensor, Tensor]]

# network -> {kernel's identity: compiled kernel}; goes with the network.
_COMPILED: "weakref.WeakKeyDictionary[Network, dict[Any, Callable[..., Any]]]" = weakref.WeakKeyDictionary()


def compiled(network: Network, identity: Any, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Return the kernel compiled for the network, from an earlier call where there was one with that identity."""
    kernels = _COMPILED.setdefault(network, {})
    if identity not in kernels:
        kernels[identity] = backend.compiled(network, kernel)
    return kernels[identity]


def predict(network: Network, x: np.ndarray[Any, Any], batch_size: int = 256) -> np.ndarray[Any, Any]:
    """Return the logits of images of any number, (N, K) float32, in inference mode and compiled.

    Args:
        network: a Keras model that returns logits.
        x: (N, ...) float32.
        batch_size: images at a time.
    """
    forward = compiled(network, "predict", lambda forward, x: ops.cast(forward(x), "float32"))
    size = _batch_shape(len(x), batch_size)
    parts = []
    for rows in _batches(np.arange(len(x)), size):
        logits = np.asarray(ops.convert_to_numpy(forward(_fill(x[rows], size))))
        parts.append(logits[: len(rows)])
    return np.concatenate(parts) if parts else np.zeros((0, network.output_shape[-1]), "float32")


@dataclass
class Progress:
    """What is known after each batch: how many images have been tried and how many still stand."""

    restart: int
    done: int
    total: int
    standing: int


def run(
    network: Network,
    x: Tensor,
    y: Tensor,
    kernel: Kernel,
    identity: Any,
    arguments: tuple[float, ...],
    *,
    restarts: int,
    seed: int,
    batch_size: int,
    targeted: bool,
    check_clean: bool,
    progress: Callable[[Progress], None] | None = None,
) -> Tensor:
    """Attack images of any number and return the adversarial ones, of the same kind as x.

    ``kernel(forward, x, y, index, live, key, *arguments)`` attacks one batch of a fixed shape from one start and
    returns ``(x_adv, fooled, loss)``. Images that are fooled leave; the others start anew, up to `restarts` times, and
    of those that are never fooled the adversarial image of the greatest loss is returned. An image's random numbers
    depend on the seed, the restart and its place in x only, not on the batches.

    Raises:
        ValueError: x, y or the network's outputs are not what `kbl.attacks.checks` expects.
    """
    images = checks.images(x)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1. Received: batch_size={batch_size}")
    if len(images) == 0:
        return x
    sample = predict(network, images[:8], batch_size)
    checks.logits(sample)
    indices = checks.labels(y, len(images), sample.shape[1])
    result = images.copy()
    best = np.full(len(images), -np.inf, "float32")
    standing = np.arange(len(images))
    if check_clean:
        reached = predict(network, images, batch_size).argmax(axis=1) == indices
        standing = standing[~reached if targeted else reached]
    attack = compiled(network, identity, kernel)
    for restart in range(restarts):
        key = random.key(seed, restart)
        fooled = np.zeros(len(images), bool)
        size = _batch_shape(len(standing), batch_size)
        done = 0
        for rows in _batches(standing, size):
            live = np.arange(size) < len(rows)
            batch = (_fill(a, size) for a in (images[rows], indices[rows], rows.astype("int32")))
            outputs = attack(*batch, live, key, *map(_scalar, arguments))
            x_adv, hit, loss = (np.asarray(ops.convert_to_numpy(t))[: len(rows)] for t in outputs)
            better = hit | (loss > best[rows])
            result[rows[better]] = x_adv[better]
            best[rows] = np.maximum(best[rows], loss)
            fooled[rows] = hit
            done += len(rows)
            if progress is not None:
                progress(Progress(restart, done, len(standing), int((~fooled[standing]).sum())))
        standing = standing[~fooled[standing]]
        if len(standing) == 0:
            break
    return result if isinstance(x, np.ndarray) else ops.convert_to_tensor(result)


def _scalar(value: float) -> Any:
    return np.int32(value) if isinstance(value, int) else np.float32(value)


def _batch_shape(count: int, batch_size: int) -> int:
    """Return the batch size for `count` images: a power of two where fewer than a batch, so few shapes compile."""
    return min(batch_size, 1 << max(count - 1, 0).bit_length())


def _batches(rows: np.ndarray[Any, Any], size: int) -> list[np.ndarray[Any, Any]]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def _fill(array: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Repeat the first row until there are `size` rows."""
    if len(array) == size:
        return array
    return np.concatenate([array, np.repeat(array[:1], size - len(array), axis=0)])
