"""What a run left in its folder, read once."""

import csv
import json
import math
import tomllib
import zipfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kbl.errors import UserError
from kbl.report.formatting import number

Columns: TypeAlias = dict[str, NDArray[np.float64]]
Gallery: TypeAlias = dict[str, NDArray[Any]]

_GALLERY = (
    *("x", "x_adv", "y", "prediction", "prediction_adv"),
    *("confidence", "confidence_adv", "class_names"),
)
_FEATURES = ("clean", "adversarial", "means", "y", "present", "class_names")


@dataclass(frozen=True)
class RunFolder:
    """The files of a run; what is not there is empty, and a missing evaluation None."""

    path: Path
    recipe_text: str
    recipe: dict[str, Any]
    environment: dict[str, Any]
    evaluation: dict[str, Any] | None
    history: Columns
    batches: Columns
    gallery: Gallery
    radii: NDArray[Any]
    features: Gallery

    @property
    def name(self) -> str:
        """The recipe's name, or else the folder's."""
        return str(self.recipe.get("name") or self.path.name)

    @property
    def training_epsilon(self) -> float | None:
        """The radius trained with, where the recipe's `[method]` states exactly one."""
        found = set(_values(self.recipe.get("method"), "epsilon"))
        return found.pop() if len(found) == 1 else None


def read(folder: Path) -> RunFolder:
    """Read a run folder.

    Raises:
        UserError: If the folder does not exist, or holds no file of a run or an unreadable one.
    """
    if not folder.is_dir():
        raise UserError(f"No run folder at {folder}. Give the folder that `kbl run` wrote.")
    known = ("recipe.toml", "environment.json", "history.csv", "evaluation.json")
    if not any((folder / name).is_file() for name in known):
        raise UserError(f"{folder} holds no run: expected one of {', '.join(known)}.")
    recipe_text, recipe = read_recipe(folder)
    return RunFolder(
        path=folder.resolve(),
        recipe_text=recipe_text,
        recipe=recipe,
        environment=read_json(folder / "environment.json") or {},
        evaluation=read_json(folder / "evaluation.json"),
        history=_read_columns(folder / "history.csv"),
        batches=_read_columns(folder / "batches.csv"),
        gallery=_read_arrays(folder / "gallery.npz", _GALLERY),
        radii=_read_radii(folder / "radii.npy"),
        features=_read_features(folder / "features.npz"),
    )


def read_recipe(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of a folder's recipe and what it says, both empty where there is none.

    Raises:
        UserError: If it is not TOML.
    """
    path = folder / "recipe.toml"
    text = _text(path) if path.is_file() else ""
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}.") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}.") from error


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object that a JSON file holds, or None where there is no file.

    Raises:
        UserError: If it holds anything else.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object. Received: {type(content).__name__}.")
    return content


def _read_columns(path: Path) -> Columns:
    """Return the columns of a CSV file as floats.

    An empty cell is NaN; a column of nothing else is left out.
    """
    if not path.is_file():
        return {}
    reader = csv.reader(_text(path).splitlines())
    header = next(reader, [])
    rows = [row + [""] * (len(header) - len(row)) for row in reader if row]
    columns = {
        name: np.array([number(row[index]) for row in rows], dtype=np.float64)
        for index, name in enumerate(header)
    }
    return {name: values for name, values in columns.items() if not np.isnan(values).all()}


def _read_radii(path: Path) -> NDArray[Any]:
    if not path.is_file():
        return np.empty(0)
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error


def _read_features(path: Path) -> Gallery:
    """Return the features in a plane; nothing where a run, as older ones did, projected them on a line."""
    features = _read_arrays(path, _FEATURES)
    return features if features and features["means"].shape[1] == 2 else {}


def _read_arrays(path: Path, names: tuple[str, ...]) -> Gallery:
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            gallery = {name: np.asarray(arrays[name]) for name in names}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        expected = ", ".join(names)
        raise UserError(f"{path} cannot be read: {error}. Expected: {expected}.") from error
    return gallery if len(gallery["y"]) else {}


def _values(table: object, key: str) -> list[float]:
    """Return every number stored under `key` in nested tables."""
    if not isinstance(table, dict):
        return []
    found = [_fraction(table[key])] if key in table else []
    for value in table.values():
        found += _values(value, key)
    return [value for value in found if math.isfinite(value)]


def _fraction(value: object) -> float:
    """Return a number, also one written as a fraction: `"8/255"`."""
    try:
        return float(Fraction(value)) if isinstance(value, str) else number(value)
    except (ValueError, ZeroDivisionError):
        return math.nan
