"""PyTorch: functions that are recorded, so that neither Keras nor autograd takes part when they are called again."""

from collections.abc import Callable
from typing import Any

import keras
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from kbl.backend.parts import leaves, random_states
from kbl.backend.reuse import reuse_memory
from kbl.typing import Network

_PLAIN_CALLS = 3  # recording takes a few times as long as a call


class Recorded:
    """A function of tensors that is recorded for each set of shapes that comes often.

    The first calls run as they are. Then the operations of a call are noted down, those that autograd does among them,
    and from there on they alone are run: the same ones in the same order, so the same results to the bit, without what
    Keras and autograd do in Python and in bookkeeping around each (on a ResNet-32 about 30 ms a pass).

    What depends on values cannot be noted down. A function that asks for the value of a tensor stays as it is; so does
    one of a network with layers that are not Keras' or kbl's own, or that are random at inference.

    Args:
        network: what the function calls; its variables are read anew at each call.
        function: of nested dicts, tuples and lists of tensors and numbers; numbers are noted down as they are.
    """

    def __init__(self, network: Network, function: Callable[..., Any]) -> None:
        self._function = function
        self._calls: dict[Any, Any] = {}
        self._recordable = _is_recordable(network)

    def __call__(self, network: Network, *arguments: Any) -> Any:
        """Call the function; `network` is that of the constructor, which is not kept."""
        if not self._recordable:
            return self._function(*arguments)
        given = keras.tree.flatten(arguments)
        signature = tuple(
            (value.shape, value.stride(), value.dtype, value.device)
            if isinstance(value, torch.Tensor)
            else value
            for value in given
        )
        found = self._calls.get(signature, 0)
        if isinstance(found, int):
            if found < _PLAIN_CALLS:
                self._calls[signature] = found + 1
                return self._function(*arguments)
            found = self._calls[signature] = self._record(network, arguments)
        if found is None:
            return self._function(*arguments)
        graph, outputs = found
        tensors = [value for value in given if isinstance(value, torch.Tensor)]
        return keras.tree.pack_sequence_as(outputs, graph(*_values(network), *tensors))

    def _record(self, network: Network, arguments: Any) -> Any:
        """Return the graph and the structure of what it gives; None where there can be no graph."""
        variables, given = network.variables, keras.tree.flatten(arguments)
        places = [place for place, value in enumerate(given) if isinstance(value, torch.Tensor)]
        structure: list[Any] = []

        def flat(*tensors: torch.Tensor) -> list[torch.Tensor]:
            values = list(given)
            for place, tensor in zip(places, tensors[len(variables) :], strict=True):
                values[place] = tensor
            mapping = list(zip(variables, tensors[: len(variables)], strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                outputs = self._function(*keras.tree.pack_sequence_as(arguments, values))
            structure[:] = [outputs]
            return keras.tree.flatten(outputs)

        try:
            # Copies: one tensor in two places could not be told apart.
            graph = make_fx(flat)(*_values(network), *(given[place].clone() for place in places))
        except RuntimeError:  # it asks for a tensor's value
            return None
        if not all(isinstance(output, torch.Tensor) for output in keras.tree.flatten(structure[0])):
            return None
        reuse_memory(graph.graph)
        graph.recompile()
        return graph, keras.tree.map_structure(lambda _: 0, structure[0])


def _values(network: Network) -> list[torch.Tensor]:
    return [variable.value for variable in network.variables]


def _is_recordable(network: Network) -> bool:
    own = all(
        type(layer).__module__.partition(".")[0] in ("keras", "kbl")
        and not isinstance(layer, keras.layers.TorchModuleWrapper | keras.layers.Lambda)
        for layer in leaves(network)
    )
    return own and not random_states(network)
