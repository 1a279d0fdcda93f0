"""What is true of the TensorFlow backend alone."""

import logging
import warnings

import keras
import numpy as np
import pytest

from kbl import backend
from kbl.attacks import PGD
from kbl.networks import build
from kbl.training import Batches, RobustModel

pytestmark = pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="TensorFlow's own graphs")


def test_many_attacks_of_many_shapes_do_not_warn_of_retracing(caplog) -> None:
    """TensorFlow knows functions by their code, and every attack's is the same."""
    network = build("digits_convnet", head="dense", num_classes=10, image_shape=(8, 8, 1), seed=0)
    x, y = np.full((8, 8, 8, 1), 0.5, "float32"), np.arange(8)
    with caplog.at_level(logging.WARNING, logger="tensorflow"):
        for count in range(1, 9):
            PGD(0.1, 0.02, 3)(network, x[:count], y[:count])
            PGD(0.1, 0.02, 3, loss="margin")(network, x[:count], y[:count])
    assert "retracing" not in caplog.text


@pytest.mark.parametrize("inside", [False, True], ids=["attack", "training"])
def test_a_step_is_a_graph_of_its_own(inside: bool, monkeypatch) -> None:
    """On a loop's cycle TensorFlow may meet the gradient of max-pooling before the pooling, and do it slowly."""
    import tensorflow as tf

    made, real = [], tf.function
    monkeypatch.setattr(
        tf, "function", lambda *given, **options: made.append(real(*given, **options)) or made[-1]
    )
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    x, y = np.full((4, 8, 8, 1), 0.5, "float32"), np.arange(4) % 3
    attack = PGD(0.1, 0.02, 3)
    if inside:
        tf.function(lambda x, y: attack.craft(network, x, y, tf.range(4), tf.constant(1)), autograph=False)(
            x, y.astype("int32")
        )
    else:
        attack(network, x, y)
    functions = [
        function
        for outer in made
        if hasattr(outer, "_list_all_concrete_functions")
        for concrete in outer._list_all_concrete_functions()
        for function in concrete.graph.as_graph_def().library.function
        if any(node.op == "MaxPoolGrad" for node in function.node_def)
    ]
    assert functions
    assert all(function.attr["_noinline"].b for function in functions)


def rows(count: int = 10) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((count, 2)).astype("float32"), np.arange(count) % 3


def model() -> RobustModel:
    keras.utils.set_random_seed(0)
    made = RobustModel(keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]))
    made.compile(keras.optimizers.SGD(0.1))
    return made


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 5},
        {"sample_weight": np.arange(10.0)},
        {"validation_data": rows(7)},
        {"validation_data": (*rows(7), np.arange(7.0)), "validation_batch_size": 3},
        {"validation_data": rows(7), "validation_freq": 2},
        {"steps_per_epoch": 2},
        {"class_weight": {0: 2.0, 1: 1.0, 2: 0.5}},
        {"validation_split": 0.3},
    ],
    ids=lambda options: ", ".join(options) or "plain",
)
def test_fit_does_with_arrays_what_keras_does(options, monkeypatch) -> None:
    options = {"batch_size": 4, "shuffle": False, "epochs": 3, "verbose": 0, **options}
    if "steps_per_epoch" in options:
        options["epochs"] = 1
    found = model().fit(*rows(), **options).history
    monkeypatch.setattr(backend, "fit_arguments", lambda given: given)
    expected = model().fit(*rows(), **options).history
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)


def test_arrays_become_a_pipeline_that_is_not_tuned() -> None:
    x, y = rows()
    given = backend.fit_arguments({"x": x, "y": y, "batch_size": 4, "validation_data": (x, y), "epochs": 2})
    assert set(given) == {"x", "validation_data", "epochs", "shuffle"}
    assert given["shuffle"] is False  # the pipeline does
    for pipeline in (given["x"], given["validation_data"]):
        assert pipeline.options().autotune.enabled is False
        assert len(pipeline) == 3
    orders = [np.concatenate([x.numpy()[:, 0] for x, _ in given["x"]]) for _ in range(2)]
    assert (orders[0] != orders[1]).any()
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.sort(x[:, 0]))
    np.testing.assert_array_equal(np.concatenate([x.numpy() for x, _ in given["validation_data"]]), x)


def test_shuffling_is_the_pipelines_and_keras_does_not_warn_of_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(model().fit(*rows(), batch_size=4, epochs=2, verbose=0).history["loss"]) == 2


def test_images_and_labels_stay_together() -> None:
    x, _ = rows()
    for images, labels in backend.fit_arguments({"x": x, "y": x[:, 0]})["x"]:
        np.testing.assert_array_equal(images.numpy()[:, 0], labels.numpy())


@pytest.mark.parametrize(
    "change", [{"validation_split": 0.2}, {"class_weight": {0: 1.0}}, {"shuffle": "batch"}, {"y": None}]
)
def test_other_arguments_are_keras_own(change) -> None:
    x, y = rows()
    given = {"x": x, "y": y, **change}
    found = backend.fit_arguments(given)
    assert found.keys() == given.keys()
    assert all(found[name] is value for name, value in given.items())


def test_arrays_to_validate_on_are_not_tuned_beside_other_data() -> None:
    x, y = rows()
    given = {"x": Batches(x, y, 4, seed=0), "validation_data": (x, y), "validation_batch_size": 4}
    found = backend.fit_arguments(given)
    assert found["x"] is given["x"]
    assert found.keys() == {"x", "validation_data"}
    assert found["validation_data"].options().autotune.enabled is False
    assert len(found["validation_data"]) == 3


def test_arrays_that_do_not_fit_are_refused_by_keras() -> None:
    x, y = rows()
    with pytest.raises(ValueError, match="cardinality"):
        model().fit(x, y[:7], verbose=0)
