"""PyTorch: functions that are recorded, so that neither Keras nor autograd takes part when they are called again."""

import copy
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import torch
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from kbl.backend.hoist import parted
from kbl.backend.recordable import NoReads, is_recordable, settings, shapes_depend_on_values, tracks_or_casts
from kbl.backend.reuse import reuse_memory
from kbl.backend.simplify import simplify
from kbl.typing import Network

_PLAIN_CALLS = 3  # for fewer, recording is not worth its time
_KEPT = 128  # signatures that a function remembers
_RECORDING = threading.RLock()  # fx patches torch.nn.Module while it traces


class Recorded:
    """A function of tensors that is recorded for each set of shapes that comes often.

    The first calls run as they are, unless more are to come soon. Then the operations of a call are noted down, those
    that autograd does among them, and from there on they alone are run: the same ones in the same order, so the same
    results to the bit, without what Keras and autograd do in Python and in bookkeeping around each (on a ResNet-32
    about 30 ms a pass). What depends on nothing given is kept, what is computed twice is computed once
    (`kbl.backend.simplify`), and so is, for a number of calls, what depends on what stays the same
    (`kbl.backend.hoist`). TorchScript runs them.
    What a record gives is looked at once, when it is made: one that gives anything else than the function is not used.

    What depends on values cannot be noted down. A function that asks for the value of a tensor stays as it is, and so
    does one that assigns to a variable, or one of a network that is random at inference or has a part (a layer, an
    activation, a function that an operation is given) that is not Keras' or kbl's own. Where gradients of the result
    may be asked for, and under autocast, nothing is recorded.

    Args:
        network: what the function calls; its variables are read anew at each call.
        function: of nested dicts, tuples and lists of tensors and numbers; numbers are noted down as they are.
    """

    def __init__(self, network: Network, function: Callable[..., Any]) -> None:
        self._function = function
        self._calls: dict[Any, Any] = {}
        self._recordable = is_recordable(network)

    def __call__(self, network: Network, *arguments: Any) -> Any:
        """Call the function; `network` is that of the constructor, which is not kept."""
        return self.on(network)(*arguments)

    def on(self, network: Network, *fixed: Any, calls: int = 1) -> Callable[..., Any]:
        """Return the function for a number of calls between which nothing of the network changes.

        Args:
            network: that of the constructor.
            *fixed: the function's first arguments, the same for these calls.
            calls: how many are to come.
        """
        if not self._recordable or tracks_or_casts():
            return partial(self._function, *fixed)
        held: list[torch.Tensor] = [variable.value for variable in network.variables]
        records = _remembered(self._calls, (settings(network), _take_apart(fixed, held)), {})
        known: dict[Any, list[torch.Tensor]] = {}  # of each record what its first part gave

        def call(*arguments: Any) -> Any:
            tensors: list[torch.Tensor] = []
            signature = _take_apart(arguments, tensors)
            found = _remembered(records, signature, 0)
            if isinstance(found, int):
                if found + calls <= _PLAIN_CALLS:
                    records[signature] = found + 1
                    return self._function(*fixed, *arguments)
                found = records[signature] = self._record(network, (*fixed, *arguments), held, tensors)
            if found is None:
                return self._function(*fixed, *arguments)
            first, then, outputs = found
            if first not in known:
                known[first] = first(*held)
            results = iter(then(*known[first], *tensors))
            return _mapped(outputs, lambda _: next(results))

        return call

    def _record(
        self, network: Network, arguments: Any, held: list[torch.Tensor], given: list[torch.Tensor]
    ) -> Any:
        """Return both parts of the graph and the structure of what it gives; None where there can be no graph.

        `held` are the values of the network's variables and the tensors of the fixed arguments, `given` the others.
        """
        if not is_recordable(network):  # a part may have changed since
            return None
        variables = network.variables

        def flat(*tensors: torch.Tensor) -> list[torch.Tensor]:
            mapping = list(zip(variables, tensors, strict=False))
            rest = iter(tensors[len(variables) :])
            traced = _mapped(
                arguments, lambda value: next(rest) if isinstance(value, torch.Tensor) else value
            )
            with keras.StatelessScope(state_mapping=mapping) as scope:
                outputs = self._function(*traced)
            if len(scope.state_mapping) > len(mapping) or any(
                scope.get_current_value(variable) is not tensor for variable, tensor in mapping
            ):
                raise RuntimeError("It assigns to a variable")
            returned: list[torch.Tensor] = []
            _take_apart(outputs, returned)
            return returned

        # Copies: one tensor in two places could not be told apart.
        values, others = held[: len(variables)], [*held[len(variables) :], *given]
        copies = [tensor.clone() for tensor in others]
        if any(one.stride() != other.stride() for one, other in zip(copies, others, strict=True)):
            return None
        try:
            with _RECORDING, NoReads():
                # On tensors without memory: the step's own, all alive at once, would take twice what a step does.
                trace = make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)
                graph = trace(*values, *copies)
        except Exception:  # it asks for a tensor's value, or it fails, and then does so when it is run
            return None
        expected: list[Any] = []
        outputs = _mapped(self._function(*arguments), expected.append)  # None where a tensor belongs
        if not all(isinstance(value, torch.Tensor) for value in expected):
            return None
        if shapes_depend_on_values(graph.graph):
            return None
        simplify(graph)
        parts = parted(graph, len(held))
        for part in parts:
            reuse_memory(part.graph)
        first, then = map(_scripted, parts)
        try:
            results = then(*first(*held), *given)
        except RuntimeError:  # a tensor lies otherwise in memory than PyTorch foretold
            return None
        return (first, then, outputs) if _is_same(results, expected) else None


def _scripted(graph: GraphModule) -> Callable[..., Any]:
    """Return the graph as TorchScript, whose interpreter costs less an operation than Python, or as it is."""
    for node in graph.graph.nodes:
        node.meta.clear()  # most of what a graph takes
    graph.recompile()
    plain = copy.deepcopy(graph)
    for node in (
        graph.graph.nodes
    ):  # TorchScript knows operations by name and chooses among them by what they are given
        node.target = getattr(node.target, "overloadpacket", node.target)
    graph.recompile()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            script = torch.jit.script(graph)
    except Exception:  # an operation that it does not know, or a Python that it does not
        return plain.forward

    def run(*tensors: torch.Tensor) -> Any:
        # It would fuse operations on a GPU, and round otherwise; and of results no gradients are asked for.
        with torch.jit.optimized_execution(False), torch._C._AutoDispatchBelowAutograd():
            return script(*tensors)

    return run


def _is_same(results: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    """Tell whether results are equal to the bit; on a GPU, where the same operation may give others, True."""
    return all(
        one.is_cuda or bool(((one == other) | ((one != one) & (other != other))).all())
        for one, other in zip(results, expected, strict=True)
    )


def _take_apart(value: Any, tensors: list[torch.Tensor]) -> Any:
    """Append the tensors of nested dicts, tuples and lists; return all else, and the layout of the tensors."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, dict):
        return dict, *((key, _take_apart(part, tensors)) for key, part in value.items())
    if isinstance(value, list | tuple):
        return type(value), *(_take_apart(part, tensors) for part in value)
    return type(value), repr(value)  # 1, 1.0 and True are equal, and so are 0.0 and -0.0


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """Return nested dicts, tuples and lists with the function's results in place of all else, in order."""
    if isinstance(value, dict):
        return {key: _mapped(part, function) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [_mapped(part, function) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return function(value)


def _remembered(known: dict[Any, Any], key: Any, new: Any) -> Any:
    """Return what is known of the key, `new` where nothing is; the oldest is forgotten when there are too many."""
    if key not in known and len(known) >= _KEPT:
        known.pop(next(iter(known)))
    return known.setdefault(key, new)
