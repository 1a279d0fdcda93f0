"""PyTorch: what may be recorded, and what is looked at to tell whether a record still holds."""

from typing import Any

import keras
import torch
from torch.fx import Graph
from torch.overrides import TorchFunctionMode

from kbl.backend.parts import random_states
from kbl.typing import Network

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


class NoReads(TorchFunctionMode):
    """Raises RuntimeError where a tensor's values are handed to Python."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS:
            raise RuntimeError("It asks for a tensor's value")
        return func(*args, **(kwargs or {}))


def tracks_or_casts() -> bool:
    """Tell whether autograd would follow what is done now, or autocast change it."""
    return torch.is_grad_enabled() or torch.is_inference_mode_enabled() or torch._C._is_any_autocast_enabled()


def settings(network: Network) -> Any:
    """Return what may be changed of a network that computes otherwise from then on, its weights apart."""
    return len(network.variables), *(
        (layer.trainable, layer.dtype_policy.name, id(vars(layer).get("activation")))
        for layer in network._flatten_layers()
    )


def shapes_depend_on_values(graph: Graph) -> bool:
    """Tell whether a graph has a tensor whose shape depends on what was given, such as a choice by a mask."""

    def depends(node: Any) -> bool:
        if torch.Tag.dynamic_output_shape not in getattr(node.target, "tags", ()):
            return False
        metas = [each.meta.get("tensor_meta") for each in node.all_input_nodes[1:]]
        masks = any(meta is None or meta.dtype in (torch.bool, torch.uint8) for meta in metas)
        return node.target is not torch.ops.aten.index.Tensor or masks

    return any(map(depends, graph.nodes))


def is_recordable(network: Network) -> bool:
    """Tell whether a network is not random at inference and made of layers, operations and functions that are known."""
    return not random_states(network) and all(map(_is_known, network._flatten_layers()))


def _is_known(layer: Any) -> bool:
    """Tell whether what a layer computes depends on its arguments and variables, and on `settings`, alone."""
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
