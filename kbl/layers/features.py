"""A network taken apart before its last layer."""

import weakref
from typing import Any

import keras

from kbl.layers.gmm_head import GMMHead
from kbl.typing import Network

# Each network's model of its deepest features, made once; it goes with the network.
_PARTS: "weakref.WeakKeyDictionary[Network, Any]" = weakref.WeakKeyDictionary()


def features_and_head(network: Network, *, gaussian: bool = False) -> tuple[Any, Any]:
    """Split a network into the model of its deepest features h(x) and its last layer; weights are shared.

    Args:
        network: a Sequential or Functional model.
        gaussian: whether the last layer must be a `kbl.layers.GMMHead`.

    Raises:
        ValueError: the network is no such model, has no Input, or does not end as it must.
    """
    if network not in _PARTS:
        if getattr(network, "inputs", None) is None or not getattr(network, "layers", ()):
            raise ValueError(
                f"Expected a Sequential or Functional network with an Input. Received: {network}"
            )
        head = network.layers[-1]
        if isinstance(network, keras.Sequential) and getattr(head, "layers", None):
            inner, head = features_and_head(head)
            start = keras.Input(network.input_shape[1:])
            _PARTS[network] = keras.Sequential([start, *network.layers[:-1], inner]), head
        else:
            # Of one input the tensor itself: a model made with a list warns when it is called with a tensor.
            inputs = network.inputs[0] if len(network.inputs) == 1 else network.inputs
            _PARTS[network] = keras.Model(inputs, head.input, name=f"{network.name}_features"), head
    features, head = _PARTS[network]
    if gaussian and not isinstance(head, GMMHead):
        raise ValueError(f"Expected a network whose last layer is kbl.layers.GMMHead. Received: {network}")
    return features, head
