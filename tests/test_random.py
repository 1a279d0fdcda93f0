"""Random numbers: the same bits on every backend, spread evenly, tied to each example's own index."""

import keras
import numpy as np
import pytest
from keras import ops

from kbl import backend, random


def draw(key, index, shape) -> np.ndarray:
    return ops.convert_to_numpy(random.uniform(key, np.asarray(index, "int32"), shape))


def mix(word: np.ndarray) -> np.ndarray:
    """lowbias32 on uint32, as published."""
    word = word ^ (word >> np.uint32(16))
    word = word * np.uint32(0x7FEB352D)
    word = word ^ (word >> np.uint32(15))
    word = word * np.uint32(0x846CA68B)
    return word ^ (word >> np.uint32(16))


def reference_key(*words: int) -> np.ndarray:
    folded = np.array([0x3C6EF372], "uint32")
    for word in words:
        folded = mix((folded * np.uint32(31) + np.uint32(0x1E3779B9)) ^ np.uint32(word % 2**32))
    return folded


def reference_uniform(key: np.ndarray, index: np.ndarray, size: int) -> np.ndarray:
    example = mix(np.asarray(index, "int64").astype("uint32") ^ key)
    bits = mix(mix(np.arange(size, dtype="uint32"))[None] ^ example[:, None])
    return (bits >> np.uint32(8)) / 2.0**24


# The same numbers for all backends: whichever runs this test must make these very bits.
def test_golden_bits() -> None:
    assert int(random.key(1, 2)) == 2056708154
    assert int(random.key(2**40 + 5, -3)) == -204833577
    numbers = draw(random.key(1, 2), [0, 1, 2], (2, 2))
    assert numbers.dtype == "float32"
    assert (numbers * 2**24).astype(int).tolist() == [
        [[4010370, 11404655], [2323964, 5473704]],
        [[12484141, 16247499], [11080098, 4360445]],
        [[16626059, 2613090], [5139948, 6837404]],
    ]


@pytest.mark.parametrize("words", [(0,), (7, 1), (2**31 - 1, -(2**31), 2**32 + 9), (-1, 5, 5, 5)])
def test_equals_unsigned_arithmetic(words) -> None:
    key = reference_key(*words)
    assert int(random.key(*words)) % 2**32 == key[0]
    index = np.array([0, 1, 12345, 2**31 - 1, -1])
    expected = reference_uniform(key, index, 300)
    np.testing.assert_array_equal(draw(random.key(*words), index, (3, 10, 10)).reshape(5, -1), expected)


def test_a_compiled_draw_is_the_same() -> None:
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    compiled = backend.compiled(
        network, lambda _, seed, index: (random.uniform(random.key(seed, 3), index, (4, 5)),)
    )
    index = np.arange(6, dtype="int32")
    (numbers,) = compiled(np.int32(11), index)
    np.testing.assert_array_equal(ops.convert_to_numpy(numbers), draw(random.key(11, 3), index, (4, 5)))


def test_order_and_count_of_words_matter() -> None:
    keys = [random.key(*w) for w in [(1, 2), (2, 1), (1,), (2,), (1, 2, 0), (0, 1, 2), ()]]
    assert len({int(key) for key in keys}) == len(keys)


def test_neighbouring_keys_do_not_collide() -> None:
    keys = [int(random.key(seed, step)) for seed in range(16) for step in range(16)]
    assert len(set(keys)) == 256


def test_an_example_depends_on_its_index_alone() -> None:
    key = random.key(3)
    together = draw(key, range(50), (4, 4))
    np.testing.assert_array_equal(draw(key, [17], (4, 4))[0], together[17])
    np.testing.assert_array_equal(draw(key, [49, 0, 17, 17], (4, 4)), together[[49, 0, 17, 17]])
    np.testing.assert_array_equal(draw(key, [17], (2, 8))[0].ravel(), together[17].ravel())
    normals = ops.convert_to_numpy(random.normal(key, np.arange(50, dtype="int32"), (4,)))
    np.testing.assert_array_equal(
        ops.convert_to_numpy(random.normal(key, np.array([30, 2], "int32"), (4,))), normals[[30, 2]]
    )


def test_uniform_is_even() -> None:
    numbers = draw(random.key(0), range(512), (512,))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert numbers.mean() == pytest.approx(0.5, abs=0.002)
    assert numbers.var() == pytest.approx(1 / 12, abs=0.0005)
    counts = np.bincount((numbers * 256).astype(int).ravel(), minlength=256)
    chi_squared = ((counts - 1024) ** 2 / 1024).sum()
    assert 180 < chi_squared < 340  # 255 degrees of freedom: 255 ± 23
    bits = (numbers * 2**24).astype("int32").ravel()
    share = [((bits >> place) & 1).mean() for place in range(24)]
    np.testing.assert_allclose(share, 0.5, atol=0.004)


def test_uniform_is_independent_between_positions_examples_and_keys() -> None:
    numbers = draw(random.key(0), range(512), (512,))
    others = [numbers[:, 1:], numbers[1:], draw(random.key(1), range(512), (512,))]
    others.append(draw(random.key(0, 0), range(512), (512,)))
    others.append(numbers.T)
    for other in others:
        first = numbers[: other.shape[0], : other.shape[1]].ravel()
        assert abs(np.corrcoef(first, other.ravel())[0, 1]) < 0.008
    means = numbers.mean(axis=1), numbers.mean(axis=0)  # sd of a mean of 512: 0.0128
    for mean in means:
        assert mean.std() == pytest.approx(12**-0.5 / 512**0.5, rel=0.1)


def test_normal_equals_box_muller() -> None:
    index = np.arange(20, dtype="int32")
    numbers = ops.convert_to_numpy(random.normal(random.key(5), index, (3, 3)))
    assert numbers.shape == (20, 3, 3)
    assert numbers.dtype == "float32"
    radial, angle = np.moveaxis(draw(random.key(5), index, (2, 3, 3)).astype("float64"), 1, 0)
    expected = np.sqrt(-2 * np.log(1 - radial)) * np.cos(2 * np.pi * angle)
    np.testing.assert_allclose(numbers, expected, atol=3e-6)


def test_normal_has_the_moments_and_tails_of_a_normal() -> None:
    numbers = ops.convert_to_numpy(random.normal(random.key(2), np.arange(512, dtype="int32"), (512,)))
    assert numbers.mean() == pytest.approx(0, abs=0.005)
    assert numbers.std() == pytest.approx(1, abs=0.005)
    assert (numbers**3).mean() == pytest.approx(0, abs=0.02)
    assert (numbers**4).mean() == pytest.approx(3, abs=0.06)
    assert (np.abs(numbers) > 1.959964).mean() == pytest.approx(0.05, abs=0.002)
    assert np.isfinite(numbers).all()
