"""Suites: what a file plans, what a run leaves, and that one failure does not stop the rest."""

import json
import tomllib

import pytest
from typer.testing import CliRunner

from kbl import suite as suites
from kbl.cli import app
from kbl.errors import UserError
from kbl.recipe import RecipeError, check, is_suite, packaged, plan
from kbl.report import read_suite
from kbl.report.suite_table import to_markdown

SUITE = """
name = "small"
title = "A small table"

[base.data]
name = "digits"
limit = 24

[base.network]
name = "digits_convnet"

[base.method]
name = "natural"

[base.training]
epochs = 1
batch_size = 8
validation_split = 0.25

[base.evaluation]
samples = 6
diagnostics = false

[[base.evaluation.attacks]]
name = "fgsm"
label = "FGSM"
epsilon = 0.1

[scales.paper]
note = "the paper's settings"
seeds = [0, 1]

[scales.cpu]
note = "less of everything"
changes = { "training.epochs" = 2, "data.limit" = 16 }

[[groups]]
id = "all"
label = "Every method"
[groups.changes]
"training.learning_rate" = 0.002
[groups.scales.cpu]
"training.learning_rate" = 0.004

[[runs]]
id = "plain"
label = "Natural"
group = "all"
paper = { Clean = 90.0, FGSM = 40.0 }

[[runs]]
id = "smooth"
label = "Smoothed"
changes = { "network.head" = "dense" }
grid = { "method.label_smoothing" = [0.0, 0.1] }

[[measures]]
label = "Clean"

[[measures]]
label = "FGSM"
attack = "FGSM"

[[figures]]
kind = "sweep"
key = "method.label_smoothing"
axis = "smoothing"

[[figures]]
kind = "likelihood"
runs = ["plain"]

[[figures]]
kind = "features"
runs = ["plain"]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SUITE, encoding="utf-8")
    return path


def test_what_a_suite_plans(file) -> None:
    planned = plan(file, ["scale=cpu"])
    assert [run.folder for run in planned.runs] == ["plain-seed0", "smooth-0.0-seed0", "smooth-0.1-seed0"]
    plain, zero, tenth = (run.recipe for run in planned.runs)
    assert (plain.training.epochs, plain.data.limit, plain.training.learning_rate) == (2, 16, 0.004)
    assert (zero.training.learning_rate, zero.network.head) == (0.001, "dense")
    assert (zero.method.label_smoothing, tenth.method.label_smoothing) == (0.0, 0.1)
    assert planned.note == "less of everything"
    assert planned.runs[2].label == "Smoothed (label_smoothing 0.1)"
    both = plan(file, ["training.epochs=3", "only=['plain']"])
    assert [(run.seed, run.recipe.training.seed, run.recipe.training.epochs) for run in both.chosen] == [
        (0, 0, 3),
        (1, 1, 3),
    ]
    assert len(both.runs) == 6
    assert both.note == "the paper's settings; changed by --set: training.epochs = 3"
    assert plan(file, ["seeds=[2, 3]", "data.limit=none", "backend=jax"]).note == (
        'the paper\'s settings; changed by --set: seeds = [2, 3], data.limit = nothing, backend = "jax"'
    )


def test_one_seed_or_id_needs_no_list(file) -> None:
    planned = plan(file, ["only=plain", "seeds=3"])
    assert [run.folder for run in planned.chosen] == ["plain-seed3"]


def test_nothing_removes_a_key(file) -> None:
    file.write_text(
        SUITE.replace("[base.evaluation]", "[base.data.augmentation]\nmirror = true\n\n[base.evaluation]")
    )
    assert plan(file).runs[0].recipe.data.augmentation.mirror
    assert not plan(file, ["data.augmentation=none"]).runs[0].recipe.data.augmentation.mirror


def test_a_change_must_fit_the_runs_that_were_asked_for(file) -> None:
    needy = ["scale=cpu", "evaluation.detect=true"]  # refused with the dense head of the others
    assert [run.id for run in plan(file, [*needy, "only=plain"]).runs] == ["plain"]
    with pytest.raises(RecipeError, match="needs the Gaussian head"):
        plan(file, needy)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            "only=plan",
            'only: expected ids of runs (plain, smooth-0.0, smooth-0.1), received plan, did you mean "plain"?',
        ),
        ("only=['smooth']", "only: expected ids of runs (plain, smooth-0.0, smooth-0.1), received smooth"),
        ("only=5", "only.0: expected a string, received 5"),
        ("only=[]", "only: expected at least 1 entry, received []"),
        ("seeds=x", 'seeds.0: expected an integer, received "x"'),
        ("seeds=[0, true]", "seeds.1: expected an integer, received true"),
        ("seeds=[0, 1, 0]", "seeds: expected seeds that differ, received [0, 1, 0]"),
        ("seeds=-1", "seeds.0: expected a number greater than or equal to 0, received -1"),
        ("scale=[1]", 'scale: expected "paper", "gpu" or "cpu", received [1]'),
        ("training.seed=3", "training.seed: the seeds of a suite set it: give --set seeds=3"),
        ("training.epochs", "expected key.path=value, received training.epochs"),
        ("training..epochs=3", "expected key.path=value, received training..epochs=3"),
        ("training.epochs.x=3", "runs.plain.training.epochs.x: expected a key of a table or the index of"),
        (
            "evaluation.attacks.99.steps=3",
            "runs.plain.evaluation.attacks.99.steps: expected a key of a table or",
        ),
        (
            "evaluation.attacks.x=3",
            "runs.plain.evaluation.attacks.x: expected a key of a table or the index of",
        ),
        ("evaluation.attacks.0=none", "runs.plain.evaluation.attacks.0: expected a table, received nothing"),
    ],
)
def test_faults_of_what_is_set(file, change: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        plan(file, [change])
    assert ": ".join(filter(None, caught.value.faults[0])).startswith(told)


def test_a_measure_needs_its_attack(file) -> None:
    told = (
        r'measures\.1\.attack: expected the label of an attack \(FGSM\), received FGMS, did you mean "FGSM"\?'
    )
    misspelt = SUITE.replace('attack = "FGSM"', 'attack = "FGMS"')
    file.write_text(misspelt, encoding="utf-8")
    with pytest.raises(RecipeError, match=told):
        plan(file)
    # What has no label is called as the attack itself says, which is known once it is built.
    file.write_text(misspelt.replace('label = "FGSM"\nepsilon', "epsilon"), encoding="utf-8")
    assert plan(file).runs


def test_every_fault_is_listed(file, tmp_path) -> None:
    with pytest.raises(RecipeError, match="scale: expected one of paper, cpu, received gpu"):
        plan(file, ["scale=gpu"])
    broken = SUITE.replace('"network.head" = "dense"', '"network.heed" = "dense"')
    broken = broken.replace('group = "all"', 'group = "none"').replace("Clean = 90.0", "Klean = 90.0")
    file.write_text(broken.replace('runs = ["plain"]', 'runs = ["plane"]', 1), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        plan(file)
    told = {fault.key: fault.message for fault in caught.value.faults}
    assert told["runs.plain.group"] == "expected the id of a group, received none"
    assert told["runs.plain.paper"] == "expected labels of measures, received Klean"
    assert told["figures.1.runs"] == "expected ids of runs, received plane"
    assert told["runs.smooth-0.1.network.heed"].startswith('unknown key, did you mean "head"?')
    file.write_text(SUITE.replace("title =", "titel ="), encoding="utf-8")
    with pytest.raises(RecipeError, match=r'titel: unknown key, did you mean "title"\?'):
        plan(file)
    assert is_suite(file)
    assert not is_suite("digits")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('note = "less of everything"\n', "", "scales.cpu.note: expected a value, received nothing"),
        ("[scales.cpu]", "[scales.tpu]", 'scales.tpu: expected "paper", "gpu" or "cpu", received "tpu"'),
        ("seeds = [0, 1]", "seeds = []", "scales.paper.seeds: expected at least 1 entry, received []"),
        (
            "seeds = [0, 1]",
            "seeds = [-1]",
            "scales.paper.seeds.0: expected a number greater than or equal to 0",
        ),
        (
            "seeds = [0, 1]",
            "seeds = [1, 1]",
            "scales.paper.seeds: expected seeds that differ, received [1, 1]",
        ),
        (
            "[0.0, 0.1]",
            "[0.1, 0.1]",
            "runs.smooth-0.1: expected an id for each run, received this one 2 times",
        ),
        ("Clean = 90.0", 'Clean = "x"', "runs.0.paper.Clean: expected a number or a fraction"),
        ('axis = "smoothing"', "", "figures.0.axis: expected a value, received nothing"),
        (
            'kind = "sweep"',
            'kind = "swep"',
            'figures.0.kind: expected one of "likelihood", "sweep", "features"',
        ),
    ],
)
def test_faults_of_the_file_inside_tables_of_free_keys(file, old: str, new: str, told: str) -> None:
    file.write_text(SUITE.replace(old, new), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        plan(file)
    [fault] = caught.value.faults
    assert f"{fault.key}: {fault.message}".startswith(told)


def test_a_suite_needs_a_scale(file) -> None:
    start, end = SUITE.index("[scales"), SUITE.index("[[groups")
    file.write_text("scales = {}\n" + SUITE[:start] + SUITE[end:], encoding="utf-8")
    with pytest.raises(RecipeError, match=r"scales: expected at least 1 entry, received \{\}"):
        plan(file)


def test_without_the_papers_scale_the_first_is_planned(file) -> None:
    start, end = SUITE.index("[scales.paper"), SUITE.index("[scales.cpu")
    file.write_text(SUITE[:start] + SUITE[end:], encoding="utf-8")
    assert plan(file).scale == "cpu"
    with pytest.raises(RecipeError, match="scale: expected one of cpu, received paper"):
        plan(file, ["scale=paper"])


@pytest.mark.parametrize("path", [path for path in packaged() if is_suite(path)], ids=lambda path: path.stem)
def test_packaged_suites_are_valid_at_every_scale(path) -> None:
    check(path)
    scales = tomllib.loads(path.read_text(encoding="utf-8"))["scales"]
    for scale in scales:
        planned = plan(path, [f"scale={scale}"])
        labels = {attack.label for run in planned.runs for attack in run.recipe.evaluation.attacks}
        assert {measure.attack for measure in planned.suite.measures} - {None} <= labels
        assert planned.note
    if path.parent.name == "paper":
        assert list(scales) == ["paper", "gpu", "cpu"]
        assert "not comparable with the paper" in planned.note


@pytest.mark.parametrize(
    ("name", "runs", "values"), [("table1", 2, 26), ("table2", 12, 72), ("table3", 12, 72), ("table4", 6, 24)]
)
def test_the_papers_tables_are_whole(name: str, runs: int, values: int) -> None:
    planned = plan(name).runs
    assert len(planned) == runs
    assert sum(len(run.paper) for run in planned) == values
    assert all(run.recipe.training.epochs in (50, 200) for run in planned)


def test_a_suite_runs_fails_goes_on_and_reports(file, tmp_path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    planned = plan(file, ["scale=cpu", "seeds=[0, 1]", "only=['plain', 'smooth-0.1']"])
    unfinished = folder / "smooth-0.1-seed0"
    unfinished.mkdir()
    (unfinished / "recipe.toml").write_text("name = 'another'\n", encoding="utf-8")
    failed = suites.run(planned, folder, quiet=True)
    assert len(failed) == 1
    assert failed[0].startswith("smooth-0.1-seed0: the recipe differs from")
    content = json.loads((folder / "suite.json").read_text(encoding="utf-8"))
    states = {run["folder"]: run["state"] for run in content["runs"]}
    assert states == {
        "plain-seed0": "finished",
        "smooth-0.1-seed0": "failed",
        "plain-seed1": "finished",
        "smooth-0.1-seed1": "finished",
    }
    plain = [run for run in content["runs"] if run["id"] == "plain"]
    result = json.loads((folder / "plain-seed0" / "evaluation.json").read_text(encoding="utf-8"))
    assert plain[0]["values"] == {
        "Clean": 100 * result["clean"],
        "FGSM": 100 * result["attacks"][0]["accuracy"],
    }
    mean = (plain[0]["values"]["Clean"] + plain[1]["values"]["Clean"]) / 2
    table = (folder / "table.md").read_text(encoding="utf-8")
    assert table.startswith("# A small table (cpu scale)\n\nScale cpu: less of everything")
    assert f"| Natural | {mean:.1f} ± " in table
    assert f"(paper 90, {mean - 90:+.1f}) |" in table
    assert "in brackets the paper's value" in table
    without = {**content, "runs": [{**run, "paper": {}} for run in content["runs"]]}
    assert "paper" not in to_markdown(without)
    assert "- Smoothed (label_smoothing 0.1): failed: the recipe differs" in table
    # Each run keeps the backend that it was measured on, whichever the suite was gone on with.
    assert {run["backend"] for run in content["runs"] if run["state"] == "finished"} == {result["backend"]}
    assert f"of 2 seeds, on {result['backend']};" in table
    place = folder / "plain-seed1" / "evaluation.json"
    measured = json.loads(place.read_text(encoding="utf-8"))
    place.write_text(json.dumps({**measured, "backend": "another"}), encoding="utf-8")
    mixed = to_markdown(suites.measured(planned, folder))
    place.write_text(json.dumps(measured), encoding="utf-8")
    both = " and ".join(sorted(["another", result["backend"]]))
    assert f"of 2 seeds, on {both};" in mixed
    assert f"| Natural ({both}) |" in mixed
    assert f"| Smoothed (label_smoothing 0.1) ({result['backend']}) |" in mixed
    older = {**content, "backend": "old", "runs": [{**run, "backend": None} for run in content["runs"]]}
    assert "of 2 seeds, on old;" in to_markdown(older)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "A small table (cpu scale)" in page
    assert page.count("data:image/png;base64,") == 3
    assert {path.stem for path in (folder / "figures").iterdir()} == {"sweep", "likelihood", "features"}
    # Once what was wrong is gone, the second call runs that one alone.
    (unfinished / "recipe.toml").unlink()
    before = (folder / "plain-seed0" / "report.html").stat().st_mtime_ns
    assert suites.run(planned, folder, quiet=True) == []
    assert (folder / "plain-seed0" / "report.html").stat().st_mtime_ns == before
    again = json.loads((folder / "suite.json").read_text(encoding="utf-8"))
    assert {run["state"] for run in again["runs"]} == {"finished"}
    # One run alone is asked for: the others stay in the table, but for those that never ran.
    assert suites.run(plan(file, ["scale=cpu", "seeds=[0, 1]", "only=plain"]), folder, quiet=True) == []
    content = json.loads((folder / "suite.json").read_text(encoding="utf-8"))
    assert {run["folder"]: run["state"] for run in content["runs"]} == dict.fromkeys(states, "finished")
    # Under other settings what is there is not taken for their result.
    changed = plan(file, ["scale=cpu", "only=plain", "training.learning_rate=0.1"])
    [told] = suites.run(changed, folder, quiet=True)
    assert "changed by --set: training.learning_rate = 0.1." in (folder / "table.md").read_text(
        encoding="utf-8"
    )
    assert told.startswith("plain-seed0: the recipe differs from ")
    assert told.endswith(
        "plain-seed0/recipe.toml in training.learning_rate (0.004 there, 0.1 here): "
        "remove that folder, or give another one by --out"
    )
    content = json.loads((folder / "suite.json").read_text(encoding="utf-8"))
    assert {run["folder"]: run["state"] for run in content["runs"]} == {
        "plain-seed0": "failed",
        "smooth-0.1-seed0": "failed",
    }
    assert (folder / "plain-seed0" / "report.html").stat().st_mtime_ns == before


def test_the_shell(file, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["run", str(file), "--set", "scale=cpu", "--set", "only=['plain']", "--out", "out", "--quiet"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "# A small table (cpu scale)" in done.output
    shown = CliRunner().invoke(app, ["report", "out", "--markdown", "table.md"])
    assert shown.exit_code == 0, shown.output
    assert (tmp_path / "table.md").read_text() == (tmp_path / "out" / "table.md").read_text()
    assert CliRunner().invoke(app, ["check", str(file), "table1"]).exit_code == 0
    assert CliRunner().invoke(app, [*words, "--resume"]).exit_code == 0
    forced = CliRunner().invoke(app, [*words, "--force"])
    assert forced.exit_code == 2
    assert "--force: a suite replaces no run" in forced.output
    (tmp_path / "out" / "plain-seed0" / "report.html").unlink()
    (tmp_path / "out" / "plain-seed0" / "recipe.toml").write_text("name = 'x'\n")
    failed = CliRunner().invoke(app, words)
    assert failed.exit_code == 2
    assert "1 of 1 runs failed" in failed.output
    refused = CliRunner().invoke(app, ["run", str(file), "--out", str(file)])
    assert refused.exit_code == 2
    assert f"--out: expected a folder, received the file {file}" in refused.output
    inside = CliRunner().invoke(app, ["run", str(file), "--out", str(file / "sub")])
    assert inside.exit_code == 2
    assert f"Not a directory: {file / 'sub'}; give a path that can be read and written" in inside.output
    with pytest.raises(UserError, match="holds no suite"):
        read_suite(tmp_path)
