"""Recorded graphs with fewer operations give the same."""

import keras
import pytest

if keras.backend.backend() != "torch":
    pytest.skip("only torch records", allow_module_level=True)

import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import max_pool2d, relu

from kbl.backend.simplify import simplify

aten = torch.ops.aten


def graph_of(function, *tensors: torch.Tensor):
    """Trace, simplify, and see that the results stay the same."""
    expected = function(*tensors)
    with torch.no_grad():
        graph = make_fx(function)(*tensors)
    simplify(graph)
    graph.recompile()
    for _ in range(2):
        for one, other in zip(graph(*tensors), expected, strict=True):
            assert torch.equal(one, other)
    return graph


def count(graph, *targets) -> int:
    return sum(node.target in targets for node in graph.graph.nodes)


def calls(graph) -> int:
    return sum(node.op == "call_function" for node in graph.graph.nodes)


def test_what_depends_on_nothing_is_kept() -> None:
    graph = graph_of(lambda x: [x + (torch.arange(4.0) * 2.0).exp()], torch.rand(4))
    assert calls(graph) == 1


def test_what_only_a_shape_is_asked_for_is_not_computed() -> None:
    graph = graph_of(
        lambda x: [x * torch.ones_like(x.exp().sum()) + torch.zeros_like(x.sin())], torch.rand(4)
    )
    assert calls(graph) == 2


@pytest.mark.parametrize("same", [aten.detach, aten.alias])
def test_what_gives_the_same_tensor_is_passed_over(same) -> None:
    graph = graph_of(lambda x: [same(same(x) * 2.0) + 1.0], torch.rand(4))
    assert calls(graph) == 2


def test_equal_constants_are_one() -> None:
    graph = graph_of(lambda x: [x * torch.tensor(3.0) + torch.tensor(3.0)], torch.rand(4))
    assert sum(node.op == "get_attr" for node in graph.graph.nodes) == 1


def test_what_is_large_is_computed_again() -> None:
    graph = graph_of(lambda x: [x + torch.full((1 << 17,), 2.0)], torch.rand(1 << 17))
    assert count(graph, aten.full.default) == 1


def test_a_returned_constant_is_the_callers() -> None:
    graph = graph_of(lambda x: [x + 1.0, torch.zeros(3).view(3, 1)], torch.rand(3))
    graph(torch.rand(3))[1].fill_(5.0)
    assert graph(torch.rand(3))[1].sum() == 0


def test_the_same_is_computed_once() -> None:
    graph = graph_of(lambda x: [(x - 1.0).abs() * (x - 1.0)], torch.rand(4))
    assert count(graph, aten.sub.Tensor) == 1


def test_numbers_of_other_types_are_others() -> None:
    graph = graph_of(lambda x: [x * 1, x * 1.0, x * True], torch.arange(3))
    assert count(graph, aten.mul.Tensor) == 3


def test_two_results_are_two_tensors() -> None:
    one, other = graph_of(lambda x: [x * 2.0, x * 2.0], torch.rand(3))(torch.ones(3))
    one.fill_(0.0)
    assert other.sum() == 6


def test_a_graph_that_writes_is_left_alone() -> None:
    def function(x):
        total = torch.zeros(3)
        total += x
        return [total + total, total + total]

    graph = graph_of(function, torch.rand(3))
    assert count(graph, aten.zeros.default, aten.full.default) == 1


@pytest.mark.parametrize("options", [{}, {"stride": 1}, {"padding": 1}, {"stride": 3, "ceil_mode": True}])
@pytest.mark.parametrize("last", [True, False], ids=["channels last", "channels first"])
def test_pooling_comes_before_relu(options, last: bool) -> None:
    def function(x):
        def pooled(x):
            if not last:
                return max_pool2d(relu(x), 2, **options)
            return max_pool2d(relu(x).permute(0, 3, 1, 2), 2, **options).permute(0, 2, 3, 1)

        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = pooled(x)
            (gradient,) = torch.autograd.grad((value.square() * value.detach().cos()).sum(), x)
        return [value.detach(), gradient]

    x = torch.randn(2, 6, 6, 3)
    x[0, :2] = 0.5  # equals in a window
    x[1, 3:] = -1.0  # windows without anything above 0
    graph = graph_of(function, x)
    order = [node.target for node in graph.graph.nodes]
    assert order.index(aten.max_pool2d_with_indices.default) < order.index(aten.relu.default)
    backward = aten.max_pool2d_with_indices_backward.default
    assert order.index(aten.threshold_backward.default) < order.index(backward)
    assert count(graph, aten.relu.default, aten.threshold_backward.default) == 2


def test_a_relu_that_others_read_stays_where_it_is() -> None:
    def function(x):
        y = relu(x)
        return [max_pool2d(y, 2), y.sum()]

    order = [node.target for node in graph_of(function, torch.randn(1, 2, 4, 4)).graph.nodes]
    assert order.index(aten.relu.default) < order.index(aten.max_pool2d_with_indices.default)
