"""A run that is killed and gone on with ends with the numbers of one that was not."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np

from kbl.layers import GMMHead

RECIPE = """
[data]
name = "digits"
limit = 220

[data.augmentation]
crop_padding = 1

[network]
name = "digits_convnet"
batch_normalization = true

[method]
name = "atblr"
likelihood_weight = 0.02
gradient_through = "means"

[method.attack]
name = "pgd"
epsilon = 0.15
steps = 2

[training]
epochs = 4
batch_size = 16
learning_rate = 0.002
schedule = "one_cycle"
epsilon_warmup_epochs = 3
seed = 7

[evaluation]
samples = 20

[[evaluation.attacks]]
name = "fgsm"
epsilon = 0.15
"""


def start(folder: Path, *words: str) -> subprocess.Popen:
    """Begin `kbl run` on the backend of this process, with one thread, so that sums have one order."""
    command = [sys.executable, "-m", "kbl", "run", str(folder.parent / "tiny.toml"), "--out", str(folder)]
    command += ["--backend", keras.config.backend(), "--quiet", *words]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def finish(process: subprocess.Popen) -> None:
    try:
        output, _ = process.communicate(timeout=900)
    finally:
        process.kill()
    assert process.returncode == 0, output


def rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


def killed_after_an_epoch(folder: Path) -> list[dict[str, str]]:
    """Begin a run and kill it after its first epoch; return the history that it leaves."""
    process = start(folder)
    until = time.monotonic() + 900
    while not list(folder.glob("checkpoint-*")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output
    return rows(folder / "history.csv")


def test_resumed_run_equals_the_unbroken_one(tmp_path) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(whole))
    left = killed_after_an_epoch(broken)
    assert 1 <= len(left) < 4, "the run must be cut in its middle"
    assert not (broken / "evaluation.json").exists()
    finish(start(broken, "--resume"))
    expected = rows(whole / "history.csv")
    assert len(expected) == 4
    assert rows(broken / "history.csv") == expected
    assert left == expected[: len(left)]
    assert rows(broken / "batches.csv") == rows(whole / "batches.csv")
    for name in ("model.keras", "best.keras"):
        pair = [keras.saving.load_model(folder / name) for folder in (whole, broken)]
        assert isinstance(pair[0].layers[-1], GMMHead)
        for a, b in zip(*(network.get_weights() for network in pair), strict=True):
            np.testing.assert_array_equal(a, b)
    assert sorted(path.name for path in broken.iterdir()) == sorted(path.name for path in whole.iterdir())
