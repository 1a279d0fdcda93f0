"""PixelDefend for a recipe: a PixelCNN trained on the clean images, put before the network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kbl import networks
from kbl import recipe as recipes
from kbl.files import atomic
from kbl.layers import Purify
from kbl.training import Batches
from kbl.typing import Network


def purified(
    network: Network,
    recipe: recipes.Recipe,
    dataset: Any,
    folder: Path,
    *,
    resume: bool = False,
    say: Callable[[str], Any] = print,
) -> Network:
    """Return the network behind a purifier; the folder gets `pixelcnn.keras` and the whole as `purified.keras`.

    Args:
        network: trained on images as they are.
        recipe: one with a purifier.
        dataset: a `kbl.data.Dataset`.
        folder: of the run.
        resume: take the folder's PixelCNN, if there is one.
        say: told how likely the trained PixelCNN finds test images.
    """
    settings = recipe.purifier
    assert settings is not None
    path = folder / "pixelcnn.keras"
    if not (resume and path.is_file()):
        trained = _trained(settings, recipe.training, dataset)
        with atomic(path) as draft:
            trained.save(draft)
    pixelcnn = keras.saving.load_model(path, compile=False)  # without the optimizer
    bits = networks.bits_per_dimension(pixelcnn, dataset.x_test[: recipe.evaluation.samples]).mean()
    say(
        f"PixelCNN: {bits:.2f} bits per dimension on test images ({np.log2(settings.levels):.2f} if it knew nothing)"
    )
    whole = keras.Sequential(
        [keras.Input(dataset.image_shape), Purify(pixelcnn, settings.epsilon, name="purify"), network],
        name=f"purified_{network.name}",
    )
    with atomic(folder / "purified.keras") as draft:
        whole.save(draft)
    return whole


def _trained(settings: recipes.Purifier, training: recipes.Training, dataset: Any) -> Network:
    pixelcnn = networks.pixelcnn(dataset.image_shape, settings.levels, settings.filters, settings.blocks)
    networks.initialize(pixelcnn, training.seed)
    x = dataset.x_train
    batches = Batches(x, networks.to_levels(x, settings.levels), training.batch_size, training.seed)
    rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, settings.epochs * len(batches))
    pixelcnn.compile(
        keras.optimizers.Adam(rate), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    pixelcnn.fit(batches, epochs=settings.epochs, shuffle=False, verbose=0)
    return pixelcnn
