"""PGD by hand in JAX, one jitted function."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def _logits(weights: list[Any], x: Any) -> Any:
    for kernel, bias in (weights[:2], weights[2:4]):
        dims = ("NHWC", "HWIO", "NHWC")
        x = jax.nn.relu(lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dims) + bias)
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = jax.nn.relu(x.reshape(len(x), -1) @ weights[4] + weights[5])
    return x @ weights[6] + weights[7]


def make(weights: list[Any], epsilon: float, step_size: float, steps: int) -> Callable[[Any, Any], Any]:
    weights = [jnp.asarray(weight) for weight in weights]

    @jax.jit
    def run(weights: Any, key: Any, x: Any, y: Any) -> Any:
        def loss(x_adv: Any) -> Any:
            log_probabilities = jax.nn.log_softmax(_logits(weights, x_adv))
            return -jnp.take_along_axis(log_probabilities, y[:, None], axis=1).mean()

        def step(_: Any, x_adv: Any) -> Any:
            x_adv = x_adv + step_size * jnp.sign(jax.grad(loss)(x_adv))
            return jnp.clip(jnp.clip(x_adv, x - epsilon, x + epsilon), 0, 1)

        start = jnp.clip(x + jax.random.uniform(key, x.shape, minval=-epsilon, maxval=epsilon), 0, 1)
        return lax.fori_loop(0, steps, step, start)

    return lambda x, y: np.asarray(run(weights, jax.random.key(0), x, y))
