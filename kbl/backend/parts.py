"""What a network is made of: its layers, and the states of those that are random at inference."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import keras
from keras import ops

from kbl.typing import Network, Tensor


def random_states(network: Network) -> list[Any]:
    """Return the states of the network's `keras.random.SeedGenerator`s."""
    return [variable for variable in network.variables if variable.name == "seed_generator_state"]


def drawn(states: list[Any], draw: Tensor) -> list[tuple[Any, Tensor]]:
    """Return pairs for `keras.StatelessScope`: each state moved on for the draw, by more than a pass uses."""
    return [
        (state, ops.convert_to_tensor(state) + ops.cast(ops.stack([0, 4096 * draw]), state.dtype))
        for state in states
    ]


def inference(network: Network) -> Callable[..., Tensor]:
    """Return ``forward(x, draw)``, the network in inference mode, whose random states stay as they were.

    It keeps no reference to the network.
    """
    alive, states = weakref.proxy(network), random_states(network)

    def forward(x: Tensor, draw: Tensor = 0) -> Tensor:
        with keras.StatelessScope(state_mapping=drawn(states, draw)) if states else nullcontext():
            return alive(x, training=False)

    return forward


def call_behind(tensor: Any) -> tuple[Any, list[Any]]:
    """Return the layer or model that gave a symbolic tensor, and the tensors that it was called with.

    Its own `input` may be of another call, and a nested model's is where it begins itself.
    """
    maker, call, _ = tensor._keras_history
    return maker, list(maker._inbound_nodes[call].input_tensors)


def leaves(layer: Any) -> Iterator[Any]:
    """Yield the layers inside a layer, to any depth, and itself."""
    for inner in getattr(layer, "layers", ()):
        yield from leaves(inner)
    yield layer
