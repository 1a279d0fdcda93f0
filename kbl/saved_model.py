"""Models from ``.keras`` files and run folders."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from kbl.errors import UserError
from kbl.training import RobustModel


def load_network(path: Path) -> Any:
    """Load a run folder's model, with its purifier where it has one, or a ``.keras`` file without running code from it.

    Args:
        path: the folder or the file.

    Returns:
        The model; of a `RobustModel` its network.

    Raises:
        UserError: it is corrupt, not a Keras model, or holds code or layers that safe mode refuses.
    """
    if path.is_dir():
        whole = path / "purified.keras"
        path = whole if whole.is_file() else path / "model.keras"
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path} is not a Keras model that can be loaded safely: {reason}") from error
    return model.network if isinstance(model, RobustModel) else model


def have_same_weights(network: Any, other: Any) -> bool:
    """Tell whether two networks have equal weights, one by one."""
    pair = [each.get_weights() for each in (network, other)]
    return len(pair[0]) == len(pair[1]) and all(map(np.array_equal, *pair))
