"""Records survive being cut off, and an evaluation that goes on ends with the same numbers."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import kbl
from kbl.attacks import APGD, PGD
from kbl.errors import UserError
from kbl.evaluation import as_network
from kbl.evaluation.ledger import Ledger


def test_what_is_recorded_is_not_sought_again(tmp_path) -> None:
    path = tmp_path / "records.jsonl"
    ledger = Ledger(path, "f")
    assert ledger.record("a", lambda: {"x": 1}) == {"x": 1}
    assert ledger.record("a", pytest.fail) == {"x": 1}
    again = Ledger(path, "f", resume=True)
    assert again.record("a", pytest.fail) == {"x": 1}
    assert Ledger(path, "f").record("a", lambda: {"x": 2}) == {"x": 2}  # not resumed: begun anew


def test_a_line_that_was_cut_off_is_sought_again(tmp_path) -> None:
    path = tmp_path / "records.jsonl"
    ledger = Ledger(path, "f")
    for key in "ab":
        ledger.record(key, lambda key=key: {"x": key})
    path.write_bytes(path.read_bytes()[:-5])
    again = Ledger(path, "f", resume=True)
    assert again.record("a", pytest.fail) == {"x": "a"}
    assert again.record("b", lambda: {"x": "anew"}) == {"x": "anew"}
    assert [json.loads(line).get("key") for line in path.read_text().splitlines()] == [None, "a", "b"]


def test_records_of_another_evaluation_are_refused(tmp_path) -> None:
    path = tmp_path / "records.jsonl"
    Ledger(path, "one").record("a", dict)
    with pytest.raises(UserError, match="of another evaluation"):
        Ledger(path, "other", resume=True)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))  # without its header
    with pytest.raises(UserError, match="of another evaluation"):
        Ledger(path, "one", resume=True)


def test_a_header_that_was_cut_off_is_written_anew(tmp_path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"finger')
    Ledger(path, "f", resume=True).record("a", lambda: {"x": 1})
    assert Ledger(path, "f", resume=True).record("a", pytest.fail) == {"x": 1}


def test_without_a_path_nothing_is_kept() -> None:
    ledger = Ledger(None, "f")
    assert ledger.record("a", lambda: {"x": 1}) == {"x": 1}
    assert ledger.record("a", lambda: {"x": 2}) == {"x": 2}


class Stop(Exception):  # noqa: N818 - no error
    """The process dies."""


def test_an_evaluation_goes_on_to_the_same_numbers(tmp_path) -> None:
    rng = np.random.default_rng(0)
    network = keras.Sequential([keras.Input((6,)), layers.Dense(16, activation="relu"), layers.Dense(4)])
    network.set_weights([rng.normal(size=weight.shape) for weight in network.get_weights()])
    x = rng.random((40, 6)).astype("float32")
    y = kbl.attacks.predict(network, x).argmax(axis=1)
    attacks = [APGD(0.1, 5, targets=2), PGD(0.05, 0.02, 5)]
    options = {"batch_size": 16, "diagnostics": False}
    whole = kbl.evaluate(network, x, y, attacks, **options)
    assert 0.0 < whole.robust < 1.0
    path = tmp_path / "records.jsonl"
    seen = []

    def die(label: str, state: kbl.attacks.Progress) -> None:
        seen.append(label)
        if label == whole.attacks[1].label and state.done > 16:
            raise Stop

    with pytest.raises(Stop):
        kbl.evaluate(network, x, y, attacks, records=path, progress=die, **options)
    lines = len(path.read_text().splitlines())
    assert lines == 1 + 3 + 1  # the head, three batches of the first attack, one of the second
    seen.clear()
    again = kbl.evaluate(
        network,
        x,
        y,
        attacks,
        records=path,
        resume=True,
        progress=lambda label, _: seen.append(label),
        **options,
    )
    assert set(seen) == {whole.attacks[1].label}
    assert [(a.accuracy, a.worst, a.forward, a.backward) for a in again.attacks] == [
        (a.accuracy, a.worst, a.forward, a.backward) for a in whole.attacks
    ]
    assert again.robust == whole.robust
    with pytest.raises(UserError, match="of another evaluation"):
        kbl.evaluate(network, x, y, attacks, records=path, resume=True, seed=1, **options)


def small(activation: str = "relu") -> keras.Model:
    """A network whose weights are the same whatever its activation."""
    network = keras.Sequential([keras.Input((6,)), layers.Dense(4, activation=activation), layers.Dense(3)])
    rng = np.random.default_rng(1)
    network.set_weights([rng.normal(size=weight.shape) for weight in network.get_weights()])
    return network


def other_weights() -> keras.Model:
    network = small()
    network.set_weights([weight + 0.01 for weight in network.get_weights()])
    return network


SMALL_X = np.random.default_rng(2).random((8, 6)).astype("float32")
SMALL_Y = kbl.attacks.predict(small(), SMALL_X).argmax(axis=1)
GIVEN = {"x": SMALL_X, "y": SMALL_Y, "attacks": [PGD(0.1, 0.05, 1)], "batch_size": 4, "diagnostics": False}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The records of an evaluation; a file to read only."""
    path = tmp_path_factory.mktemp("recorded") / "records.jsonl"
    kbl.evaluate(small(), records=path, substitute=small(), **GIVEN)
    return path


@pytest.mark.parametrize(
    "changes",
    [
        lambda: {"network": other_weights()},
        lambda: {"network": small("elu")},
        lambda: {"network": as_network(small(), SMALL_X, scale=1.5)},
        lambda: {"substitute": small("elu")},
        lambda: {"substitute": None},
        lambda: {"x": SMALL_X * np.float32(0.999)},
        lambda: {"y": (SMALL_Y + 1) % 3},
        lambda: {"attacks": [PGD(0.1, 0.05, 2)]},
        lambda: {"batch_size": 8},
        lambda: {"seed": 1},
    ],
    ids=[
        "weights",
        "activation",
        "scale",
        "substitute",
        "no substitute",
        "x",
        "y",
        "attack",
        "batch",
        "seed",
    ],
)
def test_nothing_that_verdicts_depend_on_may_change(recorded, changes) -> None:
    before = recorded.read_bytes()
    same = {"network": small(), "substitute": small(), "records": recorded, "resume": True, **GIVEN}
    with pytest.raises(UserError, match="of another evaluation"):
        kbl.evaluate(**(same | changes()))
    assert recorded.read_bytes() == before


def test_the_same_evaluation_is_gone_on_with(recorded) -> None:
    """Other names of layers and another seed of what is not used make no other network."""
    progress = []
    options = {"progress": lambda *told: progress.append(told), "records": recorded, "resume": True}
    kbl.evaluate(small(), substitute=small(), **options, **GIVEN)
    assert progress == []
