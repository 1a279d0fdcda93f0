"""PyTorch: recorded operations that write where their operand lies, when nothing reads that any more."""

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Graph, Node

_aten = torch.ops.aten
# What may write to its first operand (of a sum, to either); the values are the same.
_IN_PLACE: dict[Any, Any] = {
    _aten.relu.default: _aten.relu_.default,
    _aten.add.Tensor: _aten.add_.Tensor,
    _aten.threshold_backward.default: _aten.threshold_backward.grad_input,
}


def reuse_memory(graph: Graph) -> None:
    """Let ReLU, its gradient and sums overwrite a tensor that was made in the graph and is not used afterwards.

    On a CPU these steps wait for memory, fresh memory most of all. Tensors given to the graph are never written to.

    Args:
        graph: of `torch.fx.experimental.proxy_tensor.make_fx`, on ATen's operations; it is changed.
    """
    nodes = list(graph.nodes)
    place = {node: number for number, node in enumerate(nodes)}
    # Of each node the nodes whose tensors lie in the same memory; the first of them made it.
    shared: dict[Node, list[Node]] = {}
    for node in nodes:
        owner = aliased(node)
        shared[node] = shared[owner] if owner is not None else []
        shared[node].append(node)
    for node in nodes:
        if node.target not in _IN_PLACE:
            continue
        operands = node.args[:2] if node.target is _aten.add.Tensor and not node.kwargs else node.args[:1]
        for number, operand in enumerate(operands):
            if isinstance(operand, Node) and _is_free(node, operand, shared[operand], place):
                if number:
                    node.args = (operand, operands[0])
                if node.target is _aten.threshold_backward.default:
                    node.kwargs = {"grad_input": operand}
                node.target = _IN_PLACE[node.target]
                shared[operand].extend(shared[node])
                for other in shared[node]:
                    shared[other] = shared[operand]
                break


def _is_free(node: Node, operand: Node, sharing: Iterable[Node], place: dict[Node, int]) -> bool:
    """Tell whether the node is the last to read the memory of its operand, and may write to it."""
    first = min(sharing, key=place.__getitem__)
    made_here = first.op == "call_function"
    last = all(place[user] <= place[node] for other in sharing for user in other.users)
    once = sum(argument in sharing for argument in node.all_input_nodes) == 1
    return made_here and last and once and _layout(operand) == _layout(node) is not None


def _layout(node: Node) -> Any:
    """Return shape, strides and type of a node's tensor; None where several elements lie in one place."""
    meta = node.meta.get("tensor_meta")
    if meta is None or any(
        size > 1 and not stride for size, stride in zip(meta.shape, meta.stride, strict=True)
    ):
        return None
    return tuple(meta.shape), tuple(meta.stride), meta.dtype


def aliased(node: Node) -> Node | None:
    """Return the node whose memory the node's tensors may lie in: it is a view, one of several, or written in place."""
    if node.op != "call_function" or not node.args or not isinstance(node.args[0], Node):
        return None
    owner = node.args[0]
    if node.target is operator.getitem:
        return owner if aliased(owner) is not None else None
    if node.target is _aten._unsafe_view.default or not isinstance(node.target, OpOverload):
        return owner
    # An operation of others, such as reshape, does not say whether it returns a view.
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(
        node.target.name(), "CompositeImplicitAutograd"
    )
    view = any(each.alias_info is not None for each in node.target._schema.returns)
    return owner if composite or view else None
