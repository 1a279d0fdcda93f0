"""A few test images before and after an attack, with what the network says of them."""

from pathlib import Path
from typing import Any

import numpy as np

from kbl.attacks import predict
from kbl.files import atomic

_IMAGES = 8


def write(path: Path, network: Any, dataset: Any, attack: Any, seed: int) -> None:
    """Attack the first test images and save them, the predictions and their confidences as ``.npz``.

    Args:
        path: the file.
        network: a Keras model that returns logits.
        dataset: a `kbl.data.Dataset`.
        attack: an attack of `kbl.attacks`.
        seed: seed of its random numbers.
    """
    x, y = dataset.x_test[:_IMAGES], dataset.y_test[:_IMAGES]
    x_adv = attack(network, x, y, seed=seed)
    arrays: dict[str, Any] = {"x": x, "x_adv": x_adv, "y": y, "class_names": np.asarray(dataset.class_names)}
    for images, suffix in ((x, ""), (x_adv, "_adv")):
        logits = predict(network, images)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        arrays[f"prediction{suffix}"] = logits.argmax(axis=1)
        arrays[f"confidence{suffix}"] = shares.max(axis=1) / shares.sum(axis=1)
    with atomic(path) as temporary:
        np.savez_compressed(temporary, **arrays)
