"""The Gaussian-mixture head against float64 references, its memory, its gradients and its files."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from kbl.backend import value_and_grad
from kbl.layers import GMMHead
from kbl.layers.features import features_and_head
from kbl.layers.gmm_head import has_gmm_head

BACKEND = keras.backend.backend()


def head_with(means: np.ndarray, **arguments) -> GMMHead:
    head = GMMHead(len(means), **arguments)
    head.build((None, means.shape[1]))
    head.means.assign(means)
    return head


def call(head: GMMHead, features: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(head(features))


def naive(features: np.ndarray, means: np.ndarray) -> np.ndarray:
    offset = features.astype("float64")[:, None] - means.astype("float64")[None]
    return -0.5 * np.square(offset).sum(axis=-1)


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(20, 8)).astype("float32"), rng.normal(size=(5, 8)).astype("float32")


def test_by_hand() -> None:
    head = head_with(np.array([[0, 0], [3, 1], [1, 2]], "float32"))
    assert call(head, np.array([[1, 2], [3, 1]], "float32")).tolist() == [[-2.5, -2.5, 0], [-5, 0, -2.5]]


def test_equals_half_the_squared_distance(drawn) -> None:
    features, means = drawn
    logits = call(head_with(means), features)
    assert logits.dtype == "float32"
    np.testing.assert_allclose(logits, naive(features, means), rtol=2e-6, atol=4e-6)
    assert (logits < 0).all()


def test_softmax_is_the_posterior_of_gaussian_densities(drawn) -> None:
    """Eq. 4 with equal priors: N(h; μ_k, I) / Σ_j N(h; μ_j, I)."""
    features, means = drawn
    offset = features.astype("float64")[:, None] - means.astype("float64")[None]
    density = np.prod(np.exp(-0.5 * offset**2) / np.sqrt(2 * np.pi), axis=-1)
    posterior = density / density.sum(axis=1, keepdims=True)
    found = ops.convert_to_numpy(ops.softmax(head_with(means)(features)))
    np.testing.assert_allclose(found, posterior, rtol=2e-5, atol=1e-7)


def test_weights() -> None:
    head = GMMHead(7)
    head.build((None, 12))
    assert head.count_params() == 7 * 12
    assert [(v.name, tuple(v.shape), v.dtype) for v in head.trainable_variables] == [
        ("means", (7, 12), "float32")
    ]
    assert head.non_trainable_variables == []
    assert head(keras.Input((12,), batch_size=3)).shape == (3, 7)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_computes_in_float32_under_every_policy(dtype: str) -> None:
    """Features of length 160: half precision would miss the logits by 4 and more."""
    rng = np.random.default_rng(1)
    features = ops.cast(rng.normal(size=(6, 64)) * 20, dtype.removeprefix("mixed_"))
    means = (rng.normal(size=(4, 64)) * 20).astype("float32")
    head = head_with(means, dtype=dtype)
    assert keras.backend.standardize_dtype(head.means.dtype) == "float32"
    logits = head(features)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    expected = naive(ops.convert_to_numpy(ops.cast(features, "float32")), means)
    np.testing.assert_allclose(ops.convert_to_numpy(logits), expected, rtol=1e-5)
    symbolic = head(keras.Input((64,), dtype=dtype.removeprefix("mixed_")))
    assert symbolic.dtype == "float32"


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_in_a_network_of_mixed_precision(policy: str) -> None:
    dense = keras.layers.Dense(4, dtype=policy)
    network = keras.Sequential([keras.Input((3,)), dense, GMMHead(2, dtype=policy)])
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    logits = network(x)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    features = dense(x)
    assert keras.backend.standardize_dtype(features.dtype) == policy.removeprefix("mixed_")
    features = ops.convert_to_numpy(ops.cast(features, "float32"))
    expected = naive(features, ops.convert_to_numpy(network.layers[-1].means))
    np.testing.assert_allclose(ops.convert_to_numpy(logits), expected, rtol=1e-5, atol=1e-5)


def largest_tensor(head: GMMHead, batch: int, channels: int) -> int:
    """Return the number of elements of the largest tensor that any operation of the head makes."""
    features = np.ones((batch, channels), "float32")
    if BACKEND == "torch":
        import torch
        from torch.utils._python_dispatch import TorchDispatchMode

        sizes = []

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
                result = operation(*arguments, **(keywords or {}))
                sizes.extend(t.numel() for t in keras.tree.flatten(result) if isinstance(t, torch.Tensor))
                return result

        with Watch():
            head(features)
    elif BACKEND == "jax":
        import jax

        jaxpr = jax.make_jaxpr(lambda means, h: head.stateless_call([means], [], h)[0])(
            head.means.value, features
        )
        sizes = [value.aval.size for equation in jaxpr.jaxpr.eqns for value in equation.outvars]
    else:
        import tensorflow as tf

        graph = (
            tf.function(head, autograph=False).get_concrete_function(ops.convert_to_tensor(features)).graph
        )
        sizes = [out.shape.num_elements() or 0 for op in graph.get_operations() for out in op.outputs]
    assert sizes
    return max(sizes)


def test_makes_no_tensor_of_differences() -> None:
    head = GMMHead(100)
    head.build((None, 64))
    assert largest_tensor(head, 16, 64) == 100 * 64  # the means transposed; not 16·100·64


def test_many_classes(drawn) -> None:
    rng = np.random.default_rng(3)
    features, means = (rng.normal(size=(n, 512)).astype("float32") for n in (64, 1000))
    logits = call(head_with(means), features)
    assert logits.shape == (64, 1000)
    rows = [0, 31, 63]
    np.testing.assert_allclose(logits[rows], naive(features[rows], means), rtol=1e-5)


FEATURES = np.array([[1, 2]], "float32")
MEANS = np.array([[0, 0], [3, 1]], "float32")
WEIGHTS = np.array([[1, 10]], "float32")
# Of 1·z₀ + 10·z₁: by h it is Σ c_k (μ_k - h), by μ_k it is c_k (h - μ_k).
BY_FEATURES = [[1 * -1 + 10 * 2, 1 * -2 + 10 * -1]]
BY_MEANS = [[1, 2], [10 * -2, 10 * 1]]


@pytest.mark.parametrize(
    ("through", "by_features", "by_means"),
    [
        ("features and means", BY_FEATURES, BY_MEANS),
        ("features", BY_FEATURES, [[0, 0], [0, 0]]),
        ("means", [[0, 0]], BY_MEANS),
    ],
)
def test_gradient_through(through: str, by_features, by_means) -> None:
    head = head_with(MEANS)

    def total(features):
        logits = head.log_likelihood(features, through)
        return ops.sum(ops.multiply(logits, WEIGHTS)), logits

    def total_of_means(means):
        with keras.StatelessScope(state_mapping=[(head.means, means)]):
            return total(ops.convert_to_tensor(FEATURES))

    for function, at, expected in (
        (total, FEATURES, by_features),
        (total_of_means, MEANS, by_means),
    ):
        logits, gradient = value_and_grad(function, ops.convert_to_tensor(at))
        assert ops.convert_to_numpy(logits).tolist() == [[-2.5, -2.5]]
        assert ops.convert_to_numpy(gradient).tolist() == expected


def test_bad_arguments() -> None:
    for bad in (0, -3, 2.0, "10", None):
        with pytest.raises(ValueError, match=f"num_classes must be a positive integer.*num_classes={bad}"):
            GMMHead(bad)
    with pytest.raises(ValueError, match="ndim=2, found ndim=4"):
        GMMHead(3)(np.zeros((2, 4, 4, 1), "float32"))
    with pytest.raises(ValueError, match=r"through must be one of.*Received: through='mean'"):
        head_with(MEANS).log_likelihood(FEATURES, "mean")


def test_configuration() -> None:
    head = GMMHead(3, means_initializer=keras.initializers.Constant(0.5), name="gaussians", trainable=False)
    restored = GMMHead.from_config(head.get_config())
    assert restored.get_config() == head.get_config()
    assert (restored.name, restored.num_classes, restored.trainable) == ("gaussians", 3, False)
    restored.build((None, 2))
    assert ops.convert_to_numpy(restored.means).tolist() == [[0.5, 0.5]] * 3


def network_with_head() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu"),
            GMMHead(3),
        ]
    )


def test_save_and_load(tmp_path) -> None:
    network = network_with_head()
    x = np.random.default_rng(0).random((4, 6, 6, 1)).astype("float32")
    network.save(tmp_path / "network.keras")
    restored = keras.saving.load_model(tmp_path / "network.keras")
    assert isinstance(restored.layers[-1], GMMHead)
    np.testing.assert_allclose(
        ops.convert_to_numpy(restored(x)), ops.convert_to_numpy(network(x)), rtol=1e-6, atol=1e-6
    )


SAVE_ELSEWHERE = """
import sys
import keras, numpy as np
from test_gmm_head import network_with_head
keras.utils.set_random_seed(4)
network = network_with_head()
x = np.random.default_rng(0).random((4, 6, 6, 1)).astype("float32")
network.save(sys.argv[1])
np.savez(sys.argv[2], x=x, logits=keras.ops.convert_to_numpy(network(x)), backend=keras.backend.backend())
"""


def test_load_what_another_backend_saved(tmp_path) -> None:
    other = {"torch": "jax", "jax": "torch", "tensorflow": "torch"}[BACKEND]
    if importlib.util.find_spec(other) is None:
        pytest.skip(f"{other} is not installed")
    folder = os.path.dirname(os.path.abspath(__file__))
    root = os.path.dirname(os.path.dirname(folder))
    model, record = tmp_path / "network.keras", tmp_path / "record.npz"
    path = os.pathsep.join([root, folder, os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-c", SAVE_ELSEWHERE, str(model), str(record)],
        env={**os.environ, "KERAS_BACKEND": other, "PYTHONPATH": path},
        check=True,
    )
    saved = np.load(record)
    assert saved["backend"] == other
    restored = keras.saving.load_model(model)
    np.testing.assert_allclose(
        ops.convert_to_numpy(restored(saved["x"])), saved["logits"], rtol=1e-5, atol=1e-5
    )


def functional() -> keras.Model:
    inputs = keras.Input((4,))
    features = keras.layers.Dense(3, activation="relu", name="deepest")(inputs)
    return keras.Model(inputs, GMMHead(2)(features), name="small")


def sequential() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), GMMHead(2)], name="small")


@pytest.mark.parametrize("make", [functional, sequential])
@pytest.mark.parametrize("nested", [False, True])
def test_features_and_head(make, nested: bool) -> None:
    network = make()
    if nested:  # the network's use in another model leaves it as it is
        keras.Sequential([keras.Input((4,)), keras.layers.Rescaling(2.0), network])
    assert has_gmm_head(network)
    features, head = features_and_head(network)
    assert head is network.layers[-1]
    assert features.name == "small_features"
    assert features.output_shape == (None, 3)
    x = np.random.default_rng(0).random((5, 4)).astype("float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(head(features(x))), ops.convert_to_numpy(network(x)))
    network.layers[-2].kernel.assign(np.ones((4, 3)))  # shared, not copied
    np.testing.assert_allclose(
        ops.convert_to_numpy(features(x)), x.sum(1, keepdims=True) @ np.ones((1, 3)), rtol=1e-6
    )


def test_features_and_head_of_a_network_in_a_sequential_model() -> None:
    """What purifies images first is such a model."""
    inner = sequential()
    outer = keras.Sequential([keras.Input((4,)), keras.layers.Rescaling(2.0), inner])
    features, head = features_and_head(outer, gaussian=True)
    assert head is inner.layers[-1]
    x = np.random.default_rng(0).random((5, 4)).astype("float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(head(features(x))), ops.convert_to_numpy(outer(x)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.dense, self.head = keras.layers.Dense(3), GMMHead(2)

    def call(self, x):
        return self.head(self.dense(x))


def test_features_and_head_refuses_other_networks() -> None:
    dense = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="flat")
    start = keras.Input((4,))
    outer = keras.Model(start, sequential()(start), name="outer")
    subclassed = Subclassed()
    subclassed(np.zeros((1, 4), "float32"))
    unbuilt = keras.Sequential([GMMHead(2)], name="unbuilt")
    for network, message in (
        (dense, "Received: <Sequential name=flat"),
        (outer, "Received: <Functional name=outer"),
        (subclassed, "Received: <Subclassed name=subclassed"),
        (unbuilt, "with an Input.*Received: <Sequential name=unbuilt"),
        (GMMHead(2, name="alone"), "Received: <GMMHead name=alone"),
    ):
        with pytest.raises(ValueError, match=message):
            features_and_head(network, gaussian=True)
    assert not has_gmm_head(dense)
    assert has_gmm_head(outer)  # its logits are a Gaussian head's, though it cannot be split


# Diagonal covariance.


def diagonal(means: np.ndarray, log_variances: np.ndarray) -> GMMHead:
    head = head_with(means, covariance="diagonal")
    head.log_variances.assign(log_variances)
    return head


def test_diagonal_by_hand() -> None:
    """Variances (1, 4) and (¼, 1): -½ (1 + 4/4) - ½ log 4 and -½ (0 + 1) + ½ log 4."""
    head = diagonal(np.array([[0.0, 0.0], [1.0, 1.0]]), np.log([[1.0, 4.0], [0.25, 1.0]]))
    features = np.array([[1.0, 2.0]], "float32")
    log2 = np.log(2.0)
    np.testing.assert_allclose(call(head, features), [[-1 - log2, -0.5 + log2]], rtol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(head.half_distances(features)), [[1.0, 0.5]], rtol=1e-6)


def test_diagonal_is_the_naive_formula() -> None:
    rng = np.random.default_rng(0)
    means, logs = rng.normal(size=(5, 7)), rng.normal(size=(5, 7))
    features = rng.normal(size=(4, 7)).astype("float32")
    offset = features.astype("float64")[:, None] - means[None]
    expected = -0.5 * (np.square(offset) / np.exp(logs)).sum(-1) - 0.5 * logs.sum(-1)
    np.testing.assert_allclose(call(diagonal(means, logs), features), expected, rtol=1e-4)


def test_a_new_diagonal_head_is_the_identity() -> None:
    rng = np.random.default_rng(1)
    means, features = rng.normal(size=(3, 4)), rng.normal(size=(2, 4)).astype("float32")
    head = head_with(means, covariance="diagonal")
    assert [weight.name for weight in head.weights] == ["means", "log_variances"]
    np.testing.assert_allclose(call(head, features), call(head_with(means), features), rtol=1e-5)


def test_covariance_is_saved_and_checked() -> None:
    head = GMMHead(3, covariance="diagonal")
    assert GMMHead.from_config(head.get_config()).covariance == "diagonal"
    old = GMMHead(3).get_config()
    del old["covariance"]  # as saved before there was a choice
    assert GMMHead.from_config(old).covariance == "identity"
    with pytest.raises(ValueError, match=r"covariance must be one of.*Received: covariance='full'"):
        GMMHead(3, covariance="full")
