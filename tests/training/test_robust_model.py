"""RobustModel in Keras' own loop: fit, evaluate, predict, callbacks, saving."""

import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec

import keras
import numpy as np
import pytest
from keras import layers, ops

from kbl import random
from kbl.attacks import FGSM, PGD
from kbl.layers import GMMHead, RandomFlipCrop
from kbl.methods import ATBLR, PATDA, AdversarialTraining, CenterLoss, Natural
from kbl.training import RobustModel

BACKEND = keras.config.backend()
RNG = np.random.default_rng(0)
X = RNG.uniform(0, 1, (12, 3, 3, 1)).astype("float32")
Y = (np.arange(12) % 3).astype("int32")
ATTACK = PGD(0.1, 0.05, 2)


def numbers(tensor) -> np.ndarray:
    return ops.convert_to_numpy(ops.convert_to_tensor(tensor))


def network(head: str = "gmm", seed: int = 1) -> keras.Model:
    """Flatten, a layer of 6, three classes; weights from the seed."""
    last = GMMHead(3) if head == "gmm" else layers.Dense(3)
    net = keras.Sequential(
        [keras.Input((3, 3, 1)), layers.Flatten(), layers.Dense(6, activation="tanh"), last]
    )
    rng = np.random.default_rng(seed)
    net.set_weights([rng.normal(0, 0.7, weight.shape).astype("float32") for weight in net.weights])
    return net


def robust(method=None, head: str = "gmm", rate: float = 0.1, seed: int = 0, **options) -> RobustModel:
    model = RobustModel(network(head), seed=seed, augmentation=options.pop("augmentation", None))
    model.compile(keras.optimizers.SGD(rate), method=method, **options)
    return model


def cross_entropy(logits: np.ndarray, y: np.ndarray = Y) -> np.ndarray:
    logits = logits.astype("float64")
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]


@pytest.fixture(scope="module")
def fitted():
    """One compiled model for the tests that only look at it, and the history of its two epochs."""
    model = robust(ATBLR(attack=ATTACK, likelihood_weight=0.01), metrics=["accuracy"])
    history = model.fit(X, Y, batch_size=4, epochs=2, validation_data=(X[:8], Y[:8]), verbose=0)
    return model, history.history


# What fit and evaluate tell.


def test_history(fitted) -> None:
    model, history = fitted
    names = {"loss", "accuracy", "clean_accuracy", "adversarial_accuracy", "clean_lkd", "adversarial_lkd"}
    assert set(history) == names | {f"val_{name}" for name in names}
    assert all(len(values) == 2 for values in history.values())
    assert history["accuracy"] == history["clean_accuracy"]
    assert history["val_accuracy"] == history["val_clean_accuracy"]
    assert int(numbers(model.steps_taken)) == 6


def test_evaluate_equals_the_numbers_by_hand(fitted) -> None:
    model, _ = fitted
    found = model.evaluate(X, Y, batch_size=12, return_dict=True, verbose=0)
    index = ops.arange(12, dtype="int32")
    x_adv = model.method.craft(
        model.network, ops.convert_to_tensor(X), Y, index, random.key(model.seed, -1), None
    )
    clean, adversarial = numbers(model(X)), numbers(model(x_adv))
    distance, distance_adv = -2 * clean[range(12), Y], -2 * adversarial[range(12), Y]
    loss = 0.5 * (cross_entropy(clean) + 0.01 * distance + cross_entropy(adversarial) - 0.01 * distance_adv)
    expected = {
        "loss": loss.mean(),
        "clean_accuracy": (clean.argmax(1) == Y).mean(),
        "accuracy": (clean.argmax(1) == Y).mean(),
        "adversarial_accuracy": (adversarial.argmax(1) == Y).mean(),
        "clean_lkd": distance.mean(),
        "adversarial_lkd": distance_adv.mean(),
    }
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, err_msg=name)
    assert found == model.evaluate(X, Y, batch_size=12, return_dict=True, verbose=0), (
        "validation repeats itself"
    )


def test_one_hot_labels_are_as_good() -> None:
    found = []
    for y in (Y, Y[:, None], np.eye(3, dtype="float32")[Y]):
        model = robust(ATBLR(attack=ATTACK, likelihood_weight=0.01), run_eagerly=True)
        found.append(model.test_on_batch(X, y, return_dict=True))
    for other in found[1:]:
        assert {k: float(v) for k, v in other.items()} == {k: float(v) for k, v in found[0].items()}


def test_predict_and_call_are_the_network(fitted) -> None:
    model, _ = fitted
    logits = numbers(model.network(X, training=False))
    np.testing.assert_allclose(numbers(model(X)), logits, rtol=1e-6)
    np.testing.assert_allclose(model.predict(X, batch_size=5, verbose=0), logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "head", "names"),
    [
        (Natural(), "gmm", {"clean_accuracy", "clean_lkd"}),
        (None, "dense", {"clean_accuracy"}),
        (AdversarialTraining(attack=ATTACK), "dense", {"clean_accuracy", "adversarial_accuracy"}),
    ],
)
def test_metrics_without_a_meaning_are_hidden(method, head, names) -> None:
    model = robust(method, head)
    assert {metric.name for metric in model.metrics} == {"loss"} | names
    history = model.fit(X, Y, batch_size=12, epochs=1, verbose=0).history
    assert set(history) == {"loss"} | names
    if method is None:
        np.testing.assert_allclose(
            history["loss"], [cross_entropy(numbers(network(head)(X))).mean()], rtol=1e-5
        )


def test_losses_of_the_network_are_added() -> None:
    net = keras.Sequential(
        [keras.Input((3, 3, 1)), layers.Flatten(), layers.Dense(3, kernel_regularizer="l2")]
    )
    model = RobustModel(net)
    model.compile(keras.optimizers.SGD(0.1))
    loss = model.train_on_batch(X, Y, return_dict=True)["loss"]
    fresh = 0.01 * (numbers(net.layers[-1].kernel) ** 2).sum()
    before = model.evaluate(X, Y, batch_size=12, return_dict=True, verbose=0)["loss"]
    np.testing.assert_allclose(before, cross_entropy(numbers(net(X))).mean() + fresh, rtol=1e-5)
    assert loss > before


# Weights of images.


def trained(model: RobustModel, start: list, *data, **options) -> list[np.ndarray]:
    """Take one step from the starting weights; return the weights after it."""
    model.network.set_weights(start)
    model.steps_taken.assign(0)
    model.fit(*data, batch_size=len(data[0]), epochs=1, shuffle=False, verbose=0, **options)
    return model.network.get_weights()


@pytest.fixture(scope="module")
def weighted():
    return robust(AdversarialTraining(attack=ATTACK, examples="clean and adversarial"), rate=0.5)


def test_an_image_of_weight_0_has_no_effect(weighted) -> None:
    start = network().get_weights()
    weight = np.array([1, 1, 2, 0.5, 1, 3] + [0] * 6, "float32")
    first = trained(weighted, start, X, Y, sample_weight=weight)
    other_x, other_y = X.copy(), Y.copy()
    other_x[6:], other_y[6:] = 1 - X[6:], (Y[6:] + 1) % 3
    second = trained(weighted, start, other_x, other_y, sample_weight=weight)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    # Keras divides by the number of images, those of weight 0 included: twice the weight is as without them.
    doubled = trained(weighted, start, X, Y, sample_weight=np.repeat([2.0, 0.0], 6).astype("float32"))
    alone = trained(weighted, start, X[:6], Y[:6])
    for a, b, c in zip(doubled, alone, start, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        assert np.abs(a - c).max() > 1e-3


def test_class_weight_is_the_weight_of_its_images(weighted) -> None:
    start = network().get_weights()
    by_class = trained(weighted, start, X, Y, class_weight={0: 2.0, 1: 0.0, 2: 0.5})
    by_image = trained(weighted, start, X, Y, sample_weight=np.array([2, 0, 0.5], "float32")[Y])
    for a, b in zip(by_class, by_image, strict=True):
        np.testing.assert_array_equal(a, b)


# Precision and compilation.


@pytest.fixture
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
    ("policy", "head"), [("mixed_bfloat16", "gmm"), ("mixed_float16", "dense")], indirect=["policy"]
)
def test_mixed_precision(policy, head) -> None:
    """A step of half precision is near that of single precision, and the loss itself is single."""
    method = AdversarialTraining(attack=FGSM(0.1), examples="clean and adversarial")
    half = robust(method, head, rate=0.5)
    assert type(half.optimizer).__name__ == ("LossScaleOptimizer" if policy == "mixed_float16" else "SGD")
    loss = half.fit(X, Y, batch_size=12, epochs=1, verbose=0, shuffle=False).history["loss"][0]
    assert half.network.layers[1].compute_dtype == policy.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(half.network(X).dtype) == (
        "float32" if head == "gmm" else policy.removeprefix("mixed_")
    )
    assert all(keras.backend.standardize_dtype(weight.dtype) == "float32" for weight in half.network.weights)
    keras.config.set_dtype_policy("float32")
    single = robust(method, head, rate=0.5)
    expected = single.fit(X, Y, batch_size=12, epochs=1, verbose=0, shuffle=False).history["loss"][0]
    np.testing.assert_allclose(loss, expected, rtol=2e-2)
    if policy == "mixed_float16":
        np.testing.assert_allclose(loss, expected, rtol=2e-3)
    weights = [model.get_weights() for model in (half.network, single.network, network(head))]
    for a, b, c in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=0.1 * np.abs(b - c).max())


@pytest.mark.parametrize("jit", [False, True])
def test_compiled_or_not_the_step_is_the_same(jit) -> None:
    if jit and BACKEND == "torch":
        pytest.skip("torch.compile takes most of a minute on a CPU, and a C++ compiler")
    method = ATBLR(attack=ATTACK, likelihood_weight=0.05, gradient_through="means")
    eager, compiled = robust(method, run_eagerly=True), robust(method, jit_compile=jit)
    for model in (eager, compiled):
        for _ in range(2):
            model.train_on_batch(X, Y)
    for a, b in zip(eager.network.get_weights(), compiled.network.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# What a compiled step must not freeze.


def test_crafting_sees_the_current_weights() -> None:
    model = robust(AdversarialTraining(attack=FGSM(0.1)), rate=0.0)
    losses = []
    for seed in (1, 2, 1):
        model.network.set_weights(network(seed=seed).get_weights())
        model.steps_taken.assign(0)
        found = model.fit(X, Y, batch_size=12, epochs=1, verbose=0, shuffle=False).history["loss"][0]
        index, step = ops.arange(12, dtype="int32"), ops.convert_to_tensor(0, "int32")
        x_adv = model.method.craft(
            model.network, ops.convert_to_tensor(X), Y, index, random.key(0, step), step
        )
        np.testing.assert_allclose(found, cross_entropy(numbers(model(x_adv))).mean(), rtol=1e-5)
        losses.append(found)
    assert abs(losses[0] - losses[1]) > 1e-3
    assert losses[0] == losses[2]


def test_random_starts_are_drawn_anew_each_step_and_repeat_by_the_seed() -> None:
    """Nothing learns at rate 0, and one step of size 0 is its random start: only the starts differ."""

    def losses(seed: int) -> list[float]:
        model = robust(AdversarialTraining(attack=PGD(0.3, 0.0, 1)), rate=0.0, seed=seed)
        found = model.fit(X, Y, batch_size=12, epochs=3, shuffle=False, verbose=0).history["loss"]
        for step, loss in enumerate(found):
            start = 2 * numbers(random.uniform(random.key(seed, step), ops.arange(12), (3, 3, 1))) - 1
            x_adv = np.clip(X + (0.3 - 2.0**-24) * start, 0, 1)
            np.testing.assert_allclose(loss, cross_entropy(numbers(model(x_adv))).mean(), rtol=1e-5)
        return found

    first, other = losses(0), losses(4)
    assert len(set(first + other)) == 6


def test_augmentation_comes_before_the_attack() -> None:
    augmentation = RandomFlipCrop(mirror=True, crop_padding=1, seed=2)
    twin = RandomFlipCrop(mirror=True, crop_padding=1, seed=2)
    model = robust(Natural(), rate=0.0, augmentation=augmentation)
    found = model.fit(X, Y, batch_size=12, epochs=2, shuffle=False, verbose=0, validation_data=(X, Y)).history
    expected = [cross_entropy(numbers(model(twin(X, training=True)))).mean() for _ in range(2)]
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["val_loss"], [cross_entropy(numbers(model(X))).mean()] * 2, rtol=1e-5)
    assert int(numbers(augmentation.counter)) == 2
    (images, x_adv), _, _ = RobustModel.attacked(_with(model, FGSM(0.1)), (X, Y), training=True)
    np.testing.assert_array_equal(numbers(images), numbers(twin(X, training=True)))
    np.testing.assert_allclose(np.abs(numbers(x_adv) - numbers(images)).max(), 0.1, atol=1e-6)


def _with(model: RobustModel, attack: PGD) -> RobustModel:
    model.compile(keras.optimizers.SGD(0.0), method=AdversarialTraining(attack=attack))
    return model


def test_a_second_compile_takes_another_method() -> None:
    model = robust(Natural(), rate=0.0)
    clean = model.fit(X, Y, batch_size=12, epochs=1, verbose=0).history["loss"][0]
    attacked = _with(model, FGSM(0.2)).fit(X, Y, batch_size=12, epochs=1, verbose=0).history["loss"][0]
    assert attacked > clean + 0.01


def test_a_second_compile_begins_anew(tmp_path) -> None:
    """The warm-up counts from there, and of what an earlier method remembered nothing is left."""
    model = robust(PATDA(attack=ATTACK), "dense")
    model.fit(X, Y, batch_size=4, epochs=1, verbose=0)
    model.compile(keras.optimizers.SGD(0.0), method=CenterLoss())
    assert [variable.name for variable in model.memory.weights] == ["centres"]
    assert tuple(model.memory.weights[0].shape) == (3, 6)
    model.save(tmp_path / "model.keras")
    keras.saving.load_model(tmp_path / "model.keras").set_weights(model.get_weights())
    method = AdversarialTraining(attack=FGSM(0.1), warmup_steps=10)
    model.compile(keras.optimizers.SGD(0.0), method=method)
    (images, x_adv), _, _ = model.attacked((X, Y), training=True)
    np.testing.assert_allclose(np.abs(numbers(x_adv) - numbers(images)).max(), 0.01, atol=1e-6)


# Callbacks and saving.


def test_checkpoint_restores_method_and_numbers(tmp_path) -> None:
    method = ATBLR(attack=ATTACK, likelihood_weight=0.01, bound=16.0, warmup_steps=2)
    augmentation = RandomFlipCrop(crop_padding=1, seed=5)
    model = RobustModel(network(), augmentation, seed=9)
    model.compile(keras.optimizers.Adam(0.01), method=method, metrics=["accuracy"])
    path = tmp_path / "model.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    model.fit(X, Y, batch_size=4, epochs=1, callbacks=checkpoint, verbose=0)
    loaded = keras.saving.load_model(path)
    assert isinstance(loaded, RobustModel)
    assert (loaded.method, loaded.seed) == (method, 9)
    assert loaded.augmentation.get_config() == augmentation.get_config()
    assert int(numbers(loaded.steps_taken)) == 3
    assert int(numbers(loaded.augmentation.counter)) == 3
    assert int(numbers(loaded.optimizer.iterations)) == 3
    options = {"batch_size": 12, "return_dict": True, "verbose": 0}
    assert loaded.evaluate(X, Y, **options) == model.evaluate(X, Y, **options)
    for each in (model, loaded):
        each.fit(X, Y, batch_size=12, epochs=1, verbose=0, shuffle=False)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_interrupted_training_goes_on_from_a_backup(tmp_path) -> None:
    method = AdversarialTraining(attack=ATTACK)

    def fit(model: RobustModel, *callbacks) -> None:
        callbacks = [*callbacks, keras.callbacks.BackupAndRestore(tmp_path / "backup")]
        model.fit(X, Y, batch_size=4, epochs=3, shuffle=False, callbacks=callbacks, verbose=0)

    def fresh() -> RobustModel:
        model = RobustModel(network())
        model.compile(keras.optimizers.Adam(0.01), method=method)
        return model

    class PowerCut(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if (int(numbers(self.model.optimizer.iterations)) if BACKEND != "jax" else self.seen) == 5:
                raise RuntimeError("power cut")
            self.seen += 1

        seen = 1

    unbroken = fresh()
    fit(unbroken)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(fresh(), PowerCut())
    resumed = fresh()
    fit(resumed)
    assert int(numbers(resumed.steps_taken)) == 9
    for a, b in zip(unbroken.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_early_stopping() -> None:
    model = robust(Natural(), rate=0.0)
    stop = keras.callbacks.EarlyStopping("val_clean_accuracy", mode="max", patience=1)
    history = model.fit(X, Y, epochs=5, validation_data=(X, Y), callbacks=[stop], verbose=0).history
    assert len(history["loss"]) == 2


@pytest.mark.skipif(
    not (find_spec("tensorboard") and find_spec("tensorflow")), reason="tensorboard is not installed"
)
def test_tensorboard(tmp_path) -> None:
    board = keras.callbacks.TensorBoard(tmp_path)
    robust(AdversarialTraining(attack=ATTACK)).fit(X, Y, epochs=1, callbacks=[board], verbose=0)
    assert list(tmp_path.rglob("events.out.tfevents.*"))


def test_the_network_alone_loads_without_kbl_but_its_head(fitted, tmp_path) -> None:
    model, _ = fitted
    model.network.save(tmp_path / "network.keras")
    np.save(tmp_path / "x.npy", X)
    code = (
        "import sys, json, keras, numpy as np\n"
        "from kbl.layers import GMMHead\n"
        "network = keras.saving.load_model('network.keras')\n"
        "assert isinstance(network.layers[-1], GMMHead)\n"
        "rooms = [n for n in sys.modules if n in ('kbl.training', 'kbl.methods', 'kbl.attacks')]\n"
        "print(json.dumps([rooms, network.predict(np.load('x.npy'), verbose=0).tolist()]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rooms, logits = json.loads(done.stdout.splitlines()[-1])
    assert rooms == []
    np.testing.assert_allclose(logits, numbers(model(X)), rtol=1e-5, atol=1e-6)


# What is refused.


def test_images_outside_the_cube_are_refused(fitted) -> None:
    model, _ = fitted
    with pytest.raises(ValueError, match=r"\[0, 1\]\. Received: values from 0 to 255"):
        model.fit(np.array([[0.0], [255.0]]), Y[:2])
    with pytest.raises(ValueError, match=r"\[0, 1\]\. Received: values from nan"):
        model.fit(np.full((2, 3, 3, 1), math.nan, "float32"), Y[:2])


@pytest.mark.parametrize("y", [Y + 1, Y - 1, Y[:, None] + 3, Y + math.nan])
def test_labels_that_are_no_classes_are_refused(fitted, y) -> None:
    model, _ = fitted
    for given in ((X, y), (X,)):
        with pytest.raises(ValueError, match=r"y must hold classes 0 to 2, .* Received: labels from"):
            model.fit(*given, **({} if len(given) == 2 else {"y": y}))


def test_wrong_compilations_are_refused() -> None:
    model = RobustModel(network("dense"))
    with pytest.raises(ValueError, match=r"last layer must be kbl\.layers\.GMMHead"):
        model.compile(method=ATBLR(attack=ATTACK, likelihood_weight=0.1))
    with pytest.raises(ValueError, match=r"the method's: give `method` alone\. Received: loss='mse'"):
        model.compile(loss="mse")
    with pytest.raises(ValueError, match=r"must be built"):
        RobustModel(keras.Sequential([layers.Dense(2)]))
    with pytest.raises(ValueError, match=r"compile\(\)"):
        RobustModel(network()).fit(X, Y)


# tf.distribute.


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute is TensorFlow's")
def test_two_replicas_take_the_step_of_one() -> None:
    """In a process of its own: TensorFlow's devices are fixed at its first use."""
    code = """
import json, sys
import keras, numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from kbl.attacks import FGSM
from kbl.methods import AdversarialTraining
from kbl.training import RobustModel
x, y = (np.arange(32).reshape(8, 4) / 32).astype("float32"), np.arange(8) % 2
found = []
for strategy in (tf.distribute.OneDeviceStrategy("CPU:0"), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    with strategy.scope():
        network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, kernel_regularizer="l2")])
        network.set_weights([np.arange(8).reshape(4, 2) / 8, np.zeros(2)])
        model = RobustModel(network)
        model.compile(keras.optimizers.SGD(1.0), method=AdversarialTraining(attack=FGSM(0.1)))
    history = model.fit(x, y, batch_size=8, epochs=1, verbose=0, shuffle=False).history
    found.append([history["loss"][0], int(model.steps_taken.numpy()), network.get_weights()[0].tolist()])
print(json.dumps(found))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    one, two = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(two[0], one[0], rtol=1e-6)
    assert one[1] == two[1] == 1
    np.testing.assert_allclose(two[2], one[2], rtol=1e-5)
