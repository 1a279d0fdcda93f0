"""PyTorch: a recorded graph in two parts, of which the first need not be run at every step."""

import operator

from torch.fx import Graph, GraphModule, Node

from kbl.backend.reuse import aliased
from kbl.backend.simplify import is_function, writes_in_place


def parted(module: GraphModule, fixed: int) -> tuple[GraphModule, GraphModule]:
    """Part a graph into what depends on its first inputs alone, and the rest.

    Args:
        module: of `torch.fx.experimental.proxy_tensor.make_fx`, on ATen's operations.
        fixed: number of the first inputs.

    Returns:
        The first graph takes these inputs and returns tensors; the second takes those and the other inputs, and returns
        what the whole graph does. Nothing that is returned shares memory with what the first has computed.
    """
    graph = module.graph
    given = [node for node in graph.nodes if node.op == "placeholder"]
    constants = [node for node in graph.nodes if node.op == "get_attr"]
    early = _early(graph, {*given[:fixed], *constants})
    again = _computed_again(early)
    passed = [
        node
        for node in early
        if node not in again
        and node.op != "get_attr"
        and any(user not in early or user in again for user in node.users)
    ]

    first, second = Graph(), Graph()
    known: dict[Node, Node] = {}
    for node in early:
        known[node] = first.node_copy(node, known.__getitem__)
    first.output([known[node] for node in passed])
    known = {}
    for node in [*passed, *given[fixed:]]:
        known[node] = second.placeholder(node.name)
        known[node].meta = dict(node.meta)
    for node in graph.nodes:
        if node not in known and (node not in early or node in again or node.op == "get_attr"):
            known[node] = second.node_copy(node, known.__getitem__)
    for part in (first, second):
        part.eliminate_dead_code()
    return GraphModule(module, first), GraphModule(module, second)


def _early(graph: Graph, known: set[Node]) -> dict[Node, None]:
    """Return, in their order, these nodes and those that depend on nothing else."""
    early: dict[Node, None] = {}
    moves = not writes_in_place(graph)
    for node in graph.nodes:
        computed = is_function(node) or node.target is operator.getitem
        inputs = node.all_input_nodes
        if node in known or (moves and computed and inputs and all(each in early for each in inputs)):
            early[node] = None
    return early


def _computed_again(early: dict[Node, None]) -> set[Node]:
    """Return what must not be handed on: what is returned, or seen through a returned view, and what is no tensor."""
    again: set[Node] = set()
    for node in reversed([node for node in early if node.op == "call_function"]):
        late = [user for user in node.users if user not in early or user in again]
        returned = any(user.op == "output" or aliased(user) is node for user in late)
        if returned or (late and "tensor_meta" not in node.meta):
            again.add(node)
    return again
