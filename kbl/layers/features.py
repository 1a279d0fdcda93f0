"""A network taken apart before its last layer."""

import weakref
from typing import Any

import keras

from kbl.typing import Network

# Each network's model of its deepest features, made once; it goes with the network.
_PARTS: "weakref.WeakKeyDictionary[Network, Any]" = weakref.WeakKeyDictionary()


def features_and_head(network: Network) -> tuple[Any, Any]:
    """Split a network into the model of its deepest features h(x) and its last layer; weights are shared.

    Raises:
        ValueError: the network is not a Sequential or Functional model with an Input.
    """
    if network not in _PARTS:
        if getattr(network, "inputs", None) is None or not getattr(network, "layers", ()):
            raise ValueError(
                f"Expected a Sequential or Functional network with an Input. Received: {network}"
            )
        head = network.layers[-1]
        # Of one input the tensor itself: a model made with a list warns when it is called with a tensor.
        inputs = network.inputs[0] if len(network.inputs) == 1 else network.inputs
        _PARTS[network] = keras.Model(inputs, head.input, name=f"{network.name}_features"), head
    return _PARTS[network]
