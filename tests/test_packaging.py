import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import kbl

ROOT = Path(__file__).parents[1]

PUBLIC = {
    "DivergenceError",
    "Result",
    "RobustModel",
    "UserError",
    "__version__",
    "attacks",
    "certification",
    "data",
    "evaluate",
    "evaluation",
    "layers",
    "losses",
    "methods",
    "networks",
    "random",
    "training",
}


@pytest.mark.once
def test_the_public_names_are_these():
    assert set(kbl.__all__) == set(dir(kbl)) == PUBLIC
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kbl.nothing  # noqa: B018


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_loads(name):
    assert getattr(kbl, name) is not None


@pytest.mark.once
def test_a_wheel_carries_the_recipes(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("kbl-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    recipes = {f"kbl/{path.relative_to(ROOT)}" for path in (ROOT / "recipes").rglob("*.toml")}
    assert {str(Path(name).parent) for name in recipes} == {
        "kbl/recipes",
        "kbl/recipes/methods",
        "kbl/recipes/paper",
    }
    assert recipes <= names
    assert "kbl/py.typed" in names
    assert not [name for name in names if not name.startswith(("kbl/", "kbl-"))]
    # What is installed finds them, too.
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    check = [sys.executable, "-m", "kbl", "check", *(Path(name).stem for name in recipes)]
    done = subprocess.run(check, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.once
@pytest.mark.parametrize("words", [["cli.py"], ["-m", "kbl"]])
def test_both_ways_to_run_from_a_checkout(words):
    done = subprocess.run(
        [sys.executable, *words, "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"kbl {kbl.__version__}"


@pytest.mark.once
def test_ci_tests_with_versions_inside_the_stated_ranges():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower() for line in lines if "==" in line}
    stated = {requirement.partition(">=")[0] for requirement in project["dependencies"]}
    assert stated <= pinned
    assert {"torch", "jax", "tensorflow-cpu", "keras"} <= pinned
