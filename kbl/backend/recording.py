"""PyTorch: functions that are recorded, so that neither Keras nor autograd takes part when they are called again."""

import threading
from collections.abc import Callable
from typing import Any

import keras
import torch
from torch.fx import Graph
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from kbl.backend.parts import random_states
from kbl.backend.reuse import reuse_memory
from kbl.typing import Network

_PLAIN_CALLS = 3  # recording takes a few times as long as a call
_KEPT = 128  # signatures that a function remembers
_RECORDING = threading.RLock()  # fx patches torch.nn.Module while it traces

# What hands values to Python: of tensors that are no arguments tracing would let it pass, of arrays always.
_READS = tuple(
    getattr(torch.Tensor, name)
    for name in (
        "numpy",
        "tolist",
        "item",
        "__array__",
        "__dlpack__",
        "__bool__",
        "__int__",
        "__float__",
        "__index__",
    )
)
_NEVER_CALLED = ("_initializer", "_regularizer", "_constraint")  # not when a layer is, at least


class Recorded:
    """A function of tensors that is recorded for each set of shapes that comes often.

    The first calls run as they are. Then the operations of a call are noted down, those that autograd does among them,
    and from there on they alone are run: the same ones in the same order, so the same results to the bit, without what
    Keras and autograd do in Python and in bookkeeping around each (on a ResNet-32 about 30 ms a pass).

    What depends on values cannot be noted down. A function that asks for the value of a tensor stays as it is, and so
    does one that assigns to a variable, or one of a network that is random at inference or has a part (a layer, an
    activation, a function that an operation is given) that is not Keras' or kbl's own. Where gradients of the result
    may be asked for, and under autocast, nothing is recorded.

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
        if not self._recordable or _tracks_or_casts():
            return self._function(*arguments)
        signature = (_kind(arguments), _settings(network))
        found = self._calls.get(signature, 0)
        if isinstance(found, int):
            if found < _PLAIN_CALLS:
                self._remember(signature, found + 1)
                return self._function(*arguments)
            found = self._record(network, arguments)
            self._remember(signature, found)
        if found is None:
            return self._function(*arguments)
        graph, outputs = found
        tensors = [value for value in keras.tree.flatten(arguments) if isinstance(value, torch.Tensor)]
        return keras.tree.pack_sequence_as(outputs, graph(*_values(network), *tensors))

    def _remember(self, signature: Any, found: Any) -> None:
        self._calls[signature] = found
        for oldest in list(self._calls)[:-_KEPT]:
            self._calls.pop(oldest, None)

    def _record(self, network: Network, arguments: Any) -> Any:
        """Return the graph and the structure of what it gives; None where there can be no graph."""
        if not _is_recordable(network):  # a part may have changed since
            return None
        variables, given = network.variables, keras.tree.flatten(arguments)
        places = [place for place, value in enumerate(given) if isinstance(value, torch.Tensor)]
        structure: list[Any] = []

        def flat(*tensors: torch.Tensor) -> list[torch.Tensor]:
            values = list(given)
            for place, tensor in zip(places, tensors[len(variables) :], strict=True):
                values[place] = tensor
            mapping = list(zip(variables, tensors[: len(variables)], strict=True))
            with keras.StatelessScope(state_mapping=mapping) as scope:
                outputs = self._function(*keras.tree.pack_sequence_as(arguments, values))
            if len(scope.state_mapping) > len(mapping) or any(
                scope.get_current_value(variable) is not tensor for variable, tensor in mapping
            ):
                raise RuntimeError("It assigns to a variable")
            structure[:] = [outputs]
            return keras.tree.flatten(outputs)

        # Copies: one tensor in two places could not be told apart.
        copies = [given[place].clone() for place in places]
        if any(copy.stride() != given[place].stride() for copy, place in zip(copies, places, strict=True)):
            return None
        try:
            with _RECORDING, _NoReads():
                graph = make_fx(flat)(*_values(network), *copies)
        except Exception:  # it asks for a tensor's value, or it fails, and then does so when it is run
            return None
        if not all(isinstance(output, torch.Tensor) for output in keras.tree.flatten(structure[0])):
            return None
        if _shapes_depend_on_values(graph.graph):
            return None
        reuse_memory(graph.graph)
        for node in graph.graph.nodes:
            node.meta.clear()  # most of what a graph takes
        graph.recompile()
        return graph, keras.tree.map_structure(lambda _: 0, structure[0])


class _NoReads(TorchFunctionMode):
    """Raises RuntimeError where a tensor's values are handed to Python."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS:
            raise RuntimeError("It asks for a tensor's value")
        return func(*args, **(kwargs or {}))


def _tracks_or_casts() -> bool:
    return torch.is_grad_enabled() or torch.is_inference_mode_enabled() or torch._C._is_any_autocast_enabled()


def _kind(value: Any) -> Any:
    """Return what of an argument is noted down: structure, layout of tensors, numbers."""
    if isinstance(value, torch.Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, dict):
        return dict, *((key, _kind(value[key])) for key in sorted(value))
    if isinstance(value, list | tuple):
        return type(value), *map(_kind, value)
    return type(value), repr(value)  # 1, 1.0 and True are equal, and so are 0.0 and -0.0


def _settings(network: Network) -> Any:
    """Return what may be changed of a network that computes otherwise from then on, its weights apart."""
    return len(network.variables), *(
        (layer.trainable, layer.dtype_policy.name, id(vars(layer).get("activation")))
        for layer in network._flatten_layers()
    )


def _shapes_depend_on_values(graph: Graph) -> bool:
    def depends(node: Any) -> bool:
        if torch.Tag.dynamic_output_shape not in getattr(node.target, "tags", ()):
            return False
        metas = [each.meta.get("tensor_meta") for each in node.all_input_nodes[1:]]
        masks = any(meta is None or meta.dtype in (torch.bool, torch.uint8) for meta in metas)
        return node.target is not torch.ops.aten.index.Tensor or masks

    return any(map(depends, graph.nodes))


def _values(network: Network) -> list[torch.Tensor]:
    return [variable.value for variable in network.variables]


def _is_recordable(network: Network) -> bool:
    return not random_states(network) and all(map(_is_known, network._flatten_layers()))


def _is_known(layer: Any) -> bool:
    """Tell whether what a layer computes depends on its arguments and variables, and on `_settings`, alone."""
    if not _is_own(type(layer)) or isinstance(layer, keras.layers.TorchModuleWrapper | keras.layers.Lambda):
        return False
    # Operations that are no layers may be a user's, or be given functions, such as that of keras.ops.map.
    for operation in getattr(layer, "operations", ()):
        if isinstance(operation, keras.layers.Layer):
            continue
        given = [(node.arguments.args, node.arguments.kwargs) for node in operation._inbound_nodes]
        given = [*keras.tree.flatten(given), *vars(operation).values()]
        if not _is_own(type(operation)) or not all(_is_own(part) for part in given if callable(part)):
            return False
    if isinstance(layer, keras.Model):  # its attributes are of its training
        return "call" not in vars(layer)
    return not any(
        isinstance(value, torch.Tensor)  # computed from variables earlier
        or (callable(value) and not name.endswith(_NEVER_CALLED) and not _is_own(value))
        for name, value in vars(layer).items()
    )


def _is_own(part: Any) -> bool:
    return str(getattr(part, "__module__", None)).partition(".")[0] in ("keras", "kbl")
