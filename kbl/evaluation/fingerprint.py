"""A hash of what an evaluation depends on, the same in every process."""

import hashlib
import json
import re
from typing import Any

import keras
import numpy as np
from keras import ops

from kbl.backend.parts import leaves
from kbl.typing import Network

# Names are counted up as layers are made, so they differ between processes; inner layers are described by themselves.
_LEFT_OUT = ("name", "trainable", "layers", "input_layers", "output_layers")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def fingerprint(*parts: Any) -> str:
    """Return a hash of arrays and of what JSON can write."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(str((part.dtype, part.shape)).encode())
            digest.update(part.tobytes())  # bfloat16 offers no buffer of its own
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def description(network: Network) -> list[tuple[str, str, str]]:
    """Return the type, dtype and settings of each layer that a network is made of, without its weights and names."""
    return [(type(leaf).__qualname__, leaf.compute_dtype, _settings(leaf)) for leaf in leaves(network)]


def _settings(layer: Any) -> str:
    if isinstance(
        layer, keras.layers.TorchModuleWrapper
    ):  # whose buffers Keras does not count among the weights
        state = [ops.convert_to_numpy(value) for value in layer.module.state_dict().values()]
        return _ADDRESS.sub("", str(layer.module)) + fingerprint(*state)
    try:
        text = json.dumps(_nameless(layer.get_config()), sort_keys=True, default=str)
    except Exception:  # a layer that cannot be saved may raise anything; its type must do
        return ""
    return _ADDRESS.sub("", text)


def _nameless(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _nameless(value) for key, value in config.items() if key not in _LEFT_OUT}
    if isinstance(config, list | tuple):
        return [_nameless(value) for value in config]
    return config
