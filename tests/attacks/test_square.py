"""Square: its schedule, places and patterns beside loops, and one L2 query beside the paper's algorithm."""

import functools
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers, ops

from kbl import random
from kbl.attacks import predict, square_pattern
from kbl.attacks import square as module
from kbl.attacks.square import Square

BACKEND = keras.backend.backend()
NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])


def numpy(tensor) -> np.ndarray:
    return ops.convert_to_numpy(tensor)


def int32(value):
    return ops.convert_to_tensor(value, dtype="int32")


def rectangles(height: int, width: int) -> np.ndarray:
    """The paper's nested rectangles, each 1/k² high and a pixel wider on every side, cut at the edges; of length 1."""
    peak = np.zeros((height, width))
    for k in range(1, max(height, width) // 2 + 2):
        rows = slice(max(height // 2 - k + 1, 0), height // 2 + k)
        columns = slice(max(width // 2 - k + 1, 0), width // 2 + k)
        peak[rows, columns] += 1 / k**2
    return peak / np.linalg.norm(peak)


def eta(side: int) -> np.ndarray:
    return np.concatenate([rectangles(side // 2, side), -rectangles(side - side // 2, side)]) / np.sqrt(2)


@pytest.mark.parametrize("side", [2, 3, 4, 5, 7, 12, 25])
def test_the_pattern(side: int) -> None:
    """Two peaks of opposite sign, one in each half; the square's corner lies at (2, 1) of the image."""
    rows, columns = np.arange(30).reshape(1, 30, 1, 1) - 2, np.arange(28).reshape(1, 1, 28, 1) - 1
    turned = np.array([False, True]).reshape(2, 1, 1, 1)
    peaks = numpy(
        square_pattern.peaks(int32(rows), int32(columns), int32(side), ops.convert_to_tensor(turned), 28)
    )
    assert peaks.shape == (2, 30, 28, 1)
    inside = peaks[:, 2 : 2 + side, 1 : 1 + side, 0]
    np.testing.assert_allclose(inside[0], eta(side), atol=2e-6)
    np.testing.assert_allclose(inside[1], eta(side).T, atol=2e-6)


def test_a_pattern_of_one_pixel() -> None:
    zero = int32(np.zeros((1, 1, 1, 1)))
    peaks = square_pattern.peaks(zero, zero, int32(1), ops.convert_to_tensor([[[[False]]]]), 1)
    np.testing.assert_allclose(numpy(peaks), [[[[-(0.5**0.5)]]]], rtol=1e-6)


@pytest.mark.parametrize(("side", "height", "width"), [(1, 4, 6), (3, 4, 6), (4, 4, 6), (5, 5, 5)])
def test_places(side: int, height: int, width: int) -> None:
    """Every place where the square fits comes up, the last row and column included, and equally often."""
    draw = random.uniform(random.key(1), np.arange(4000, dtype="int32"), (2,))
    rows, columns = (
        module._inside(module._corner(draw[:, axis], int32(side), size), int32(side), size)
        for axis, size in enumerate((height, width))
    )
    inside = numpy(module._square(rows, columns))
    assert inside.shape == (4000, height, width, 1)
    assert (inside.sum(axis=(1, 2, 3)) == side**2).all()
    corners = inside.reshape(4000, -1).argmax(axis=1)
    places, counts = np.unique(corners, return_counts=True)
    expected = [
        row * width + column for row in range(height - side + 1) for column in range(width - side + 1)
    ]
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_allclose(counts * len(expected) / 4000, 1, atol=0.35)


@NORMS
def test_what_is_planned_for_several_queries_is_what_is_planned_for_each(norm: str) -> None:
    state = {
        "x": ops.zeros((3, 9, 8, 2)),
        "index": ops.convert_to_tensor([4, 0, 7], "int32"),
        "key": random.key(5, ops.convert_to_tensor([0, 1, 1], "int32")),
    }
    attack = Square(0.1, 100, norm=norm)
    steps = np.array([[8], [3], [90]]) + np.arange(6)
    together = numpy(attack.plan(state, int32(steps)))
    assert together.shape == (3, 6, 19 if norm == "linf" else 40)
    for j in range(6):
        alone = numpy(attack.plan(state, int32(steps[:, j : j + 1])))
        np.testing.assert_array_equal(together[:, j], alone[:, 0])


def sides(attack: Square, queries: list[int], height: int, width: int) -> list[int]:
    return [int(numpy(attack._side(int32(i), height, width))) for i in queries]


def test_the_published_schedule() -> None:
    """At p = 0.8 on 100×100 pixels the side is 100 √p, and p is halved after these queries of 10,000."""
    before = [0, 10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]
    after = [1, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001]
    expected = [89, 63, 45, 32, 22, 16, 11, 8, 6, 4]  # 100 √(0.8 / 2^n), rounded
    attack = Square(0.1, 10_000)
    assert sides(attack, before, 100, 100) == [89, *expected[:-1]]
    assert sides(attack, after, 100, 100) == [89, *expected[1:]]
    # Fewer queries run through it faster, others never beyond the image; in L2 sides are odd and at least 3.
    assert sides(replace(attack, queries=1000), [1, 2, 5, 6, 400, 401], 100, 100) == [89, 63, 63, 45, 11, 8]
    assert sides(attack, [0, 9999], 4, 25) == [4, 1]
    assert sides(replace(attack, norm="l2"), before, 100, 100) == [89, 89, 63, 45, 33, 23, 17, 11, 9, 7]
    assert sides(replace(attack, norm="l2"), [0, 9999], 4, 25) == [3, 3]
    assert sides(replace(attack, norm="l2"), [0, 9999], 2, 2) == [1, 1]


@pytest.mark.parametrize(("height", "width", "side"), [(28, 28, 5), (11, 17, 2), (4, 6, 1)])
def test_tiles(height: int, width: int, side: int) -> None:
    """Tiles of a fifth of the image, in its middle; each is the pattern, turned or not, of either sign a channel."""
    tiles = numpy(square_pattern.tiles(random.key(0), np.arange(6, dtype="int32"), (height, width, 2)))
    assert tiles.shape == (6, height, width, 2)
    top, left = height % side // 2, width % side // 2
    covered = np.zeros((height, width), bool)
    pattern = eta(side) if side > 1 else np.array([[-(0.5**0.5)]])
    kinds = {}
    for row in range(top, top + height // side * side, side):
        for column in range(left, left + width // side * side, side):
            covered[row : row + side, column : column + side] = True
            for tile in (
                tiles[:, row : row + side, column : column + side]
                .transpose(0, 3, 1, 2)
                .reshape(12, side, side)
            ):
                fits = [
                    kind
                    for kind, form in enumerate((pattern, -pattern, pattern.T, -pattern.T))
                    if np.allclose(tile, form, atol=2e-6)
                ]
                assert fits
                kinds[fits[0]] = kinds.get(fits[0], 0) + 1
    assert (tiles[:, ~covered] == 0).all()
    assert sorted(kinds) == ([0, 1, 2, 3] if side > 1 else [0, 1])
    assert min(kinds.values()) > 0.7 * sum(kinds.values()) / len(kinds)


def test_one_query_in_l2_is_the_papers() -> None:
    """Algorithm 3 with slices, for the same draws. Pixels are far from 0 and 1, so that nothing is cut."""
    rng = np.random.default_rng(0)
    height, width, channels, epsilon, side = 9, 8, 3, 0.3, 5
    x = rng.uniform(0.4, 0.6, (12, height, width, channels)).astype("float32")
    change = rng.normal(size=x.shape)
    change *= (
        rng.uniform(0.5, 1, (12, 1, 1, 1)) * epsilon / np.sqrt((change**2).sum(axis=(1, 2, 3), keepdims=True))
    )
    best, key, i = (x + change).astype("float32"), random.key(3), int32(4)
    attack = Square(epsilon, 100, norm="l2", p=0.35)
    assert sides(attack, [4], height, width) == [side - 2]  # p / 8: 2, then 3 at least
    attack = replace(attack, p=1.0, queries=2000)  # p / 2: 6, then odd
    assert sides(attack, [4], height, width) == [7]
    attack = replace(attack, p=0.6)
    assert sides(attack, [4], height, width) == [side]
    judged = []

    def forward(x_adv):
        judged.append(numpy(x_adv))
        return ops.zeros((12, 2))

    state = {
        "x": ops.convert_to_tensor(x),
        "best": ops.convert_to_tensor(best),
        "y": ops.zeros((12,), "int32"),
        "index": ops.arange(12, dtype="int32"),
        "key": key + ops.zeros((12,), "int32"),
        "score": ops.zeros((12,)),
        "fooled": ops.zeros((12,), "bool"),
        "done": ops.zeros((12,), "bool"),
    }
    attack.step(forward, state, i)
    draws = numpy(random.uniform(random.key(key, i), state["index"], (5 + channels,)))
    for delta, draw, image, candidate in zip(best - x, draws, x, judged[0], strict=True):
        delta = delta.astype("float64")
        places = [int(u * (size - side + 1)) for u, size in zip(draw[:4], (height, width) * 2, strict=True)]
        window = slice(places[0], places[0] + side), slice(places[1], places[1] + side)
        other = slice(places[2], places[2] + side), slice(places[3], places[3] + side)
        union = np.zeros((height, width, 1), bool)
        union[window] = union[other] = True
        changed = delta.copy()
        changed[other] = 0
        for channel in range(channels):
            old = delta[window][..., channel]
            pattern = eta(side).T if draw[4] < 0.5 else eta(side)
            new = old / np.linalg.norm(old) + pattern * (-1 if draw[5 + channel] < 0.5 else 1)
            unused = (epsilon**2 - (delta**2).sum()) / channels
            length = np.sqrt(unused + ((delta * union)[..., channel] ** 2).sum())
            changed[window][..., channel] = new / np.linalg.norm(new) * length
        expected = image + epsilon * changed / np.linalg.norm(changed)
        np.testing.assert_allclose(candidate, expected, atol=3e-6)
        assert np.linalg.norm(candidate - image) == pytest.approx(epsilon, rel=1e-4)


@functools.cache
def linear_network() -> keras.Model:
    network = keras.Sequential([keras.Input((6, 5, 2)), layers.Flatten(), layers.Dense(3)])
    network.layers[-1].set_weights([np.random.default_rng(3).normal(size=(60, 3)), np.zeros(3)])
    return network


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).uniform(0.2, 0.8, (16, 6, 5, 2)).astype("float32")


def gaps(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The margin by which the label leads on the linear network."""
    logits = predict(linear_network(), x, batch_size=16).astype("float64")
    others = np.where(np.arange(3) == y[:, None], -np.inf, logits)
    return logits[np.arange(len(y)), y] - others.max(axis=1)


def test_it_begins_with_stripes(images) -> None:
    """One query, too small an ε to fool: each channel of a column moves up or down as a whole."""
    y = predict(linear_network(), images).argmax(axis=1)
    outcome = Square(1e-3, 1).search(linear_network(), images, y, batch_size=16)
    assert outcome.forward == 2 * 16  # the clean prediction, and the query
    rows = ~outcome.fooled
    change = ((outcome.x_adv - images) / 1e-3)[rows]
    np.testing.assert_allclose(np.abs(change), 1, atol=1e-3)
    assert (np.sign(change) == np.sign(change[:, :1])).all()
    assert len(np.unique(np.sign(change[:, 0]).reshape(len(change), -1), axis=0)) > 8


@NORMS
def test_more_queries_never_leave_more_margin(norm: str, images) -> None:
    y = predict(linear_network(), images, batch_size=16).argmax(axis=1)
    attack = Square(0.003 if norm == "linf" else 0.01, norm=norm)
    found = []
    for queries in (1, 30, 400):  # with p so small that the schedule does not matter
        x_adv = replace(attack, queries=queries, p=0.01)(linear_network(), images, y, batch_size=16)
        found.append(gaps(x_adv, y))
    right = found[2] > 0
    assert right.sum() > 8
    assert (found[1][right] <= found[0][right] + 1e-6).all()
    assert (found[2][right] <= found[1][right] + 1e-6).all()
    assert found[2][right].mean() < found[0][right].mean() - 0.01


def test_in_linf_it_fools_just_what_can_be_fooled(images) -> None:
    """Square by square every pixel comes to its corner of the ball: on a linear network the worst case."""
    network = linear_network()
    y = predict(network, images, batch_size=16).argmax(axis=1)
    kernel = network.layers[-1].get_weights()[0].astype("float64")
    lead = predict(network, images, batch_size=16).astype("float64")
    per_epsilon = np.abs(kernel[:, None, :] - kernel[:, :, None]).sum(axis=0)
    rows = np.arange(16)
    needed = (lead[rows, y][:, None] - lead) / np.maximum(per_epsilon[y], 1e-9)
    needed[rows, y] = np.inf
    needed = np.sort(needed.min(axis=1))
    middle = 4 + int(np.argmax(needed[5:12] / needed[4:11]))
    epsilon = float(np.sqrt(needed[middle] * needed[middle + 1]))
    x_adv = Square(epsilon, 600)(network, images, y, batch_size=16)
    assert (predict(network, x_adv, batch_size=16).argmax(axis=1) != y).sum() == middle + 1


@NORMS
def test_targets_are_reached(norm: str, images) -> None:
    network = linear_network()
    target = (predict(network, images, batch_size=16).argmax(axis=1) + 1) % 3
    attack = Square(0.15 if norm == "linf" else 1.0, 200, norm=norm, targeted=True)
    reached = (
        predict(network, attack(network, images, target, batch_size=16), batch_size=16).argmax(axis=1)
        == target
    )
    assert reached.sum() >= 12


def test_only_images_are_taken() -> None:
    network = keras.Sequential([keras.Input((60,)), layers.Dense(3)])
    with pytest.raises(ValueError, match=r"^Square needs images of shape \(H, W, C\). Received: .* \(60,\)"):
        Square(0.1, 5)(network, np.zeros((4, 60), "float32"), np.zeros(4))


def one_by_one(attack: Square, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """What a loop over the steps finds."""
    network, count = linear_network(), len(x)
    attack = attack.with_numbers(attack.numbers(x.shape[1:]))
    state = {
        "x": ops.convert_to_tensor(x),
        "best": ops.convert_to_tensor(x),
        "y": int32(y),
        "index": ops.arange(count, dtype="int32"),
        "key": random.key(3, int32(np.zeros(count))),
        "score": ops.convert_to_tensor(np.full(count, -np.inf, "float32")),
        "fooled": ops.zeros((count,), "bool"),
        "done": ops.zeros((count,), "bool"),
    }
    state |= attack.begin(network, state)
    for i in range(attack.length):
        state |= attack.step(network, state, int32(i))
    return {name: numpy(tensor) for name, tensor in state.items()}


@pytest.mark.parametrize("batch_size", [16, 33, 128])
@NORMS
def test_steps_at_once_find_what_steps_one_by_one_find(norm: str, batch_size: int, images) -> None:
    """One, two and four at once; some images fall, some of them at once and some late, and some stand."""
    y = predict(linear_network(), images).argmax(axis=1)
    attack = Square(0.03 if norm == "linf" else 0.12, 90, norm=norm)
    expected = one_by_one(attack, images, y)
    assert 3 <= expected["fooled"].sum() <= 13
    outcome = attack.search(linear_network(), images, y, batch_size=batch_size, seed=3)
    np.testing.assert_array_equal(outcome.fooled, expected["fooled"])
    np.testing.assert_allclose(outcome.x_adv, expected["best"], atol=1e-5)
    np.testing.assert_allclose(outcome.score, expected["score"], atol=1e-5)


def test_it_knows_which_squares_change_something(images) -> None:
    """Told from products of matrices; here from the proposals, of an image halfway."""
    y = predict(linear_network(), images).argmax(axis=1)
    attack = Square(0.03, 200)
    best = attack(linear_network(), images, y, batch_size=16)
    attack = attack.with_numbers(attack.numbers(images.shape[1:]))
    state = {
        "x": ops.convert_to_tensor(images),
        "best": ops.convert_to_tensor(best),
        "index": ops.arange(16, dtype="int32"),
        "key": random.key(8, int32(np.zeros(16))),
    }
    plan = attack.plan(state, int32(np.arange(100, 130) + np.zeros((16, 1))))
    changes = numpy(attack.changes(state, plan))
    for step in range(30):
        proposed = numpy(attack.propose({**state, "plan": plan[:, step]}))
        np.testing.assert_array_equal(changes[:, step], (proposed != best).any(axis=(1, 2, 3)))
    assert 0.1 < changes.mean() < 0.95
    assert replace(Square(0.1), norm="l2").changes(state, plan) is None


@NORMS
def test_queries_are_those_made(norm: str, images) -> None:
    """None of a square that has its signs already; when several are made at once, some are for nothing."""
    if BACKEND != "torch":
        pytest.skip("passes are counted where Python makes them")
    calls = []

    class Counting(layers.Layer):
        def call(self, x):
            calls.append(len(x))
            return 1.0 * x

    network = keras.Sequential([keras.Input((6, 5, 2)), Counting(), layers.Flatten(), layers.Dense(3)])
    y = predict(network, images).argmax(axis=1)
    for batch_size, most in ((16, 30), (64, 60)):
        calls.clear()
        outcome = Square(1e-6, 30, norm=norm).search(network, images, y, batch_size=batch_size)
        assert (outcome.forward, outcome.backward) == (sum(calls), 0)
        assert set(calls[:2]) == {16}  # the clean prediction, and the beginning
        assert set(calls[2:]) == {batch_size}
        if norm == "l2" and batch_size == 16:
            assert sum(calls) == 31 * 16
        else:
            assert 16 * 16 < sum(calls) < (1 + most) * 16


def test_fields() -> None:
    assert Square(0.1).length == 4999
    assert Square(0.1).label == "Square-5000"
    assert Square(0.5, 100, 2, "l2", targeted=True).label == "Square-100 ×2, L2, targeted"
    for attack in (Square(0.1), Square(0.2, 10, 2, "l2", 0.3, True)):
        config = keras.saving.serialize_keras_object(attack)
        assert keras.saving.deserialize_keras_object(config) == attack


@pytest.mark.parametrize(
    "field",
    [{"epsilon": -0.1}, {"queries": 0}, {"restarts": 0}, {"norm": "l1"}, {"p": 0.0}, {"p": 1.1}],
)
def test_a_field_out_of_range_is_named(field: dict) -> None:
    with pytest.raises(ValueError, match=rf"^{next(iter(field))} must .* Received: "):
        Square(**{"epsilon": 0.1, **field})
