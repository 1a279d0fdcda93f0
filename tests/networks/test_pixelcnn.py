"""The PixelCNN looks back only, and learns."""

import keras
import numpy as np
import pytest
from keras import ops

from kbl.data import load
from kbl.networks import bits_per_dimension, initialize, pixelcnn, to_levels


def network(shape=(3, 4, 1), levels=4, **options) -> keras.Model:
    built = pixelcnn(shape, levels, **{"filters": 4, "blocks": 2, **options})
    initialize(built, 0)
    return built


@pytest.mark.parametrize("shape", [(3, 4, 1), (3, 3, 2)])
def test_a_pixel_changes_only_what_comes_after_it(shape) -> None:
    net = network(shape)
    x = np.random.default_rng(0).uniform(0, 1, (1, *shape)).astype("float32")
    before = ops.convert_to_numpy(net(x)).reshape(np.prod(shape), -1)
    is_seen = np.zeros(len(before), bool)
    for place in range(len(before)):
        changed = x.reshape(-1).copy()
        changed[place] = 1.0 - changed[place]
        after = ops.convert_to_numpy(net(changed.reshape(x.shape))).reshape(before.shape)
        moved = np.abs(after - before).max(axis=1) > 1e-6
        assert not moved[: place + 1].any()
        is_seen |= moved
    assert is_seen[1:].all()  # and everything but the first looks at something


def test_levels() -> None:
    np.testing.assert_array_equal(to_levels([0.0, 0.3, 0.5, 0.7, 1.0], 3), [0, 1, 1, 1, 2])
    x = np.arange(256, dtype="float32") / 255
    np.testing.assert_array_equal(to_levels(x, 256), np.arange(256))


def test_bits_by_hand() -> None:
    """With all weights zero each of four levels has probability ¼: two bits; with a bias of log 3 on level 0, ½."""
    net = network()
    for weight in net.weights:
        weight.assign(np.zeros(weight.shape))
    x = np.zeros((3, 3, 4, 1), "float32")
    np.testing.assert_allclose(bits_per_dimension(net, x, batch_size=2), 2.0, rtol=1e-6)
    net.get_layer("last").bias.assign(np.log([3.0, 1.0, 1.0, 1.0]))
    np.testing.assert_allclose(bits_per_dimension(net, x), 1.0, rtol=1e-6)


def test_it_learns_digits() -> None:
    data = load("digits")
    net = pixelcnn(data.image_shape, 17, filters=8, blocks=1)
    initialize(net, 0)
    before = bits_per_dimension(net, data.x_test).mean()
    net.compile(
        keras.optimizers.Adam(0.005), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    net.fit(data.x_train, to_levels(data.x_train, 17), batch_size=64, epochs=3, verbose=0)
    assert bits_per_dimension(net, data.x_test).mean() < 2.5 < np.log2(17) - 0.5 < before


def test_too_few_levels() -> None:
    with pytest.raises(ValueError, match="levels must be at least 2"):
        pixelcnn((3, 4, 1), 1)
