"""Mirroring and cropping, image by image, against a reference in NumPy."""

import hashlib

import keras
import numpy as np
import pytest
from keras import ops

from kbl import random
from kbl.layers import RandomFlipCrop


def numbered(*shape: int) -> np.ndarray:
    """Images whose pixels all differ, in (0, 1]."""
    size = int(np.prod(shape))
    return (np.arange(1, size + 1, dtype="float32") / size).reshape(shape)


def augment(layer: RandomFlipCrop, images: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(layer(images, training=True))


def counted(layer: RandomFlipCrop) -> int:
    return int(ops.convert_to_numpy(ops.convert_to_tensor(layer.counter)))


def reference(
    images: np.ndarray, seed: int, counter: int, mirror: bool, padding: int, mode: str
) -> np.ndarray:
    """Pad, cut out and mirror one image after the other."""
    batch, height, width, _ = images.shape
    draws = random.uniform(random.key(seed, counter), ops.arange(batch, dtype="int32"), (3,))
    draws = ops.convert_to_numpy(draws)
    sides = ((padding, padding), (padding, padding), (0, 0))
    result = []
    for image, (row, column, mirrored) in zip(images, draws, strict=True):
        padded = np.pad(image, sides, mode="constant" if mode == "zero" else "reflect")
        top, left = int(row * (2 * padding + 1)), int(column * (2 * padding + 1))
        cut = padded[top : top + height, left : left + width]
        result.append(cut[:, ::-1] if mirror and mirrored < 0.5 else cut)
    return np.stack(result)


@pytest.mark.parametrize("mode", ["zero", "reflection"])
@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("mirror", [False, True])
def test_equals_the_reference(mode: str, padding: int, mirror: bool) -> None:
    images = numbered(16, 6, 5, 3)
    layer = RandomFlipCrop(mirror, padding, mode, seed=11)
    for counter in range(3):
        expected = reference(images, 11, counter, mirror, padding, mode)
        np.testing.assert_array_equal(augment(layer, images), expected)


# One number for all backends: whichever runs this test must make these very bits.
@pytest.mark.parametrize(
    ("mode", "expected"), [("zero", "4daaf13883c1ef7d"), ("reflection", "46e46537d6650e02")]
)
def test_golden_images(mode: str, expected: str) -> None:
    images = np.arange(4 * 6 * 5 * 2, dtype="float32").reshape(4, 6, 5, 2) / 240
    layer = RandomFlipCrop(True, 2, mode, seed=7)
    content = augment(layer, images).tobytes() + augment(layer, images).tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == expected


def test_each_image_is_drawn_on_its_own() -> None:
    images = np.repeat(numbered(1, 8, 8, 1), 64, axis=0)
    augmented = augment(RandomFlipCrop(True, 2), images)
    assert len(np.unique(augmented.reshape(64, -1), axis=0)) > 30  # of 50 possible ones


def test_offsets_cover_their_range_evenly_and_half_is_mirrored() -> None:
    images = np.repeat(numbered(1, 5, 5, 1), 6000, axis=0)
    augmented = augment(RandomFlipCrop(True, 1, "reflection", seed=4), images)
    different, counts = np.unique(augmented.reshape(6000, -1), axis=0, return_counts=True)
    assert len(different) == 18  # 3 × 3 offsets, mirrored or not
    np.testing.assert_allclose(counts / 6000, 1 / 18, atol=0.015)
    mirrored = augment(RandomFlipCrop(mirror=True, seed=4), images)[:, 0, 0, 0] != images[0, 0, 0, 0]
    assert mirrored.mean() == pytest.approx(0.5, abs=0.03)


def test_inactive_at_inference() -> None:
    images = numbered(3, 8, 8, 1)
    layer = RandomFlipCrop(True, 2)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(images)), images)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(images, training=False)), images)
    assert counted(layer) == 0
    nothing_to_do = RandomFlipCrop()
    np.testing.assert_array_equal(augment(nothing_to_do, images), images)
    assert counted(nothing_to_do) == 0


def test_seed_and_counter_decide() -> None:
    images = numbered(8, 8, 8, 1)
    layer, same, other = RandomFlipCrop(True, 2), RandomFlipCrop(True, 2), RandomFlipCrop(True, 2, seed=1)
    first, second = augment(layer, images), augment(layer, images)
    assert counted(layer) == 2
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(augment(same, images), first)
    assert not np.array_equal(augment(other, images), first)
    same.counter.assign(1)
    np.testing.assert_array_equal(augment(same, images), second)


def test_a_saved_layer_goes_on_where_it_was(tmp_path) -> None:
    images = numbered(4, 8, 8, 1)
    layer = RandomFlipCrop(True, 2, "reflection", seed=9, name="augment")
    network = keras.Sequential([keras.Input((8, 8, 1)), layer])
    augment(layer, images)
    network.save(tmp_path / "network.keras")
    restored = keras.saving.load_model(tmp_path / "network.keras").layers[-1]
    assert isinstance(restored, RandomFlipCrop)
    assert restored.get_config() == layer.get_config()
    assert counted(restored) == 1
    np.testing.assert_array_equal(augment(restored, images), augment(layer, images))


@pytest.mark.parametrize("jit", [False, True], ids=["plain", "jit"])
def test_compiled_training(jit: bool) -> None:
    """The last batch is smaller, so the batch dimension is unknown where shapes are static."""
    if jit and keras.backend.backend() == "torch":
        pytest.skip("torch compiles with a C++ compiler that may be missing")
    layer = RandomFlipCrop(True, 1)
    network = keras.Sequential([keras.Input((6, 6, 1)), layer, keras.layers.Flatten(), keras.layers.Dense(2)])
    network.compile("sgd", "mse", jit_compile=jit)
    x, y = numbered(20, 6, 6, 1), np.zeros((20, 2), "float32")
    network.fit(x, y, batch_size=8, epochs=2, verbose=0)
    assert counted(layer) == 6
    network.predict(x, batch_size=8, verbose=0)
    assert counted(layer) == 6


def test_stateless_calls_return_the_next_counter() -> None:
    layer = RandomFlipCrop(True, 2, seed=3)
    layer.build((None, 8, 8, 1))
    images = numbered(4, 8, 8, 1)
    state = [ops.convert_to_tensor(v) for v in layer.non_trainable_variables]
    first, state = layer.stateless_call([], state, images, training=True)
    second, state = layer.stateless_call([], state, images, training=True)
    assert int(state[0]) == 2
    assert counted(layer) == 0
    np.testing.assert_array_equal(ops.convert_to_numpy(first), augment(layer, images))
    np.testing.assert_array_equal(ops.convert_to_numpy(second), augment(layer, images))


def test_half_precision_and_shapes() -> None:
    layer = RandomFlipCrop(True, 1, dtype="float16")
    augmented = layer(numbered(2, 6, 6, 3), training=True)
    assert keras.backend.standardize_dtype(augmented.dtype) == "float16"
    assert layer.compute_output_shape((None, 6, 6, 3)) == (None, 6, 6, 3)
    assert layer(keras.Input((6, 6, 3))).shape == (None, 6, 6, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop_padding": -1}, "`crop_padding`.*Received: crop_padding=-1"),
        ({"crop_padding": 1.5}, "`crop_padding`.*Received: crop_padding=1.5"),
        ({"padding_mode": "edge"}, '"zero" or "reflection".*Received: padding_mode=\'edge\''),
        ({"seed": None}, "`seed`.*Received: seed=None"),
    ],
)
def test_bad_arguments_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        RandomFlipCrop(**arguments)


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(batch, H, W, C\).*Received: input_shape=\(2, 8, 8\)"):
        RandomFlipCrop(True)(np.zeros((2, 8, 8), "float32"))
    with pytest.raises(ValueError, match="known H, W and C"):
        RandomFlipCrop(True).build((None, None, 8, 1))
    with pytest.raises(ValueError, match=r"to reflect them.*crop_padding=4"):
        RandomFlipCrop(crop_padding=4, padding_mode="reflection").build((None, 4, 8, 1))
