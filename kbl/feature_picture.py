"""The features of clean and adversarial test images in a plane: the idea of the ATBLR paper's Fig. 1."""

from pathlib import Path
from typing import Any

import numpy as np

from kbl.files import atomic
from kbl.layers import GMMHead
from kbl.layers.features import features_and_head

_IMAGES = 500


def write(path: Path, network: Any, dataset: Any, attack: Any, seed: int) -> None:
    """Save the features of the first test images, clean and attacked, and the means, projected on a plane.

    The plane is spanned by the first two principal axes of the means of a Gaussian head, else of the mean clean feature
    of each class. Nothing is written for a network that cannot be split before its last layer, nor where there is no
    plane: the images are of one class, or the features of one dimension.

    Args:
        path: the ``.npz`` file.
        network: a Keras model that returns logits.
        dataset: a `kbl.data.Dataset`.
        attack: an attack of `kbl.attacks`.
        seed: seed of its random numbers.
    """
    try:
        body, head = features_and_head(network)
    except ValueError:
        return
    x, y = dataset.x_test[:_IMAGES], dataset.y_test[:_IMAGES]
    clean = np.asarray(body.predict(x, verbose=0), "float64")
    present = np.unique(y)
    if isinstance(head, GMMHead):
        means = np.asarray(head.get_weights()[0], "float64")[present]
    else:
        means = np.stack([clean[y == label].mean(axis=0) for label in present])
    centre = means.mean(axis=0)
    axes = np.linalg.svd(means - centre, full_matrices=False)[2][:2]
    if len(axes) < 2:
        return
    x_adv = np.asarray(attack(network, x, y, seed=seed))
    adversarial = np.asarray(body.predict(x_adv, verbose=0), "float64")
    with atomic(path) as temporary:
        np.savez_compressed(
            temporary,
            clean=((clean - centre) @ axes.T).astype("float32"),
            adversarial=((adversarial - centre) @ axes.T).astype("float32"),
            means=((means - centre) @ axes.T).astype("float32"),
            y=y,
            present=present,
            class_names=np.asarray(dataset.class_names),
        )
