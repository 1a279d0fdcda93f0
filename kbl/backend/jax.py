"""JAX: whole functions under jit, variables as arguments."""

import weakref
from collections.abc import Callable
from typing import Any

import jax
import keras

from kbl.typing import Network, Tensor


def value_and_grad(fn: Callable[[Tensor], tuple[Tensor, Any]], x: Tensor) -> tuple[Any, Tensor]:
    """Return ``(auxiliary, gradient)`` of ``fn: x -> (scalar, auxiliary)`` at x."""
    (_, auxiliary), gradient = jax.value_and_grad(fn, has_aux=True)(x)
    return auxiliary, gradient


def compiled(network: Network, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Jit ``kernel(forward, *arrays)``; the network's variables reach it as arguments."""
    reference = weakref.ref(network)

    @jax.jit
    def run(trainable: list[Tensor], non_trainable: list[Tensor], arrays: tuple[Tensor, ...]) -> Any:
        net = reference()

        def forward(x: Tensor) -> Tensor:
            return net.stateless_call(trainable, non_trainable, x, training=False)[0]

        return kernel(forward, *arrays)

    def call(*arrays: Tensor) -> Any:
        net = reference()
        trainable = [variable.value for variable in net.trainable_variables]
        return run(trainable, [variable.value for variable in net.non_trainable_variables], arrays)

    return call


def with_adversaries(
    model: Any, step: Callable[..., Any], training: bool, state: tuple[Any, ...], data: Any
) -> Any:
    """Craft with the state's variables, hand what crafting changed (its counters) on to the step."""
    trainable, non_trainable, *rest = state
    mapping = [
        *zip(model.trainable_variables, trainable, strict=True),
        *zip(model.non_trainable_variables, non_trainable, strict=True),
    ]
    with keras.StatelessScope(state_mapping=mapping) as scope:
        data = model.attacked(data, training)
    non_trainable = [scope.get_current_value(v) for v in model.non_trainable_variables]
    return step((trainable, non_trainable, *rest), data)


def prepare(network: Network) -> None:
    """Nothing to do: XLA chooses its own layouts."""


def devices() -> list[str]:
    """Names of JAX' devices."""
    return [f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()]
