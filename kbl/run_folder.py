"""Where a run's files go, and which earlier run is meant."""

import itertools
import os
import re
import shlex
import shutil
from pathlib import Path

from kbl.errors import UserError
from kbl.recipe import Recipe, difference

RUNS = Path("runs")


class AlreadyFinished(Exception):  # noqa: N818 - good news is no error
    """There is nothing left to resume; `folder` holds the finished run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(f"{folder} is finished, there is nothing to resume")


def prepare(
    recipe: Recipe, backend: str, *, out: Path | None, resume: bool, force: bool
) -> tuple[Path, bool]:
    """Make the folder of a run.

    Args:
        recipe: what shall be run.
        backend: the backend's name.
        out: the folder that the user asks for; None takes `runs/<name>-<backend>`, numbered where it exists.
        resume: go on with the folder's run, or the newest unfinished one; where there is none, begin one.
        force: allow a folder that holds a run, which `empty` then removes.

    Returns:
        The folder, which exists, and whether it holds a run to go on with.

    Raises:
        AlreadyFinished: the run to resume is finished.
        UserError: the folder holds something that may not be overwritten, or the run to resume is of another recipe.
    """
    if resume and force:
        raise UserError("--resume goes on with a run and --force removes it; give one of them")
    if force and out is None:
        raise UserError("--force replaces the folder given by --out; without --out a run gets a new folder")
    if out is None:
        earlier = _runs_of(recipe.name, backend) if resume else []
        if not earlier:
            return _new(recipe.name, backend), False
        out = next((folder for folder in earlier if not _is_finished(folder)), earlier[0])
    is_used = out.is_dir() and any(out.iterdir())
    if is_used:
        _check_use(recipe, out, resume=resume, force=force)
    make(out)
    return out, resume and is_used


def make(out: Path) -> None:
    """Make the folder that the user asks for, where there is none.

    Raises:
        UserError: it is a file.
        OSError: it cannot be made.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out: expected a folder, received the file {out}")
    out.mkdir(parents=True, exist_ok=True)


def empty(folder: Path) -> None:
    """Remove all that a folder holds."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def newest_model() -> Path:
    """Return the newest run folder that holds a model.

    Raises:
        UserError: there is none.
    """
    models = sorted(RUNS.glob("*/model.keras"), key=lambda path: path.stat().st_mtime)
    if not models:
        raise UserError(f"no run with a model.keras under {RUNS}/; train one with: kbl run digits")
    return models[-1].parent


def find_model(path: Path) -> Path:
    """Return `path`, a run folder or a .keras file, once it is known to hold a model.

    Raises:
        UserError: it does not.
    """
    if path.is_file() or (path / "model.keras").is_file():
        return path
    what = "a folder without model.keras" if path.is_dir() else "what does not exist"
    raise UserError(f"{path}: expected a run folder or a .keras file, received {what}")


def records(model: Path, json_file: Path | None) -> Path | None:
    """Return the file that an evaluation writes after every batch; None where it may not write beside the model.

    Args:
        model: a run folder or a .keras file.
        json_file: where the result shall go, if the user said so; then the records go beside it.
    """
    beside = json_file or (model / "evaluation" if model.is_dir() else model)
    path = beside.with_name(f"{beside.stem}.progress.jsonl")
    return path if os.access(path.parent, os.W_OK) else None


def _runs_of(name: str, backend: str) -> list[Path]:
    """Return the folders of earlier runs of a recipe on a backend, the newest first."""
    wanted = re.compile(rf"{re.escape(name)}-{backend}(-\d+)?")
    runs = [path.parent for path in RUNS.glob("*/recipe.toml") if wanted.fullmatch(path.parent.name)]
    return sorted(runs, key=lambda run: (run / "recipe.toml").stat().st_mtime, reverse=True)


def _new(name: str, backend: str) -> Path:
    """Make the first folder that is still free; two runs started at once never get the same."""
    for number in itertools.count(1):
        folder = RUNS / (f"{name}-{backend}" if number == 1 else f"{name}-{backend}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("unreachable")


def _check_use(recipe: Recipe, folder: Path, *, resume: bool, force: bool) -> None:
    """Check that a folder with files in it may be used."""
    if not any((folder / name).is_file() for name in ("recipe.toml", "evaluation.json")):
        raise UserError(f"{folder} holds files but no run of kbl; give another folder by --out")
    finished = _is_finished(folder)
    if resume and (told := difference(recipe, folder / "recipe.toml")):
        again = shlex.join(["kbl", "run", str(folder / "recipe.toml"), "--out", str(folder), "--resume"])
        raise UserError(f"{told}: go on with that one by {again}, or begin another run by another --out")
    if resume and finished:
        raise AlreadyFinished(folder)
    if force and Path.cwd().is_relative_to(folder.resolve()):
        raise UserError(f"--force would remove the current folder's files; {folder} is it or holds it")
    if not resume and not force:
        state, way = ("a finished", "") if finished else ("an unfinished", "--resume to go on with it, ")
        raise UserError(
            f"{folder} holds {state} run; give {way}--force to replace it, or another folder by --out"
        )


def _is_finished(folder: Path) -> bool:
    return (folder / "report.html").is_file()
