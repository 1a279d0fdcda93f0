"""What of kbl's surroundings works on this machine."""

import os
import platform
from importlib import metadata

import kbl
from kbl import backend_choice


def examine(backend: str | None) -> tuple[list[tuple[str, str]], bool]:
    """Look at the installation.

    Args:
        backend: the backend that `--backend` asks for, if any.

    Returns:
        Rows of (what, found), and whether kbl can run.
    """
    rows = [
        ("kbl", kbl.__version__),
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("keras", _version("keras")),
    ]
    for name in backend_choice.BACKENDS:
        is_there = name in backend_choice.installed()
        rows.append((name, _version(name) if is_there else f"not installed; pip install 'kbl[{name}]'"))
    try:
        chosen = backend_choice.choose(backend)
        from kbl import backend as framework

        devices = ", ".join(framework.devices())
    except Exception as error:  # a broken installation raises whatever it likes
        rows.append(("backend", str(error)))
        return rows + _data(), False
    return [*rows, ("backend", chosen), ("devices", devices), *_data()], True


def _data() -> list[tuple[str, str]]:
    from kbl import data

    mnist = data.locate("mnist")
    missing = "not found; put mnist.npz into a folder and set KBL_DATA to it, or let Keras download it"
    return [("KBL_DATA", os.environ.get("KBL_DATA") or "not set"), ("mnist", str(mnist or missing))]


def _version(module: str) -> str:
    """Return the version of what provides a module, which need not bear its name: tensorflow-cpu has tensorflow."""
    return ", ".join(
        f"{metadata.version(name)} ({name})" if name != module else metadata.version(name)
        for name in sorted(set(metadata.packages_distributions().get(module, [])))
    )
