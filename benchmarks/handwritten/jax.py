"""By hand in JAX: each step under jit and called from Python, weights as arguments, buffers donated.

Not whole attacks under jit: in a loop XLA's convolutions are slow on a CPU (docs/performance.md).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Weights = dict[str, Any]
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def _convolution(x: Any, kernel: Any, stride: int = 1) -> Any:
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=_DIMENSIONS)


def mnist_convnet(w: Weights, x: Any, moments: dict[str, Any] | None = None) -> Any:
    for name in ("conv1", "conv2"):
        x = jax.nn.relu(_convolution(x, w[f"{name}/kernel"]) + w[f"{name}/bias"])
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return jax.nn.relu(x.reshape(len(x), -1) @ w["features/kernel"] + w["features/bias"])


def mnist_small_convnet(w: Weights, x: Any, moments: dict[str, Any] | None = None) -> Any:
    for name in ("conv1", "conv2"):
        x = jax.nn.relu(_convolution(x, w[f"{name}/kernel"], 2) + w[f"{name}/bias"])
    return jax.nn.relu(x.reshape(len(x), -1) @ w["features/kernel"] + w["features/bias"])


def resnet32(w: Weights, x: Any, moments: dict[str, Any] | None = None) -> Any:
    """Features; with a dict of moments those of the batch are used and put there."""

    def normalised(x: Any, name: str, stride: int = 1) -> Any:
        x, name = _convolution(x, w[f"{name}_conv/kernel"], stride), f"{name}_norm"
        mean, variance = w[f"{name}/moving_mean"], w[f"{name}/moving_variance"]
        if moments is not None:
            mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
            moments[f"{name}/moving_mean"], moments[f"{name}/moving_variance"] = mean, variance
        scale = w[f"{name}/gamma"] * lax.rsqrt(variance + 1e-5)
        return x * scale + (w[f"{name}/beta"] - mean * scale)

    x = jax.nn.relu(normalised(4 * x - 2, "stem"))
    for stage, filters in enumerate((16, 32, 64), 1):
        for number in range(1, 6):
            name, stride = f"stage{stage}_block{number}", 2 if stage > 1 and number == 1 else 1
            y = jax.nn.relu(normalised(x, f"{name}_1", stride))
            y = normalised(y, f"{name}_2")
            if stride == 2:
                missing = (filters - x.shape[-1]) // 2
                x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (missing, missing)))
            x = jax.nn.relu(x + y)
    return x.mean((1, 2))


NETWORKS: dict[str, Callable[..., Any]] = {
    "mnist_convnet": mnist_convnet,
    "mnist_small_convnet": mnist_small_convnet,
    "resnet32": resnet32,
}


def half_distances(w: Weights, h: Any) -> Any:
    means = w["head/means"]
    return 0.5 * (h**2).sum(1, keepdims=True) + 0.5 * (means**2).sum(1) - h @ means.T


def logits_of(w: Weights, h: Any) -> Any:
    return -half_distances(w, h) if "head/means" in w else h @ w["head/kernel"] + w["head/bias"]


def entropies(logits: Any, y: Any) -> Any:
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)[:, 0]


class Floor:
    """A network and what is done with it; see `benchmarks.handwritten`."""

    def __init__(self, name: str, weights: dict[str, Any]) -> None:
        self.features = NETWORKS[name]
        self.w = {key: jnp.asarray(array) for key, array in weights.items()}
        self.learning = [key for key in self.w if "moving" not in key]
        self._start = jax.jit(self._start_kernel)
        self._pgd_step = jax.jit(self._pgd_step_kernel, donate_argnums=1)
        self._right = jax.jit(lambda w, x, y: self._logits(w, x).argmax(1) == y)
        self._cw_step = jax.jit(self._cw_step_kernel, donate_argnums=1)
        self._step = jax.jit(self._step_kernel, static_argnames="method", donate_argnums=(0, 1, 2))

    def _logits(self, w: Weights, x: Any) -> Any:
        return logits_of(w, self.features(w, x))

    def _start_kernel(self, seed: Any, x: Any, epsilon: Any) -> Any:
        noise = jax.random.uniform(jax.random.key(seed), x.shape, minval=-epsilon, maxval=epsilon)
        return jnp.clip(x + noise, 0, 1)

    def _pgd_step_kernel(self, w: Weights, x_adv: Any, x: Any, y: Any, epsilon: Any, step_size: Any) -> Any:
        slope = jax.grad(lambda x_adv: entropies(self._logits(w, x_adv), y).sum())(x_adv)
        return jnp.clip(
            x_adv + step_size * jnp.sign(slope), jnp.clip(x - epsilon, 0, 1), jnp.clip(x + epsilon, 0, 1)
        )

    def _craft(
        self, seed: Any, x: Any, y: Any, epsilon: float, step_size: float, steps: int, random: bool
    ) -> Any:
        x_adv = self._start(seed, x, epsilon) if random else jnp.array(x)
        for _ in range(steps):
            x_adv = self._pgd_step(self.w, x_adv, x, y, epsilon, step_size)
        return x_adv

    def pgd(self, x: Any, y: Any, epsilon: float, step_size: float, steps: int, random: bool = True) -> Any:
        x, y = jnp.asarray(x), jnp.asarray(y)
        right = self._right(self.w, x, y)
        x_adv = self._craft(0, x, y, epsilon, step_size, steps, random)
        return np.asarray(right & self._right(self.w, x_adv, y))

    def _cw_step_kernel(self, w: Weights, state: Any, x: Any, y: Any, i: Any, weight: Any, rate: Any) -> Any:
        def loss(z: Any) -> Any:
            x_adv = 0.5 * (jnp.tanh(z) + 1)
            square = ((x_adv - x) ** 2).sum((1, 2, 3))
            logits = self._logits(w, x_adv)
            own = jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0]
            other = jnp.where(jax.nn.one_hot(y, logits.shape[1], dtype=bool), -jnp.inf, logits).max(1)
            return (square + weight * jnp.maximum(own - other, 0)).sum(), (square, other > own)

        z, first, second, found, best = state
        slope, (square, hit) = jax.grad(loss, has_aux=True)(z)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        direction = first / (1 - 0.9 ** (i + 1.0)) / (jnp.sqrt(second / (1 - 0.999 ** (i + 1.0))) + 1e-8)
        best = jnp.where(hit & (jnp.sqrt(square) < best), jnp.sqrt(square), best)
        return z - rate * direction, first, second, found | hit, best

    def cw(self, x: Any, y: Any, steps: int, phases: int, c: float, rate: float) -> Any:
        x, y = jnp.asarray(x), jnp.asarray(y)
        weight, low, high = jnp.full(len(x), c), jnp.zeros(len(x)), jnp.full(len(x), jnp.inf)
        best = jnp.full(len(x), jnp.inf)
        for _ in range(phases):
            start = jnp.arctanh((2 * x - 1) * (1 - 1e-6))
            state = (start, jnp.zeros_like(x), jnp.zeros_like(x), jnp.zeros(len(x), bool), best)
            for i in range(steps):
                state = self._cw_step(self.w, state, x, y, i, weight, rate)
            *_, found, best = state
            high = jnp.where(found, jnp.minimum(high, weight), high)
            low = jnp.where(found, low, jnp.maximum(low, weight))
            weight = jnp.where(jnp.isinf(high), weight * 10, 0.5 * (low + high))
        return np.asarray(best)

    def _step_kernel(
        self, w: Weights, first: Weights, second: Weights, taken: Any, x: Any, x_adv: Any, y: Any, method: str
    ) -> Any:
        learning = {key: w[key] for key in self.learning}
        (loss, moments), slopes = jax.value_and_grad(
            partial(self._loss, w, x, x_adv, y, method), has_aux=True
        )(learning)
        first = {key: 0.9 * first[key] + 0.1 * slopes[key] for key in learning}
        second = {key: 0.999 * second[key] + 0.001 * slopes[key] ** 2 for key in learning}
        rate = 1e-3 * jnp.sqrt(1 - 0.999 ** (taken + 1.0)) / (1 - 0.9 ** (taken + 1.0))
        moved = {key: w[key] - rate * first[key] / (jnp.sqrt(second[key]) + 1e-7) for key in learning}
        averages = {key: 0.9 * w[key] + 0.1 * value for key, value in moments.items()}
        return {**w, **moved, **averages}, first, second, taken + 1, loss

    def _loss(self, w: Weights, x: Any, x_adv: Any, y: Any, method: str, learning: Weights) -> Any:
        w = {**w, **learning}
        moments: Weights = {}
        h = self.features(w, jnp.concatenate([x, x_adv]), moments)
        if method == "at":
            return entropies(logits_of(w, h), jnp.concatenate([y, y])).mean(), moments
        clean, adversarial = jnp.split(-half_distances(w, h), 2)
        apart = half_distances(w, lax.stop_gradient(jnp.split(h, 2)[1]))
        near = -2 * jnp.take_along_axis(clean, y[:, None], axis=1).mean()
        far = 2 * jnp.take_along_axis(apart, y[:, None], axis=1).mean()
        both = entropies(clean, y).mean() + entropies(adversarial, y).mean()
        return 0.5 * (both + 0.02 * near - 0.02 * far), moments

    def epoch(self, x: Any, y: Any, batch: int, method: str, attack: tuple[float, float, int]) -> float:
        if not hasattr(self, "adam"):
            nothing = {key: jnp.zeros_like(self.w[key]) for key in self.learning}
            self.adam = (nothing, {key: jnp.zeros_like(value) for key, value in nothing.items()}, 0)
            self.w = {key: jnp.array(value) for key, value in self.w.items()}
        order = np.random.default_rng(0).permutation(len(x))
        first, second, taken = self.adam
        for rows in order[: len(x) // batch * batch].reshape(-1, batch):
            images, labels = jnp.asarray(x[rows]), jnp.asarray(y[rows])
            x_adv = self._craft(taken, images, labels, *attack, random=True)
            self.w, first, second, taken, loss = self._step(
                self.w, first, second, taken, images, x_adv, labels, method=method
            )
        self.adam = (first, second, taken)
        return float(loss)
