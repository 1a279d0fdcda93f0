import json
import os
import subprocess
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kbl import DivergenceError, backend_choice
from kbl.cli import app
from kbl.recipe import to_toml

pytestmark = pytest.mark.once

RECIPE = """
[data]
name = "digits"

[network]
name = "digits_convnet"

[method]
name = "natural"

[training]
epochs = 1
"""
RESULT = {
    "clean": 0.97,
    "robust": 0.5,
    "examples": 100,
    "attacks": [
        {"label": "PGD-20", "name": "pgd", "parameters": {"epsilon": 0.1, "steps": 20}, "accuracy": 0.5}
    ],
    "warnings": [{"name": "masking", "message": "gradients are zero", "remedy": "look at the logits"}],
}


class Experiment(types.ModuleType):
    """Stands in for kbl.experiment: leaves a run's files and keeps what it was called with."""

    def __init__(self):
        super().__init__("kbl.experiment")
        self.calls = []
        self.error = None

    def run(self, recipe, folder, *, resume, force, quiet):
        self.calls.append((recipe, folder, resume, quiet))
        self.force = force
        (folder / "recipe.toml").write_text(to_toml(recipe))
        if self.error:
            raise self.error
        (folder / "model.keras").write_text("")
        (folder / "evaluation.json").write_text(json.dumps(RESULT))
        (folder / "report.html").write_text("")
        return RESULT

    def evaluate(self, path, *, data, attacks, samples, quiet, **options):
        self.calls.append((path, data, attacks, samples, quiet))
        self.options = options
        if self.error:
            raise self.error
        return RESULT


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current folder with a recipe, and backends that only seem to be installed."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(RECIPE)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setattr(backend_choice, "find_spec", lambda name: name)
    return tmp_path


@pytest.fixture
def experiment(monkeypatch):
    import kbl

    fake = Experiment()
    monkeypatch.setitem(sys.modules, "kbl.experiment", fake)
    monkeypatch.setattr(kbl, "experiment", fake, raising=False)
    return fake


def kbl(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


# What is imported, and how fast.


@pytest.mark.parametrize("module", ["kbl", "kbl.cli"])
def test_imports_nothing_heavy(module):
    heavy = "{'keras', 'numpy', 'matplotlib', 'pydantic', 'torch', 'jax', 'tensorflow'}"
    done = python(f"import sys, {module}; print({heavy} & set(sys.modules))")
    assert done.stdout.strip() == "set()", done.stderr


def test_help_is_fast():
    """In processor time, which other work on the machine does not change."""

    def seconds():
        before = os.times()
        subprocess.run([sys.executable, "-m", "kbl", "--help"], capture_output=True, check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(3)) < 0.5


# The choice of a backend.


def test_backend_order(monkeypatch):
    assert backend_choice.choose("jax", "tensorflow") == "jax"
    assert os.environ["KERAS_BACKEND"] == "jax"
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert backend_choice.choose(None, "tensorflow") == "torch"
    monkeypatch.delenv("KERAS_BACKEND")
    assert backend_choice.choose(None, "tensorflow") == "tensorflow"
    monkeypatch.delenv("KERAS_BACKEND")
    assert backend_choice.choose() == "torch"
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setattr(backend_choice, "find_spec", lambda name: name if name == "jax" else None)
    assert backend_choice.choose() == "jax"


def test_backend_reaches_keras_before_the_experiment(experiment, monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND")
    assert kbl("run", "tiny.toml", "--set", "backend=jax").exit_code == 0
    assert experiment.calls[0][1] == Path("runs/tiny-jax")
    assert os.environ["KERAS_BACKEND"] == "jax"


@pytest.mark.parametrize(
    ("words", "installed", "message"),
    [
        (["--backend", "jax"], {"torch"}, "pip install 'kbl[jax]'"),
        (["--backend", "Torch"], {"torch"}, "did you mean torch?"),
        ([], {"jax"}, "KERAS_BACKEND is torch, which is not installed"),
    ],
)
def test_backend_that_cannot_be_had(words, installed, message, monkeypatch):
    monkeypatch.setattr(backend_choice, "find_spec", lambda name: name if name in installed else None)
    done = kbl("run", "tiny.toml", *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_backend_at_all(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setattr(backend_choice, "find_spec", lambda name: None)
    done = kbl("run", "tiny.toml")
    assert (done.exit_code, "no backend is installed" in done.stderr) == (2, True)


# kbl run.


def test_run_prints_table_warnings_and_report(experiment):
    done = kbl("run", "tiny.toml", "--set", "training.epochs=4", "--quiet")
    assert done.exit_code == 0, done.output
    recipe, folder, resume, quiet = experiment.calls[0]
    assert (recipe.training.epochs, folder, resume, quiet) == (4, Path("runs/tiny-torch"), False, True)
    assert "97.0 %" in done.stdout
    assert "PGD-20" in done.stdout
    assert f"Report: {Path('runs/tiny-torch/report.html')}" in done.stdout
    assert "Warning: masking gradients are zero look at the logits" in done.stderr


def test_runs_are_numbered(experiment):
    for _ in range(3):
        assert kbl("run", "tiny.toml").exit_code == 0
    assert [call[1].name for call in experiment.calls] == ["tiny-torch", "tiny-torch-2", "tiny-torch-3"]


def test_every_fault_of_a_recipe_is_told(experiment):
    Path("bad.toml").write_text(RECIPE.replace("epochs", "epoch").replace('"natural"', '"naturl"'))
    done = kbl("run", "bad.toml")
    assert done.exit_code == 2
    assert "bad.toml has 3 faults" in done.stderr
    assert 'training.epoch: unknown key, did you mean "epochs"?' in done.stderr
    assert 'did you mean "natural"?' in done.stderr
    assert not experiment.calls


def test_unknown_recipe():
    done = kbl("run", "digit")
    assert done.exit_code == 2
    assert 'did you mean "digits"?' in done.stderr


def test_a_finished_folder_is_safe(experiment):
    assert kbl("run", "tiny.toml", "--out", "there").exit_code == 0
    Path("there/old").mkdir()
    again = kbl("run", "tiny.toml", "--out", "there")
    assert again.exit_code == 2
    assert "--force" in again.stderr
    assert "--out" in again.stderr
    resumed = kbl("run", "tiny.toml", "--out", "there", "--resume")
    assert (resumed.exit_code, "is finished" in resumed.stdout) == (0, True)
    assert len(experiment.calls) == 1
    assert not experiment.force
    assert kbl("run", "tiny.toml", "--out", "there", "--force").exit_code == 0
    assert experiment.force
    assert Path("there/old").exists(), "what is there is for the experiment to remove"


def test_an_unfinished_folder_is_gone_on_with_or_replaced(experiment):
    experiment.error = DivergenceError("the likelihood term runs away")
    failed = kbl("run", "tiny.toml", "--out", "there")
    assert (failed.exit_code, failed.stderr.strip()) == (3, "kbl: the likelihood term runs away")
    experiment.error = None
    assert "--resume" in kbl("run", "tiny.toml", "--out", "there").stderr
    assert kbl("run", "tiny.toml", "--out", "there", "--resume").exit_code == 0
    assert [call[2] for call in experiment.calls] == [False, True]


@pytest.mark.parametrize("error", [None, KeyboardInterrupt()], ids=["finished", "unfinished"])
def test_another_recipe_is_not_gone_on_with(experiment, error):
    """Neither is a finished run of other settings taken for the one that was asked for."""
    experiment.error = error
    kbl("run", "tiny.toml", "--set", "training.epochs=5", "--out", "a b")
    done = kbl("run", "tiny.toml", "--set", "data.limit=9", "--out", "a b", "--resume")
    assert done.exit_code == 2
    assert done.stderr.strip() == (
        f"kbl: the recipe differs from {Path('a b/recipe.toml')} in data.limit (nothing there, 9 here), "
        "training.epochs (5 there, 1 here): go on with that one by kbl run 'a b/recipe.toml' --out 'a b' --resume, "
        "or begin another run by another --out"
    )
    assert len(experiment.calls) == 1
    experiment.error = None
    assert kbl("run", "a b/recipe.toml", "--out", "a b", "--resume").exit_code == 0
    assert len(experiment.calls) == (1 if error is None else 2)


def test_resume_finds_the_newest_unfinished_run(experiment):
    assert kbl("run", "tiny.toml", "--resume").exit_code == 0  # nothing to go on with: begins
    experiment.error = KeyboardInterrupt()
    assert kbl("run", "tiny.toml").exit_code == 130
    assert kbl("run", "tiny.toml", "--backend", "jax").exit_code == 130
    experiment.error = None
    assert kbl("run", "tiny.toml", "--resume", "--backend", "torch").exit_code == 0
    names = [(call[1].name, call[2]) for call in experiment.calls]
    assert names == [
        ("tiny-torch", False),
        ("tiny-torch-2", False),
        ("tiny-jax", False),
        ("tiny-torch-2", True),
    ]
    assert "nothing to resume" in kbl("run", "tiny.toml", "--resume").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "tiny.toml"], "--out: expected a folder, received the file tiny.toml"),
        (
            ["--out", "tiny.toml/sub"],
            "Not a directory: tiny.toml/sub; give a path that can be read and written",
        ),
        (["--out", ".", "--force"], "holds files but no run of kbl"),
        (["--out", "a", "--force", "--resume"], "give one of them"),
        (["--force"], "without --out"),
    ],
)
def test_folders_that_are_refused(experiment, folder, words, message):
    done = kbl("run", "tiny.toml", *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (folder / "tiny.toml").is_file()
    assert not experiment.calls


@pytest.mark.parametrize("option", ["--out", "--json", "--html", "--markdown"])
@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a folder that takes no files, whoever asks")
def test_where_nothing_can_be_written(experiment, option):
    """Said before the work is done."""
    kbl("run", "tiny.toml", "--out", "there")
    words = {"--out": ["run", "tiny.toml"], "--json": ["eval", "there"]}.get(option, ["report", "there"])
    done = kbl(*words, option, "/proc/new")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "/proc/new" in done.stderr
    assert "No such file or directory" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert len(experiment.calls) == 1


@pytest.mark.parametrize("file", ["there", "nowhere/page"])
@pytest.mark.parametrize("option", ["--html", "--markdown"])
def test_report_refuses(experiment, option, file):
    kbl("run", "tiny.toml", "--out", "there")
    done = kbl("report", "there", option, file)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{option}: expected a file in a folder that exists, received {file}" in done.stderr


def test_errors_that_name_no_file_are_not_hidden(experiment):
    experiment.error = OSError("the library cannot be loaded")
    assert isinstance(kbl("run", "tiny.toml").exception, OSError)


def test_force_never_empties_the_current_folder(experiment, folder):
    (folder / "recipe.toml").write_text(RECIPE)
    done = kbl("run", "recipe.toml", "--out", folder, "--force")
    assert (done.exit_code, "current folder" in done.stderr) == (2, True)
    assert (folder / "tiny.toml").is_file()


def test_ctrl_c_tells_how_to_go_on(experiment):
    experiment.error = KeyboardInterrupt()
    done = kbl("run", "tiny.toml", "--set", "description=two words", "--out", "there")
    assert done.exit_code == 130
    assert done.stderr.strip() == (
        "kbl: stopped; go on with: kbl run tiny.toml --backend torch "
        "--set 'description=two words' --out there --resume"
    )


# The other commands.


def test_eval_takes_the_newest_run(experiment):
    assert "train one with" in kbl("eval").stderr
    kbl("run", "tiny.toml")
    kbl("run", "tiny.toml")
    os.utime("runs/tiny-torch-2/model.keras", (0, 0))
    attack = "pgd:steps=40,epsilon=8/255,restarts=3"
    words = ["--attack", attack, "--data", "my.npz", "--samples", 9, "--json", "out.json", "--quiet"]
    done = kbl("eval", *words)
    assert done.exit_code == 0, done.output
    path, data, attacks, samples, quiet = experiment.calls[-1]
    assert (path, data, samples, quiet) == (Path("runs/tiny-torch"), str(Path("my.npz").absolute()), 9, True)
    assert attacks[0].restarts == 3
    assert json.loads(Path("out.json").read_text()) == RESULT
    assert sorted(path.name for path in Path().iterdir()) == ["out.json", "runs", "tiny.toml"]
    assert "PGD-20" in done.stdout
    assert "Warning: masking" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "expected a run folder or a .keras file"),
        (["."], "a folder without model.keras"),
        (["--attack", "pdg:epsilon=1"], 'did you mean "pgd"?'),
        (["--data", "mnits"], 'did you mean "mnist"?'),
        (["--json", "no/such/folder.json"], "expected a file in a folder that exists"),
        (["--samples", "0"], "--samples"),
    ],
)
def test_eval_refuses(experiment, words, message):
    done = kbl("eval", *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not experiment.calls


def test_check_tells_of_every_recipe():
    Path("bad.toml").write_text("x = 1")
    Path("worse.toml").write_text("x == 1")
    done = kbl("check", "tiny.toml", "bad.toml", "worse.toml")
    assert done.exit_code == 2
    assert "tiny.toml: valid" in done.stdout
    assert "bad.toml has 5 faults" in done.stderr
    assert "worse.toml:1: not valid TOML" in done.stderr
    assert kbl("check", "tiny.toml").exit_code == 0


def test_recipes_are_listed():
    done = kbl("recipes")
    assert done.exit_code == 0
    assert "digits" in done.stdout
    assert "precision" in done.stdout


def test_version_and_misuse():
    import kbl as package

    assert kbl("--version").stdout.strip() == f"kbl {package.__version__}"
    assert kbl("run").exit_code == 2
    assert kbl("trian").exit_code == 2


def test_doctor_tells_what_is_missing(monkeypatch):
    monkeypatch.setattr(backend_choice, "find_spec", lambda name: None)
    done = kbl("doctor")
    assert done.exit_code == 2
    assert "pip install 'kbl[jax]'" in done.stdout


def test_doctor_finds_mnist_and_the_devices(tmp_path):
    (tmp_path / "mnist.npz").write_text("")
    environment = {**os.environ, "KBL_DATA": str(tmp_path), "COLUMNS": "200"}
    backend = next(filter(find_spec, backend_choice.BACKENDS))
    command = [sys.executable, "-m", "kbl", "doctor", "--backend", backend]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout
    assert "cpu" in done.stdout
    assert str(tmp_path / "mnist.npz") in done.stdout
