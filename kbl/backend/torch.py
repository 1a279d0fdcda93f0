"""PyTorch: eager, as lean as a loop written by hand."""

import dataclasses
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import torch

from kbl.backend.parts import inference, leaves
from kbl.backend.recording import Recorded
from kbl.backend.torch_layers import prepare as prepare
from kbl.typing import Network, Tensor

# On a GPU steps are so short that recording one for each number of images would take longer than they do.
COMPILES_SHAPES = torch.cuda.is_available()


def value_and_grad(fn: Callable[[Any], tuple[Tensor, Any]], x: Any) -> tuple[Any, Any]:
    """Return ``(auxiliary, gradient)`` of ``fn: x -> (scalar, auxiliary)`` at x, a tensor or a list of tensors."""
    with torch.enable_grad():
        x = keras.tree.map_structure(lambda tensor: tensor.detach().requires_grad_(), x)
        value, auxiliary = fn(x)
        inputs = keras.tree.flatten(x)
        found = (
            torch.autograd.grad(value, inputs, allow_unused=True)
            if value.requires_grad
            else (None,) * len(inputs)
        )
    gradients = [
        torch.zeros_like(tensor) if one is None else one for one, tensor in zip(found, inputs, strict=True)
    ]
    auxiliary = keras.tree.map_structure(lambda tensor: tensor.detach(), auxiliary)
    return auxiliary, keras.tree.pack_sequence_as(x, gradients)


@contextmanager
def _frozen(*networks: Network) -> Iterator[None]:
    """Keep autograd from saving what only weight gradients need, and each wrapped module's mode as it is."""
    parameters = [parameter for network in networks for parameter in network.parameters()]
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    wrapped = [
        layer.module
        for network in networks
        for layer in leaves(network)
        if isinstance(layer, keras.layers.TorchModuleWrapper)
    ]
    modes = [(module, module.training) for whole in wrapped for module in whole.modules()]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for module, training in modes:
            module.training = training


def compiled(network: Network, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Run ``kernel(forward, *arrays)`` with frozen weights and no graph but those that it asks for."""
    alive, run = weakref.proxy(network), _recorded(network, kernel)

    def call(*arrays: Any) -> Any:
        with torch.no_grad(), _frozen(alive):
            return run(alive, *keras.tree.map_structure(_to_tensor, arrays))

    return call


def repeated(network: Network, step: Callable[..., Any]) -> Callable[..., Any]:
    """Take the steps one by one from Python; a look at what is done would make a GPU wait."""

    def of_parts(forward: Any, constants: Any, fixed: Any, moving: Any, i: Any) -> Any:
        return step(forward, constants, {**fixed, **moving}, i)

    alive, recorded = weakref.proxy(network), _recorded(network, of_parts)
    moves: set[str] = set()  # the parts of the state that steps return, known from the first on

    def run(constants: Any, state: Any, i: Any, stop: Any) -> Any:
        i, (constants, state) = int(i), keras.tree.map_structure(_to_tensor, (constants, state))
        with torch.no_grad(), _frozen(alive):
            one: Any = None
            for place in _to_tensor(np.arange(i, int(stop), dtype="int32")).unbind():
                if not state["done"].is_cuda and bool(state["done"].all()):
                    break
                if one is None:
                    fixed = {name: value for name, value in state.items() if name not in moves}
                    # Of the very first step it is not known what moves, so none will be like it.
                    one = recorded.on(alive, constants, fixed, calls=int(stop) - i if moves else 1)
                changed = one({name: state[name] for name in sorted(moves)}, place)
                state = {**state, **changed}
                if not moves.issuperset(changed):
                    moves.update(changed)
                    one = None
                i += 1
        return i, state

    return run


def _recorded(network: Network, kernel: Callable[..., Any]) -> Recorded:
    prepare(network)
    forward = inference(network)
    return Recorded(network, lambda *arrays: kernel(forward, *arrays))


# network -> {identity: a step that is taken inside a training step}; goes with the network.
_INSIDE: "weakref.WeakKeyDictionary[Network, dict[Any, Recorded]]" = weakref.WeakKeyDictionary()


def repeated_inside(
    forward: Any, identity: Any, step: Callable[..., Any], count: int, x: Tensor, constants: tuple[Any, ...]
) -> Tensor:
    """Take a step ``x = step(forward, x, *constants)`` so many times, recorded where `forward` names its network.

    A `forward` of a user's own may do anything, so it is called as it is.
    """
    network = getattr(forward, "network", None)
    if network is None or type(forward).__module__.partition(".")[0] != "kbl":
        for _ in range(count):
            x = step(forward, x, *constants)
        return x
    known = _INSIDE.setdefault(network, {})
    identity = (identity, type(forward), forward.training)
    if identity not in known:
        loose = dataclasses.replace(forward, network=weakref.proxy(network))
        known[identity] = Recorded(network, lambda *given: step(loose, given[-1], *given[:-1]))
    x, constants = keras.tree.map_structure(_to_tensor, (x, constants))
    one = known[identity].on(network, *constants, calls=count)
    for _ in range(count):
        x = one(x)
    return x


def _to_tensor(value: Any) -> Any:
    """Leave Python's numbers: as tensors they would cost time and save nothing."""
    return value if isinstance(value, int | float | torch.Tensor) else keras.ops.convert_to_tensor(value)


def with_adversaries(model: Any, step: Callable[..., Any], training: bool, *data: Any) -> Any:
    """Craft with frozen weights, then step."""
    with torch.no_grad(), _frozen(model, *model.companions):
        attacked = model.attacked(*data, training)
        shift = model.perturbation(attacked) if training else None
    with model.moved(shift):
        return step(attacked)


def fed(batches: Any) -> Any:
    """Return them: Keras hands them over one by one."""
    return batches


def fit_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Return them: Keras hands arrays over batch by batch."""
    return given


def sign(x: Tensor) -> Tensor:
    """Return -1, 0 or 1, and 0 of NaN."""
    return torch.sign(torch.nan_to_num(x))


def argmax(x: Tensor) -> Tensor:
    """Return the place of the greatest along the last axis, int32; of equals the first."""
    return torch.argmax(x, -1).to(torch.int32)


def allow_tf32(allowed: bool) -> None:
    """Set what matrix products and cuDNN's convolutions may use."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def devices() -> list[str]:
    """Names of PyTorch's devices."""
    gpus = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return [*gpus, "cpu"]
