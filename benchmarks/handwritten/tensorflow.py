"""By hand in TensorFlow: whole attacks and whole training steps in one graph."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

Weights = dict[str, Any]


def apart(step: Callable[..., Any]) -> Callable[..., Any]:
    """Let a loop's step be a graph of its own: inlined, max-pooling's gradient is not always given to oneDNN."""
    return tf.function(step, autograph=False, experimental_attributes={"_noinline": True})


def mnist_convnet(w: Weights, x: Any, moments: dict[str, Any] | None = None) -> Any:
    for name in ("conv1", "conv2"):
        x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, w[f"{name}/kernel"], 1, "SAME"), w[f"{name}/bias"]))
        x = tf.nn.max_pool2d(x, 2, 2, "VALID")
    return _dense(w, x)


def mnist_small_convnet(w: Weights, x: Any, moments: dict[str, Any] | None = None) -> Any:
    for name in ("conv1", "conv2"):
        x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, w[f"{name}/kernel"], 2, "SAME"), w[f"{name}/bias"]))
    return _dense(w, x)


def _dense(w: Weights, x: Any) -> Any:
    return tf.nn.relu(tf.reshape(x, (tf.shape(x)[0], -1)) @ w["features/kernel"] + w["features/bias"])


def resnet32(w: Weights, x: Any, moments: dict[str, Any] | None = None) -> Any:
    """Features; with a dict of moments those of the batch are used and put there."""

    def normalised(x: Any, name: str, stride: int = 1) -> Any:
        x, name = tf.nn.conv2d(x, w[f"{name}_conv/kernel"], stride, "SAME"), f"{name}_norm"
        mean, variance = w[f"{name}/moving_mean"], w[f"{name}/moving_variance"]
        if moments is not None:
            mean, variance = tf.nn.moments(x, (0, 1, 2))
            moments[f"{name}/moving_mean"], moments[f"{name}/moving_variance"] = mean, variance
        return tf.nn.batch_normalization(x, mean, variance, w[f"{name}/beta"], w[f"{name}/gamma"], 1e-5)

    x = tf.nn.relu(normalised(4 * x - 2, "stem"))
    for stage, filters in enumerate((16, 32, 64), 1):
        for number in range(1, 6):
            name, stride = f"stage{stage}_block{number}", 2 if stage > 1 and number == 1 else 1
            y = tf.nn.relu(normalised(x, f"{name}_1", stride))
            y = normalised(y, f"{name}_2")
            if stride == 2:
                missing = (filters - x.shape[-1]) // 2
                x = tf.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (missing, missing)))
            x = tf.nn.relu(x + y)
    return tf.reduce_mean(x, (1, 2))


NETWORKS: dict[str, Callable[..., Any]] = {
    "mnist_convnet": mnist_convnet,
    "mnist_small_convnet": mnist_small_convnet,
    "resnet32": resnet32,
}


def half_distances(w: Weights, h: Any) -> Any:
    means = w["head/means"]
    norms = 0.5 * tf.reduce_sum(h**2, 1, keepdims=True) + 0.5 * tf.reduce_sum(means**2, 1)
    return norms - tf.matmul(h, means, transpose_b=True)


def logits_of(w: Weights, h: Any) -> Any:
    return -half_distances(w, h) if "head/means" in w else h @ w["head/kernel"] + w["head/bias"]


def picked(values: Any, y: Any) -> Any:
    return tf.gather(values, y, axis=1, batch_dims=1)


class Floor:
    """A network and what is done with it; see `benchmarks.handwritten`."""

    def __init__(self, name: str, weights: dict[str, Any]) -> None:
        self.features = NETWORKS[name]
        self.w = {key: tf.Variable(array) for key, array in weights.items()}
        self.learning = [key for key in self.w if "moving" not in key]
        self._graphs: dict[Any, Any] = {}

    def _graph(self, kernel: Callable[..., Any], *static: Any) -> Any:
        key = (kernel.__name__, *static)
        if key not in self._graphs:
            self._graphs[key] = tf.function(lambda *tensors: kernel(*tensors, *static), autograph=False)
        return self._graphs[key]

    def _logits(self, x: Any) -> Any:
        return logits_of(self.w, self.features(self.w, x))

    def _craft(self, x: Any, y: Any, epsilon: float, step_size: float, steps: int, random: bool) -> Any:
        low, high = tf.clip_by_value(x - epsilon, 0, 1), tf.clip_by_value(x + epsilon, 0, 1)

        def step(i: Any, x_adv: Any) -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x_adv)
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, self._logits(x_adv))
            x_adv = x_adv + step_size * tf.sign(tape.gradient(loss, x_adv))
            return i + 1, tf.clip_by_value(x_adv, low, high)

        start = x
        if random:
            start = tf.clip_by_value(x + tf.random.uniform(tf.shape(x), -epsilon, epsilon), 0, 1)
        return tf.while_loop(lambda i, _: i < steps, apart(step), (0, start))[1]

    def _pgd(self, x: Any, y: Any, *attack: Any) -> Any:
        right = tf.argmax(self._logits(x), 1, tf.int32) == y
        return right & (tf.argmax(self._logits(self._craft(x, y, *attack)), 1, tf.int32) == y)

    def pgd(self, x: Any, y: Any, epsilon: float, step_size: float, steps: int, random: bool = True) -> Any:
        graph = self._graph(self._pgd, epsilon, step_size, steps, random)
        return graph(tf.constant(x), tf.constant(y)).numpy()

    def _cw(self, x: Any, y: Any, steps: int, phases: int, c: float, rate: float) -> Any:
        start = tf.atanh((2 * x - 1) * (1 - 1e-6))
        nothing = tf.zeros(tf.shape(x)[0])
        without_end = nothing + np.inf

        def phase(number: Any, weight: Any, low: Any, high: Any, best: Any) -> Any:
            def step(i: Any, z: Any, first: Any, second: Any, found: Any, best: Any) -> Any:
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(z)
                    x_adv = 0.5 * (tf.tanh(z) + 1)
                    square = tf.reduce_sum((x_adv - x) ** 2, (1, 2, 3))
                    logits = self._logits(x_adv)
                    own = picked(logits, y)
                    others = tf.where(tf.one_hot(y, logits.shape[1], True, False), -np.inf, logits)
                    other = tf.reduce_max(others, 1)
                    loss = square + weight * tf.nn.relu(own - other)
                slope = tape.gradient(loss, z)
                first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
                t = tf.cast(i, "float32") + 1
                direction = first / (1 - 0.9**t) / (tf.sqrt(second / (1 - 0.999**t)) + 1e-8)
                hit = other > own
                best = tf.where(hit & (tf.sqrt(square) < best), tf.sqrt(square), best)
                return i + 1, z - rate * direction, first, second, found | hit, best

            still = tf.zeros_like(start)
            state = (0, start, still, still, tf.zeros_like(nothing, "bool"), best)
            *_, found, best = tf.while_loop(lambda i, *_: i < steps, apart(step), state)
            high = tf.where(found, tf.minimum(high, weight), high)
            low = tf.where(found, low, tf.maximum(low, weight))
            weight = tf.where(tf.math.is_inf(high), weight * 10, 0.5 * (low + high))
            return number + 1, weight, low, high, best

        first = (0, nothing + c, nothing, without_end, without_end)
        return tf.while_loop(lambda number, *_: number < phases, phase, first)[4]

    def cw(self, x: Any, y: Any, steps: int, phases: int, c: float, rate: float) -> Any:
        return self._graph(self._cw, steps, phases, c, rate)(tf.constant(x), tf.constant(y)).numpy()

    def _step(self, x: Any, y: Any, method: str, attack: Any) -> Any:
        x_adv = tf.stop_gradient(self._craft(x, y, *attack, random=True))
        moments: dict[str, Any] = {}
        with tf.GradientTape() as tape:
            loss = self._loss(x, x_adv, y, method, moments)
        variables = [self.w[key] for key in self.learning]
        self.taken.assign_add(1)
        rate = 1e-3 * tf.sqrt(1 - 0.999**self.taken) / (1 - 0.9**self.taken)
        for variable, slope, first, second in zip(
            variables, tape.gradient(loss, variables), *self.adam, strict=True
        ):
            first.assign(0.9 * first + 0.1 * slope)
            second.assign(0.999 * second + 0.001 * slope**2)
            variable.assign_sub(rate * first / (tf.sqrt(second) + 1e-7))
        for key, value in moments.items():
            self.w[key].assign(0.9 * self.w[key] + 0.1 * value)
        return loss

    def _loss(self, x: Any, x_adv: Any, y: Any, method: str, moments: dict[str, Any]) -> Any:
        h = self.features(self.w, tf.concat([x, x_adv], 0), moments)

        def entropy(y: Any, logits: Any) -> Any:
            return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))

        if method == "at":
            return entropy(tf.concat([y, y], 0), logits_of(self.w, h))
        clean, adversarial = tf.split(-half_distances(self.w, h), 2)
        apart = half_distances(self.w, tf.stop_gradient(tf.split(h, 2)[1]))
        near, far = -2 * tf.reduce_mean(picked(clean, y)), 2 * tf.reduce_mean(picked(apart, y))
        return 0.5 * (entropy(y, clean) + entropy(y, adversarial) + 0.02 * near - 0.02 * far)

    def epoch(self, x: Any, y: Any, batch: int, method: str, attack: tuple[float, float, int]) -> float:
        if not hasattr(self, "adam"):
            self.adam = tuple(
                [tf.Variable(tf.zeros_like(self.w[key])) for key in self.learning] for _ in range(2)
            )
            self.taken = tf.Variable(0.0)
        graph = self._graph(self._step, method, attack)
        order = np.random.default_rng(0).permutation(len(x))
        rows = order[: len(x) // batch * batch]
        options = tf.data.Options()
        options.autotune.enabled = False  # the end of an epoch waits for the thread that tunes
        batches = tf.data.Dataset.from_tensor_slices((x[rows], y[rows])).batch(batch).prefetch(2)
        for images, labels in batches.with_options(options):
            loss = graph(images, labels)
        return float(loss)
