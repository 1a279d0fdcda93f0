"""What is recorded on torch does the same, to the bit, as what is run."""

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers, ops

from kbl import attacks, backend, networks

if keras.backend.backend() != "torch":
    pytest.skip("only torch runs without compiling", allow_module_level=True)

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import make_fx

from kbl.backend import recording
from kbl.backend.recording import Recorded
from kbl.backend.reuse import reuse_memory
from kbl.methods import ATBLR, IAAT, TRADES, AdversarialTraining
from kbl.training import RobustModel

ATTACKS = {
    "pgd": attacks.PGD(0.2, 0.05, 6, early_stop=False),
    "pgd, restarts": attacks.PGD(0.1, 0.03, 6, restarts=3, loss="margin"),
    "pgd, L2": attacks.PGD(1.0, 0.3, 6, norm="l2"),
    "apgd": attacks.APGD(0.1, 12, loss="dlr"),
    "apgd, targets": attacks.APGD(0.1, 12, targets=2),
    "fab": attacks.FAB(steps=8),
    "square": attacks.Square(0.2, queries=30),
    "square, L2": attacks.Square(1.0, queries=30, norm="l2"),
    "carlini_wagner": attacks.CarliniWagner(steps=12, binary_search_steps=2),
    "jsma": attacks.JSMA(steps=6),
    "lbfgs": attacks.LBFGS(steps=6, binary_search_steps=2),
    "noise": attacks.UniformNoise(0.1, draws=6),
}


def network(name: str = "digits_convnet") -> keras.Model:
    options = {} if name == "resnet8" else {"batch_normalization": True}
    made = networks.build(name, head="gmm", num_classes=5, image_shape=(8, 8, 3), seed=0, **options)
    rng = np.random.default_rng(0)
    for weight in made.weights:  # moving averages that are not the initial ones
        weight.assign(ops.convert_to_numpy(weight) + 0.05 * np.abs(rng.normal(size=weight.shape)))
    return made


def images(count: int = 12) -> np.ndarray:
    return np.random.default_rng(1).random((count, 8, 8, 3)).astype("float32")


@pytest.mark.parametrize(
    ("name", "structure"), [*((name, "digits_convnet") for name in ATTACKS), ("pgd", "resnet8")]
)
def test_every_attack_does_the_same(name: str, structure: str, monkeypatch) -> None:
    x, made = images(), network(structure)
    y = attacks.predict(made, x).argmax(axis=1)
    found, graphs, scripts = [], [], []
    make, script, same, right = recording._scripted, torch.jit.script, recording._is_same, []
    monkeypatch.setattr(recording, "_is_same", lambda *given: right.append(same(*given)) or right[-1])
    monkeypatch.setattr(recording, "_scripted", lambda graph: graphs.append(graph) or make(graph))
    monkeypatch.setattr(torch.jit, "script", lambda graph: scripts.append(script(graph)) or scripts[-1])
    for plain_calls in (10**9, 0):
        monkeypatch.setattr(recording, "_PLAIN_CALLS", plain_calls)
        found.append(ATTACKS[name].search(network(structure), x, y, seed=3, batch_size=12))
    plain, recorded = found
    assert len(scripts) == len(graphs) == 2 * len(right) > 2  # each in two parts
    assert all(right)
    np.testing.assert_array_equal(recorded.x_adv, plain.x_adv)
    np.testing.assert_array_equal(recorded.score, plain.score)
    assert (recorded.forward, recorded.backward) == (plain.forward, plain.backward)


@pytest.mark.parametrize(
    "method",
    [
        AdversarialTraining(attack=attacks.PGD(0.1, 0.03, 4)),
        AdversarialTraining(attack=attacks.PGD(0.1, 0.03, 4), crafting_mode="training", warmup_steps=3),
        ATBLR(attack=attacks.PGD(0.1, 0.03, 4), likelihood_weight=0.02, gradient_through="means"),
        IAAT(attack=attacks.PGD(0.1, 0.03, 3), images=16, gamma=0.02),
        TRADES(attack=attacks.PGD(0.1, 0.03, 4)),
    ],
    ids=lambda method: type(method).__name__,
)
def test_training_does_the_same(method, monkeypatch) -> None:
    x, y = images(16), np.arange(16) % 5
    weights = []
    for plain_calls in (10**9, 0):
        monkeypatch.setattr(recording, "_PLAIN_CALLS", plain_calls)
        model = RobustModel(network())
        model.compile(keras.optimizers.SGD(0.05), method=method)
        model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for plain, recorded in zip(*weights, strict=True):
        np.testing.assert_array_equal(recorded, plain)


def test_it_records_after_a_few_calls_and_no_more() -> None:
    made, calls = network(), []
    run = Recorded(made, lambda x, two: calls.append(1) or {"y": made(x, training=False) * two})
    x = torch.from_numpy(images(3))
    with torch.no_grad():
        outputs = [run(made, x, 2)["y"] for _ in range(8)]
        assert len(calls) == recording._PLAIN_CALLS + 2  # noted down, and run once more beside its record
        for other in outputs:
            torch.testing.assert_close(other, outputs[0], rtol=0, atol=0)
        torch.testing.assert_close(run(made, x, 3)["y"], 1.5 * outputs[0])  # a number is noted down as it is
        assert len(run(made, x[:2], 2)["y"]) == 2


@pytest.mark.parametrize("more", [0, 1])
def test_it_records_at_once_where_more_calls_are_to_come(more: int) -> None:
    made, calls = network(), []
    run = Recorded(made, lambda two, x: calls.append(1) or two * made(x, training=False))
    x = torch.from_numpy(images(3))
    with torch.no_grad():
        one = run.on(made, 2, calls=recording._PLAIN_CALLS + more)
        first = one(x)
        assert len(calls) == 1 + more  # run; or noted down, and run beside its record
        torch.testing.assert_close(one(x), first, rtol=0, atol=0)
        assert len(calls) == 3 - more


def test_an_attack_runs_one_step_as_it_is(monkeypatch) -> None:
    """Of the first it is not known what moves; the next is recorded, so few plain steps make the peak of memory."""
    recorded, record = [], Recorded._record
    monkeypatch.setattr(Recorded, "_record", lambda self, *given: recorded.append(1) or record(self, *given))
    made, forwards = network(), []
    made.layers[1].register_forward_hook(lambda *_: forwards.append(1))
    attacks.PGD(0.1, 0.02, 20, early_stop=False).search(
        made, images(), np.arange(12) % 5, spare_mistakes=False
    )
    assert len(recorded) == 1
    # The look at the outputs, a step, the next noted down and run beside its record, the last iterate.
    assert len(forwards) == 5


def test_it_sees_the_present_weights() -> None:
    made = network()
    run = backend.compiled(made, lambda forward, x: forward(x))
    x = images(3)
    for _ in range(recording._PLAIN_CALLS + 2):
        before = run(x)
    made.set_weights([weight * 1.5 for weight in made.get_weights()])
    torch.testing.assert_close(run(x), made(x, training=False))
    assert not torch.allclose(run(x), before)


def test_one_tensor_in_two_places() -> None:
    made = network()
    run = Recorded(made, lambda a, b: a - 2.0 * b)
    a, b = torch.ones(3), torch.full((3,), 5.0)
    with torch.no_grad():
        for _ in range(recording._PLAIN_CALLS + 1):
            run(made, a, a)
        assert run(made, a, b).tolist() == [-9.0] * 3


class Custom(layers.Layer):
    """The user's own: it may do anything, so it is never recorded."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


@pytest.mark.parametrize("layer", [Custom, layers.Lambda], ids=["custom", "lambda"])
def test_other_layers_are_run(layer) -> None:
    calls = []
    made = keras.Sequential([keras.Input((4,)), layer(lambda x: calls.append(1) or x), layers.Dense(3)])
    run = backend.compiled(made, lambda forward, x: forward(x))
    x = np.ones((2, 4), "float32")
    calls.clear()
    for _ in range(10):
        run(x)
    assert len(calls) == 10


def test_a_function_that_asks_for_values_is_run() -> None:
    made = network()

    def function(x):
        return x + 1 if x.sum() > 0 else x - 1

    run = Recorded(made, function)
    with torch.no_grad():
        for _ in range(recording._PLAIN_CALLS + 3):
            assert run(made, torch.ones(2)).tolist() == [2.0, 2.0]
            assert run(made, -torch.ones(2)).tolist() == [-2.0, -2.0]


def test_it_keeps_no_network_alive() -> None:
    made = network()
    attack = attacks.PGD(0.1, 0.05, 8, early_stop=False)
    attack(made, images(), np.arange(12) % 5)
    model = RobustModel(made)
    model.compile("sgd", method=AdversarialTraining(attack=attack))
    model.fit(images(), np.arange(12) % 5, batch_size=4, epochs=3, verbose=0)
    alive = weakref.ref(made)
    del made, model
    keras.backend.clear_session()
    gc.collect()
    assert alive() is None


def traced(function, *arguments):
    graph = make_fx(function)(*(argument.clone() for argument in arguments))
    reuse_memory(graph.graph)
    graph.recompile()
    return graph, [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]


def test_memory_is_used_again_where_nothing_reads_it() -> None:
    graph, targets = traced(lambda x: torch.relu(x * 2.0) + x, torch.ones(3))
    assert targets == ["aten.mul.Tensor", "aten.relu_.default", "aten.add_.Tensor"]
    x = torch.tensor([-1.0, 2.0])
    assert graph(x).tolist() == [-1.0, 6.0]
    assert x.tolist() == [-1.0, 2.0]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.relu(x) + x,  # an argument is not written to
        lambda x: torch.relu(x.view(3)),  # nor a view of one
        lambda x: (double := x * 2.0, torch.relu(double)),  # nor a result
        lambda x: torch.relu(double := x * 2.0) * double,  # nor what is read later
        lambda x: torch.relu((double := x * 2.0).view(3)) * double.view(3),  # by whatever name
        lambda x: torch.relu((x * 2.0).sum().expand(3)),  # nor one place for many
        lambda x: (x * 2.0)[:1] + (x * 3.0),  # nor what is smaller than the result
    ],
)
def test_memory_is_not_used_again_where_something_reads_it(function) -> None:
    x = torch.tensor([-1.0, 2.0, 3.0])
    graph, targets = traced(function, x)
    wanted, found = function(x), graph(x)
    for one, other in zip(np.atleast_1d(wanted), np.atleast_1d(found), strict=True):
        np.testing.assert_array_equal(other, one)
    assert x.tolist() == [-1.0, 2.0, 3.0]
    assert "aten.relu_.default" not in targets


def test_parts_of_a_tensor_are_its_memory() -> None:
    """`split` gives views: what is written to one of them is written to what was split."""

    def function(x):
        whole = x * 2.0
        first, second = torch.split(whole, 2)
        return torch.relu(first), whole + 0.0, second

    x = torch.tensor([-1.0, 2.0, -3.0, 4.0])
    graph, _ = traced(function, x)
    for found, wanted in zip(graph(x), function(x), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_numbers_that_are_equal_are_told_apart() -> None:
    made = network()
    run = Recorded(made, lambda x, number: x * (2.0 if isinstance(number, bool) else 3.0))
    with torch.no_grad():
        for number, wanted in ((1, 3.0), (True, 2.0)) * (recording._PLAIN_CALLS + 2):
            assert run(made, torch.ones(1), number).item() == wanted


def test_a_users_activation_is_run() -> None:
    calls = []

    def activation(x):
        calls.append(1)
        return x * len(calls)

    made = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation=activation)])
    calls.clear()
    run = backend.compiled(made, lambda forward, x: forward(x))
    for _ in range(6):
        run(np.ones((2, 4), "float32"))
    assert len(calls) == 6


def test_a_function_that_hands_values_to_numpy_is_run() -> None:
    made = network()
    run = Recorded(made, lambda x: x + float(np.asarray(x.detach().numpy()).sum()))
    with torch.no_grad():
        for _ in range(recording._PLAIN_CALLS + 2):
            assert run(made, torch.ones(2)).tolist() == [3.0, 3.0]
            assert run(made, torch.zeros(2)).tolist() == [0.0, 0.0]


def test_nothing_is_recorded_where_gradients_are_asked_for() -> None:
    made = network()
    run = Recorded(made, lambda x: x * 2.0)
    x = torch.ones(2, requires_grad=True)
    for _ in range(recording._PLAIN_CALLS + 2):
        assert torch.autograd.grad(run(made, x).sum(), x)[0].tolist() == [2.0, 2.0]


def test_another_activation_is_seen() -> None:
    made = keras.Sequential([keras.Input((2,)), layers.Dense(2, activation="relu")])
    made.set_weights([-np.eye(2), np.zeros(2)])
    run = backend.compiled(made, lambda forward, x: forward(x))
    x = np.ones((1, 2), "float32")
    for _ in range(recording._PLAIN_CALLS + 2):
        assert run(x).tolist() == [[0.0, 0.0]]
    made.layers[-1].activation = keras.activations.linear
    for _ in range(recording._PLAIN_CALLS + 2):
        assert run(x).tolist() == [[-1.0, -1.0]]


class Factor:
    """A number that parts of a user's own look up when they are called."""

    value = 1.0


class Cell(layers.Layer):
    state_size = output_size = 2

    def call(self, x, states):
        return x * Factor.value + states[0], [x]


class Scaled(keras.Operation):
    def call(self, x):
        return x * Factor.value

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def functional(operation) -> keras.Model:
    inputs = keras.Input((3, 2))
    return keras.Model(inputs, operation(layers.Dense(2)(inputs)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.Sequential([keras.Input((3, 2)), layers.RNN(Cell())]),
        lambda: functional(Scaled()),
        lambda: functional(lambda x: ops.map(lambda row: row * Factor.value, x)),
        lambda: functional(lambda x: ops.vectorized_map(lambda row: row * Factor.value, x)),
    ],
    ids=["cell", "operation", "map", "vectorized_map"],
)
def test_parts_of_a_users_own_are_run_wherever_they_are(make, monkeypatch) -> None:
    made, x = make(), np.ones((2, 3, 2), "float32")
    run = backend.compiled(made, lambda forward, x: forward(x))
    for factor in (1.0, 2.0):
        monkeypatch.setattr(Factor, "value", factor)
        for _ in range(recording._PLAIN_CALLS + 2):
            np.testing.assert_array_equal(run(x), made(x, training=False).detach())


def test_a_forward_of_a_users_own_is_run() -> None:
    made, calls = network(), []

    class Forward:
        network, training = made, False

        def __call__(self, x):
            calls.append(1)
            return made(x, training=False)

    x = torch.from_numpy(images(2))
    with torch.no_grad():
        backend.repeated_inside(Forward(), "test", lambda forward, x: x + ops.sum(forward(x)), 9, x, ())
    assert len(calls) == 9


def test_frozen_batch_normalization_is_seen() -> None:
    made = keras.Sequential([keras.Input((4,)), layers.BatchNormalization()])
    run = Recorded(
        made,
        lambda x: made.stateless_call(
            [v.value for v in made.trainable_variables],
            [v.value for v in made.non_trainable_variables],
            x,
            training=True,
        )[0],
    )
    x = torch.tensor([[1.0], [3.0]]).repeat(1, 4)
    with torch.no_grad():
        for _ in range(recording._PLAIN_CALLS + 2):
            assert run(made, x)[0, 0] < 0
        made.layers[0].trainable = False
        assert run(made, x)[0, 0] > 0


def test_new_weights_are_seen() -> None:
    made = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    run = backend.compiled(made, lambda forward, x: forward(x))
    x = np.ones((2, 4), "float32")
    for _ in range(recording._PLAIN_CALLS + 2):
        run(x)
    made.layers[0].enable_lora(2)
    np.testing.assert_array_equal(run(x), made(x, training=False).detach())


def test_arguments_are_told_apart_by_their_names() -> None:
    made = network()
    run = Recorded(made, lambda given: given["a"] if "b" in given else -given["a"])
    a = torch.ones(2)
    with torch.no_grad():
        for _ in range(recording._PLAIN_CALLS + 2):
            assert run(made, {"a": a, "b": a}).tolist() == [1.0, 1.0]
        assert run(made, {"a": a, "c": a}).tolist() == [-1.0, -1.0]


def test_a_tensor_that_cannot_be_copied_as_it_lies() -> None:
    made = network()
    run = Recorded(made, lambda x: x.reshape(-1) * 2.0)
    x = torch.arange(3.0)[:, None].expand(3, 2)
    with torch.no_grad():
        for _ in range(recording._PLAIN_CALLS + 2):
            assert run(made, x).tolist() == [0.0, 0.0, 2.0, 2.0, 4.0, 4.0]


def test_autocast_is_seen() -> None:
    made = network()
    run = Recorded(made, lambda x: x @ x)
    x = torch.eye(2)
    with torch.no_grad():
        for enabled in (True, False):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                for _ in range(recording._PLAIN_CALLS + 2):
                    assert run(made, x).dtype == (torch.bfloat16 if enabled else torch.float32)


@pytest.mark.parametrize("update", [lambda v: v.assign_add(1.0), lambda v: v.assign(v + 1.0)])
def test_a_function_that_assigns_is_run(update) -> None:
    made = network()
    for variable in (keras.Variable(0.0), made.variables[0]):
        run = Recorded(made, lambda x, variable=variable: update(variable) * 0.0 + x + variable)
        with torch.no_grad():
            found = [float(ops.sum(run(made, torch.zeros(())))) for _ in range(6)]
        assert len(set(found)) == 6


def test_values_and_shapes_that_python_sees_are_not_noted_down() -> None:
    made, outside = network(), torch.ones(())
    count = Recorded(made, lambda x: x + len(torch.nonzero(x)))
    scale = Recorded(made, lambda x: x * float(outside))
    with torch.no_grad():
        for _ in range(recording._PLAIN_CALLS + 2):
            assert count(made, torch.tensor([1.0, 0.0])).tolist() == [2.0, 1.0]
            assert scale(made, torch.ones(1)).item() == 1.0
        outside.fill_(3.0)
        assert count(made, torch.tensor([1.0, 1.0])).tolist() == [3.0, 3.0]
        assert scale(made, torch.ones(1)).item() == 3.0


def test_it_remembers_so_many(monkeypatch) -> None:
    monkeypatch.setattr(recording, "_PLAIN_CALLS", 0)
    monkeypatch.setattr(recording, "_KEPT", 3)
    made = network()
    run = Recorded(made, lambda x, number: x * number)
    with torch.no_grad():
        for number in range(6):
            assert run(made, torch.ones(1), number).item() == number
    (calls,) = run._calls.values()
    assert len(calls) == 3


@torch.library.custom_op("kbl_tests::turned", mutates_args=())
def turned(x: torch.Tensor) -> torch.Tensor:
    return x.clone().t().contiguous().t()


@turned.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty(x.shape)  # in truth its columns come first


def test_what_lies_otherwise_than_foretold_is_run() -> None:
    made = network()
    run = Recorded(made, lambda x: {"y": turned(x).reshape(-1)})  # a view of what was foretold
    x = torch.rand(3, 4)
    with torch.no_grad():
        for _ in range(recording._PLAIN_CALLS + 2):
            assert torch.equal(run(made, x)["y"], x.reshape(-1))


def test_noting_down_takes_no_memory() -> None:
    made, seen = network(), []
    run = Recorded(made, lambda x: seen.append(type(x.sin())) or {"y": x.sin()})
    with torch.no_grad():
        for _ in range(recording._PLAIN_CALLS + 2):
            run(made, torch.rand(3))
    assert seen == [torch.Tensor] * recording._PLAIN_CALLS + [FakeTensor, torch.Tensor]
