"""kbl: train image classifiers that withstand adversarial examples, and measure how well they do, in Keras 3.

Names are loaded when they are first used: `import kbl` imports no Keras.
"""

import importlib
from typing import TYPE_CHECKING, Any

from kbl.errors import DivergenceError, UserError

if TYPE_CHECKING:
    from kbl import (
        attacks,
        certification,
        data,
        evaluation,
        layers,
        losses,
        methods,
        networks,
        random,
        training,
    )
    from kbl.evaluation import Result, evaluate
    from kbl.training import RobustModel

__version__ = "0.1.0"

__all__ = [
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
]

_ROOMS = (
    "attacks",
    "certification",
    "data",
    "evaluation",
    "layers",
    "losses",
    "methods",
    "networks",
    "random",
    "training",
)
_HOMES = {"Result": "evaluation", "RobustModel": "training", "evaluate": "evaluation"}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"kbl.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"kbl.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'kbl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
