"""Versions of what numbers depend on."""

import platform
from importlib import metadata

import keras

import kbl


def versions() -> dict[str, str]:
    """Return the versions of kbl, Python, Keras, NumPy and the backend's framework, by name."""
    backend = keras.config.backend()
    found = {"kbl": kbl.__version__, "python": platform.python_version()}
    found |= {name: _version(name) for name in ("keras", "numpy")}
    found["platform"] = platform.platform()
    found[backend] = _version(backend, f"{backend}-cpu", f"{backend}_cpu")
    return found


def _version(*names: str) -> str:
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"
