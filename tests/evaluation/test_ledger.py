"""Records survive being cut off, and an evaluation that goes on ends with the same numbers."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import kbl
from kbl.attacks import APGD, PGD
from kbl.errors import UserError
from kbl.evaluation.ledger import Ledger, fingerprint


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


def test_without_a_path_nothing_is_kept() -> None:
    ledger = Ledger(None, "f")
    assert ledger.record("a", lambda: {"x": 1}) == {"x": 1}
    assert ledger.record("a", lambda: {"x": 2}) == {"x": 2}


def test_fingerprints_tell_apart() -> None:
    array = np.arange(6, dtype="float32")
    prints = [
        fingerprint(array),
        fingerprint(array.reshape(2, 3)),
        fingerprint(array.astype("float64")),
        fingerprint(array + 1),
        fingerprint(array, {"seed": 1}),
        fingerprint(array, {"seed": 2}),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(array, {"a": 1, "b": 2}) == fingerprint(array.copy(), {"b": 2, "a": 1})


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
