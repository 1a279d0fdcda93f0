"""Which backend Keras shall run on, decided before Keras is imported."""

import difflib
import os
from importlib.util import find_spec

from kbl.errors import UserError

BACKENDS = ("torch", "jax", "tensorflow")


def installed() -> list[str]:
    """Return the backends that can be imported here, the preferred one first."""
    return [name for name in BACKENDS if find_spec(name) is not None]


def choose(option: str | None = None, recipe: str | None = None) -> str:
    """Choose a backend and tell Keras, which reads the choice when it is first imported.

    The first that is given counts: the option, `KERAS_BACKEND`, the recipe, the first one installed.

    Raises:
        UserError: kbl does not run on that backend, it is not installed, or none is.
    """
    given = (
        ("--backend", option),
        ("KERAS_BACKEND", os.environ.get("KERAS_BACKEND")),
        ("the recipe's backend", recipe),
        ("the installed backend", next(iter(installed()), None)),
    )
    origin, name = next((pair for pair in given if pair[1]), ("", None))
    if name is None:
        raise UserError(
            "no backend is installed; run: pip install 'kbl[torch]' (or kbl[jax], kbl[tensorflow])"
        )
    if name not in BACKENDS:
        near = difflib.get_close_matches(name.lower(), BACKENDS, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise UserError(f"{origin}: expected {', '.join(BACKENDS)}, received {name}{hint}")
    if find_spec(name) is None:
        raise UserError(f"{origin} is {name}, which is not installed; run: pip install 'kbl[{name}]'")
    os.environ["KERAS_BACKEND"] = name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notices
    return name
