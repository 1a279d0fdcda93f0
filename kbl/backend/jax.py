"""JAX: whole functions under jit, variables as arguments."""

import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras

from kbl.backend.jax_layers import fast_gradients
from kbl.backend.loops import repeated_inside as repeated_inside
from kbl.backend.loops import repeating
from kbl.backend.parts import drawn, random_states
from kbl.typing import Network, Tensor

COMPILES_SHAPES = True


def value_and_grad(fn: Callable[[Any], tuple[Tensor, Any]], x: Any) -> tuple[Any, Any]:
    """Return ``(auxiliary, gradient)`` of ``fn: x -> (scalar, auxiliary)`` at x, a tensor or a list of tensors."""
    (_, auxiliary), gradient = jax.value_and_grad(fn, has_aux=True)(x)
    return auxiliary, gradient


def compiled(network: Network, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Jit ``kernel(forward, *arrays)``; the network's variables reach it as arguments."""
    alive = weakref.proxy(network)
    states = random_states(network)

    @jax.jit
    def run(values: list[Tensor], arrays: tuple[Any, ...]) -> Any:
        def forward(x: Tensor, draw: Tensor = 0) -> Tensor:
            mapping = list(zip(alive.variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                mapping += drawn(states, draw)
            with keras.StatelessScope(state_mapping=mapping), fast_gradients(alive):
                return alive(x, training=False)

        return kernel(forward, *arrays)

    def call(*arrays: Any) -> Any:
        # All variables in one order: trainable and non-trainable lists change when a layer is frozen, unseen by jit.
        return run([variable.value for variable in alive.variables], arrays)

    return call


def repeated(network: Network, step: Callable[..., Any]) -> Callable[..., Any]:
    """Compile the loop with the step."""
    return compiled(network, repeating(step))


def with_adversaries(model: Any, step: Callable[..., Any], training: bool, *state_and_data: Any) -> Any:
    """Craft with the state's variables, hand what crafting changed on to the step."""
    (trainable, non_trainable, *rest), data = state_and_data
    mapping = [
        *zip(model.trainable_variables, trainable, strict=True),
        *zip(model.non_trainable_variables, non_trainable, strict=True),
    ]
    with fast_gradients(model, *model.companions):
        with keras.StatelessScope(state_mapping=mapping) as scope:
            data = model.attacked(data, training)
            shift = model.perturbation(data) if training else None
        non_trainable = [scope.get_current_value(v) for v in model.non_trainable_variables]
        with model.moved(shift):
            return step((trainable, non_trainable, *rest), data)


def fed(batches: Any) -> Any:
    """Return them: Keras hands them over one by one."""
    return batches


def fit_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Return them: Keras hands arrays over batch by batch."""
    return given


def prepare(network: Network) -> None:
    """Nothing to do: XLA chooses its own layouts."""


def sign(x: Tensor) -> Tensor:
    """Return -1, 0 or 1, and 0 of NaN."""
    return jnp.sign(jnp.nan_to_num(x))


def argmax(x: Tensor) -> Tensor:
    """Return the place of the greatest along the last axis, int32; of equals the first."""
    return jnp.argmax(x, -1).astype("int32")


def allow_tf32(allowed: bool) -> None:
    """Set the precision of products of float32."""
    jax.config.update("jax_default_matmul_precision", "tensorfloat32" if allowed else "highest")


def devices() -> list[str]:
    """Names of JAX' devices."""
    return [f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()]
