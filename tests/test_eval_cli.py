"""`kbl eval` and `kbl report` on real models, as a user types them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import kbl

BACKEND = keras.config.backend()


def run(folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "COLUMNS": "100"}
    command = [sys.executable, "-m", "kbl", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model that plain Keras code made: a softmax at the end, pixels in [0, 255]; and a substitute for it."""
    folder = tmp_path_factory.mktemp("plain")
    data = kbl.data.load("digits")
    for name, seed in (("model", 0), ("other", 1)):
        keras.utils.set_random_seed(seed)
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Rescaling(1 / 255),
                layers.Flatten(),
                layers.Dense(32, activation="relu"),
                layers.Dense(10, activation="softmax"),
            ]
        )
        model.compile("adam", loss="sparse_categorical_crossentropy")
        model.optimizer.learning_rate = 0.01
        model.fit(255 * data.x_train, data.y_train, epochs=8, batch_size=64, verbose=0)
        model.save(folder / f"{name}.keras")
    return folder


ATTACK = ("--attack", "apgd:epsilon=0.1,steps=10", "--data", "digits", "--scale", "255")


def test_a_plain_keras_model(folder) -> None:
    words = (
        *ATTACK,
        "--attack",
        "square:epsilon=0.1,queries=50",
        "--substitute",
        "other.keras",
        "--samples",
        "64",
    )
    done = run(folder, "eval", "model.keras", *words, "--json", "result.json")
    result = json.loads((folder / "result.json").read_text())
    assert result["examples"] == 64
    assert result["clean"] > 0.8
    assert result["robust"] < result["clean"] - 0.2
    assert "probabilities" not in {warning["name"] for warning in result["warnings"]}
    assert result["transfer"]["substitute"] == "other.keras"
    assert result["robust"] < result["transfer"]["robust"]
    assert len(result["checks"]) == 13
    assert "Black box" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["model.keras", "other.keras", "result.json"]
    table = run(folder, "report", "result.json", "--html", "table.html", "--markdown", "table.md")
    assert "APGD-10" in table.stdout
    assert "<table" in (folder / "table.html").read_text()
    assert "| result |" in (folder / "table.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("eval", "model.keras", "--data", "digits"), "comes without attacks"),
        (("eval", "model.keras", "--data", "digits", "--attack", "standard"), "names no ε"),
        (("eval", "model.keras", *ATTACK, "--detect"), "needs a network that ends with kbl.layers.GMMHead"),
        (
            ("eval", "model.keras", *ATTACK, "--substitute", "nowhere"),
            "expected a run folder or a .keras file",
        ),
        (
            ("eval", "model.keras", "--data", "digits", "--attack", "apgd:epsilon=0.1,loss=likelihood"),
            'loss="likelihood" needs a network that ends with kbl.layers.GMMHead',
        ),
        (("report", "nowhere"), "nowhere: expected a run folder or an evaluation.json"),
    ],
)
def test_what_cannot_be_done_is_said(folder, words, message: str) -> None:
    done = run(folder, *words, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_an_evaluation_that_was_killed_goes_on(folder, tmp_path) -> None:
    """Kill -9 after the first batch; --resume ends with the same numbers."""
    model = keras.saving.load_model(folder / "model.keras")
    model.save(tmp_path / "model.keras")
    attack = ("--attack", "apgd:epsilon=0.02,steps=40,targets=9,loss=dlr", "--no-diagnostics", "--quiet")
    words = ("eval", "model.keras", "--data", "digits", "--scale", "255", *attack)
    run(tmp_path, *words, "--json", "whole.json")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "kbl", *words, "--json", "cut.json"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    records = tmp_path / "cut.progress.jsonl"
    while process.poll() is None and not (records.is_file() and records.read_text().count("\n") > 1):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if not records.is_file():
        pytest.fail("the evaluation ended before it could be killed")
    run(tmp_path, *words, "--json", "cut.json", "--resume")
    whole, cut = (json.loads((tmp_path / name).read_text()) for name in ("whole.json", "cut.json"))
    assert not records.exists()
    assert whole["robust"] == cut["robust"]
    for old, new in zip(whole["attacks"], cut["attacks"], strict=True):
        assert {**old, "seconds": 0} == {**new, "seconds": 0}
    assert 0.0 < whole["robust"] < 1.0


def test_memory_does_not_grow_with_the_batches() -> None:
    """What is kept of a batch are its verdicts: in the last of ten NumPy holds what it does in the only one."""
    import tracemalloc

    network = keras.Sequential([keras.Input((16, 16, 1)), layers.Flatten(), layers.Dense(10)])
    x = np.random.default_rng(0).random((640, 16, 16, 1)).astype("float32")
    y = kbl.attacks.predict(network, x).argmax(axis=1)  # all are right, so all are attacked
    numpys = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)

    def held(count: int) -> int:
        """Return the bytes of NumPy's arrays while the last batch is under attack."""
        seen = []

        def look(label: str, state: kbl.attacks.Progress) -> None:
            if state.done > count - 64:
                traces = tracemalloc.take_snapshot().filter_traces([numpys]).traces
                seen.append(sum(trace.size for trace in traces))

        attack = kbl.attacks.PGD(0.01, 0.005, 2)
        tracemalloc.start()
        kbl.evaluate(network, x[:count], y[:count], [attack], batch_size=64, diagnostics=False, progress=look)
        tracemalloc.stop()
        return max(seen)

    first = held(64)
    # The checked copy of the images and the verdicts; of no batch but the last what the attack returned.
    assert held(640) - first < 1.4 * x[64:].nbytes
