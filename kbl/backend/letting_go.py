"""PyTorch: functional models that let go of each tensor after its last use."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
from keras import tree

from kbl.typing import Tensor


def let_go(model: Any) -> None:
    """Let a functional model (or a sequential one) forget what it computed as soon as nothing in it needs it.

    Keras keeps the outputs of every layer until the pass ends. Eagerly they are then all in memory at once, those of
    batch normalization for one, which neither autograd nor any later layer asks for.
    """
    model = getattr(model, "_functional", None) or model
    if isinstance(model, keras.Model) and hasattr(model, "_run_through_graph"):
        model._run_through_graph = _run_through_graph(model)


def _run_through_graph(model: Any) -> Callable[..., Any]:
    plain = partial(type(model)._run_through_graph, model)
    depths = sorted(model._nodes_by_depth, reverse=True)
    nodes = [node for depth in depths for node in model._nodes_by_depth[depth] if not node.is_input]
    last = {id(tensor): node for node in nodes for tensor in (*node.outputs, *node.input_tensors)}
    for tensor in model.outputs:
        last.pop(id(tensor), None)
    steps = [(node, [key for key, reader in last.items() if reader is node]) for node in nodes]

    def run(inputs: Any, operation_fn: Callable[[Any], Any] = lambda each: each, **options: Any) -> Any:
        if options:
            return plain(inputs, operation_fn, **options)
        tensors: dict[int, Tensor] = dict(zip(map(id, model.inputs), tree.flatten(inputs), strict=False))
        for node, done in steps:
            if any(id(tensor) not in tensors for tensor in node.input_tensors):
                continue
            given, named = node.arguments.fill_in(tensors)
            outputs = tree.flatten(operation_fn(node.operation)(*given, **named))
            tensors.update(zip(map(id, node.outputs), outputs, strict=False))
            for key in done:
                tensors.pop(key, None)
            del given, named, outputs
        return tree.pack_sequence_as(model._outputs_struct, [tensors[id(tensor)] for tensor in model.outputs])

    return run
