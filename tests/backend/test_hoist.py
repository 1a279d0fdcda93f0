"""What stays the same from step to step is computed once."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "torch":
    pytest.skip("only torch records", allow_module_level=True)

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from kbl import networks
from kbl.attacks import PGD
from kbl.backend import recording
from kbl.backend.hoist import parted
from kbl.backend.recording import Recorded
from kbl.backend.simplify import simplify


def parts_of(function, fixed: list[torch.Tensor], moving: list[torch.Tensor]):
    """Trace and part, and see that the results stay the same."""
    with torch.no_grad():
        graph = make_fx(function)(*fixed, *moving)
    simplify(graph)
    first, then = parted(graph, len(fixed))
    held = first(*fixed)
    for other in (moving, [tensor + 1 for tensor in moving]):
        for one, expected in zip(then(*held, *other), function(*fixed, *other), strict=True):
            assert torch.equal(one, expected)
    return first, then


def calls(graph) -> int:
    return sum(node.op == "call_function" for node in graph.graph.nodes)


def test_what_depends_on_what_is_fixed_comes_first() -> None:
    first, then = parts_of(
        lambda x, z: [torch.minimum(torch.maximum(z, (x - 0.1).clamp(min=0)), (x + 0.1).clamp(max=1))],
        [torch.rand(5)],
        [torch.rand(5)],
    )
    assert (calls(first), calls(then)) == (4, 2)


def test_what_both_parts_need_is_passed_on() -> None:
    first, then = parts_of(lambda x, z: [x.exp() * x + z * x, z.exp()], [torch.rand(5)], [torch.rand(5)])
    assert (calls(first), calls(then)) == (2, 3)


def test_constants_are_in_both() -> None:
    table = torch.arange(5.0)
    parts_of(lambda x, z: [x * table + z * table], [torch.rand(5)], [torch.rand(5)])


def test_several_results_stay_with_those_who_take_them() -> None:
    def function(x, z):
        values, places = x.sort()
        return [values + z, places * 2]

    first, then = parts_of(function, [torch.rand(5)], [torch.rand(5)])
    assert (calls(first), calls(then)) == (
        3,
        2,
    )  # sorting and each of its results; what is returned is made anew


@pytest.mark.parametrize(
    "function", [lambda x, z: [z, x + 1], lambda x, z: [z, (x + 1).view(5, 1)], lambda x, z: [z, x.exp()[:3]]]
)
def test_what_is_returned_is_the_callers(function) -> None:
    with torch.no_grad():
        graph = make_fx(function)(torch.rand(5), torch.rand(5))
    first, then = parted(graph, 1)
    held = first(x := torch.rand(5))
    then(*held, torch.rand(5))[1].fill_(7.0)
    assert torch.equal(then(*held, torch.rand(5))[1], function(x, x)[1])


def test_a_graph_that_writes_is_not_parted() -> None:
    def function(x, z):
        copy = x.clone()
        copy.add_(z)
        return [copy]

    first, then = parts_of(function, [torch.rand(5)], [torch.rand(5)])
    assert (calls(first), calls(then)) == (0, 2)


def test_nothing_fixed_leaves_the_first_part_empty() -> None:
    first, then = parts_of(lambda z: [z.exp() * 2], [], [torch.rand(5)])
    assert (calls(first), calls(then)) == (0, 2)


def test_the_first_part_runs_once_for_so_many_calls(monkeypatch) -> None:
    monkeypatch.setattr(recording, "_PLAIN_CALLS", 0)
    made = networks.build("digits_convnet", head="dense", num_classes=5, image_shape=(8, 8, 3), seed=0)
    run = Recorded(made, lambda x, z: {"z": made(x, training=False) + z})
    rng = np.random.default_rng(0)
    x, other = (torch.from_numpy(rng.random((4, 8, 8, 3)).astype("float32")) for _ in range(2))
    ran = []
    make = recording._scripted
    monkeypatch.setattr(
        recording,
        "_scripted",
        lambda graph: counted(make(graph), "convolution" in graph.code, ran),
    )
    with torch.no_grad():
        run.on(made, x)(torch.zeros(4, 5))  # recorded, and looked at
        ran.clear()
        for images in (x, other):
            one, z = run.on(made, images), torch.zeros(4, 5)
            for _ in range(6):
                z = one(z)["z"]
            torch.testing.assert_close(z, 6 * made(images, training=False))
        made.set_weights([1.5 * weight for weight in made.get_weights()])
        torch.testing.assert_close(run.on(made, x)(torch.zeros(4, 5))["z"], made(x, training=False))
    assert ran == ([True] + 6 * [False]) * 2 + [True, False]


def counted(run, convolves: bool, ran: list[bool]):
    def call(*tensors):
        ran.append(convolves)
        return run(*tensors)

    return call


def test_an_attack_computes_the_bounds_of_the_ball_once(monkeypatch) -> None:
    monkeypatch.setattr(recording, "_PLAIN_CALLS", 0)
    parts = []
    make = recording.parted
    monkeypatch.setattr(recording, "parted", lambda *given: parts.append(make(*given)) or parts[-1])
    made = networks.build("digits_convnet", head="dense", num_classes=5, image_shape=(8, 8, 3), seed=0)
    x = np.random.default_rng(0).random((4, 8, 8, 3)).astype("float32")
    PGD(0.1, 0.02, 6, early_stop=False).search(made, x, np.arange(4), spare_mistakes=False)
    # The last step that was recorded: of the first it was not yet known what moves.
    then = [then for _, then in parts if any("sign" in str(node.target) for node in then.graph.nodes)][-1]
    targets = [str(node.target) for node in then.graph.nodes if node.op == "call_function"]
    assert not any("minimum" in target or "maximum" in target for target in targets)
    assert sum("clamp" in target for target in targets) == 1
