"""Where images come from: one file a source, one form (`Dataset`) for all."""

import difflib
from pathlib import Path
from typing import Any

from kbl.data import digits, npz
from kbl.data.dataset import Dataset
from kbl.data.published import CIFAR10, CIFAR100, MNIST
from kbl.errors import UserError

__all__ = ["Dataset", "load", "locate", "names"]

_SOURCES: dict[str, Any] = {"digits": digits, "mnist": MNIST, "cifar10": CIFAR10, "cifar100": CIFAR100}


def names() -> tuple[str, ...]:
    """Return the names that `load` knows beside paths of .npz files."""
    return tuple(_SOURCES)


def _check(name: str) -> None:
    """Raise a UserError unless `name` is a source or a path ending in .npz."""
    if name in _SOURCES or name.endswith(".npz"):
        return
    near = difflib.get_close_matches(name, _SOURCES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(
        f"Unknown dataset: expected {', '.join(map(repr, _SOURCES))} or a path ending in .npz. "
        f"Received: {name!r}.{hint}"
    )


def load(name: str, limit: int | None = None) -> Dataset:
    """Load a dataset.

    Args:
        name: one of `names()`, or the path of an .npz file (see `kbl.data.npz.load`).
        limit: keep only this many training images, at least 1; None keeps all.

    Raises:
        UserError: the name is unknown, or the data is missing or malformed.
    """
    _check(name)
    dataset = _SOURCES[name].load() if name in _SOURCES else npz.load(name)
    return dataset if limit is None else dataset.limited(limit)


def locate(name: str) -> Path | None:
    """Return the file that `load` would read, or None when there is none on this machine.

    Raises:
        UserError: the name is unknown.
    """
    _check(name)
    if name in _SOURCES:
        return _SOURCES[name].locate()
    path = Path(name).expanduser()
    return path if path.is_file() else None
