"""PyTorch: recorded graphs with fewer operations, and the same results to the bit."""

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from kbl.backend.reuse import aliased

_aten = torch.ops.aten
_KEPT = 1 << 16  # elements of a constant that is kept
_ANY = (torch.Tag.nondeterministic_seeded, torch.Tag.dynamic_output_shape)
_FILLED = {_aten.ones_like.default: 1, _aten.zeros_like.default: 0}
_SAME = (_aten.detach.default, _aten.alias.default)  # from 2.14 on PyTorch notes the one down as the other
_VIEWS = (_aten.permute.default,)


def simplify(module: GraphModule) -> None:
    """Compute once what never changes and what is computed twice, and pool before ReLU.

    A graph that writes in place is left alone.

    Args:
        module: of `torch.fx.experimental.proxy_tensor.make_fx`, on ATen's operations; it is changed.
    """
    graph = module.graph
    if writes_in_place(graph):
        return
    for node in list(graph.nodes):
        if node.target in _SAME:
            _replace(node, node.args[0])
    _fold_constants(module)
    _compute_once(graph)
    for node in list(graph.nodes):
        if node.target is _aten.relu.default:
            _pool_first(graph, node)
    graph.eliminate_dead_code()


def _fold_constants(module: GraphModule) -> None:
    """Keep the values of small tensors that depend on nothing given."""
    graph = module.graph
    known: dict[Node, torch.Tensor] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            known[node] = getattr(module, node.target)
        elif (
            node.target in _FILLED and node.meta["tensor_meta"].shape.numel() <= _KEPT
        ):  # only its shape is asked for
            meta, device = node.meta["tensor_meta"], node.meta["val"].device
            known[node] = torch.full(meta.shape, _FILLED[node.target], dtype=meta.dtype, device=device)
        elif is_function(node) and all(each in known for each in node.all_input_nodes):
            arguments, options = map_arg((node.args, node.kwargs), known.__getitem__)
            value = node.target(*arguments, **options)
            if isinstance(value, torch.Tensor) and value.numel() <= _KEPT:
                known[node] = value
    # What is returned, or seen through a returned view, must be the caller's own.
    for node in reversed([node for node in known if node.op == "call_function"]):
        if any(user not in known and (user.op == "output" or aliased(user) is node) for user in node.users):
            del known[node]
    first = next(node for node in graph.nodes if node.op != "placeholder")
    constants: dict[Any, Node] = {}
    for node, value in known.items():
        if all(user in known for user in node.users):
            continue
        what = (value.dtype, value.shape, value.device, str(value.tolist()))
        if what not in constants:
            name = f"_constant{len(constants)}"
            module.register_buffer(name, value, persistent=False)
            with graph.inserting_before(first):
                constants[what] = graph.get_attr(name)
        node.replace_all_uses_with(constants[what], delete_user_cb=lambda user: user not in known)


def _compute_once(graph: Graph) -> None:
    """Let nodes that compute the same from the same be one."""
    made: dict[Any, Node] = {}
    for node in list(graph.nodes):
        if is_function(node) or node.target is operator.getitem:
            what = (node.target, _typed(node.args), _typed(node.kwargs))
            if what in made and not _is_returned(node):
                _replace(node, made[what])
            else:
                made[what] = node


def _pool_first(graph: Graph, relu: Node) -> None:
    """Take the greatest of each window before ReLU and not after it: both rise, and the pooled tensor is smaller.

    The gradient goes the same way: to the greatest of a window, if it is above 0.
    """
    readers = {reader.target: reader for reader in _readers(relu)}
    pool = readers.pop(_aten.max_pool2d_with_indices.default, None)
    back = readers.pop(_aten.max_pool2d_with_indices_backward.default, None)
    gate = readers.pop(_aten.threshold_backward.default, None)
    if pool is None or readers or len(list(_readers(relu))) != 1 + 2 * (gate is not None):
        return
    if (gate is None) != (back is None):
        return
    if gate is not None:
        slope = gate.args[0]
        while slope.target in _VIEWS and len(slope.users) == 1:
            slope = slope.args[0]
        if slope is not back or len(back.users) != 1 or gate.args[2] != 0 or len(gate.args[0].users) != 1:
            return
        if list(_readers(gate.args[1])).count(gate) != 1 or gate.args[0] is relu:
            return
    largest = [user for user in pool.users if user.target is operator.getitem and user.args[1] == 0]
    if len(largest) != 1:
        return
    with graph.inserting_after(largest[0]):
        pooled = graph.call_function(_aten.relu.default, (largest[0],))
    pooled.meta = dict(largest[0].meta)
    largest[0].replace_all_uses_with(pooled, delete_user_cb=lambda user: user is not pooled)
    if gate is not None:
        with graph.inserting_before(back):
            gated = graph.call_function(_aten.threshold_backward.default, (back.args[0], pooled, 0))
        gated.meta = dict(back.args[0].meta)
        back.args = (gated, *back.args[1:])
        _replace(gate, gate.args[0])
    _replace(relu, relu.args[0])


def _readers(node: Node) -> Iterator[Node]:
    """Yield what reads a node, through views of it."""
    for user in node.users:
        if user.target in _VIEWS:
            yield from _readers(user)
        else:
            yield user


def writes_in_place(graph: Graph) -> bool:
    """Tell whether an operation writes to what it is given."""
    return any(isinstance(node.target, OpOverload) and node.target._schema.is_mutable for node in graph.nodes)


def is_function(node: Node) -> bool:
    """Tell whether a node gives the same each time it is given the same, of a shape that is known."""
    return isinstance(node.target, OpOverload) and not any(tag in node.target.tags for tag in _ANY)


def _is_returned(node: Node) -> bool:
    return any(user.op == "output" or (aliased(user) is node and _is_returned(user)) for user in node.users)


def _typed(value: Any) -> Any:
    """Return something hashable that tells 1, 1.0 and True apart."""
    if isinstance(value, Node):
        return value
    if isinstance(value, list | tuple):
        return tuple(map(_typed, value))
    if isinstance(value, dict):
        return tuple((key, _typed(value[key])) for key in sorted(value))
    return type(value), repr(value)


def _replace(node: Node, other: Any) -> None:
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)
