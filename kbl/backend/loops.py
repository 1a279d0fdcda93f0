"""Loops inside a compiled function, for the frameworks that compile them."""

from collections.abc import Callable
from typing import Any

from keras import ops

from kbl.typing import Tensor


def repeating(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return the kernel that takes a step again and again, until `stop` or until every image is done."""

    def run(forward: Any, constants: Any, state: Any, i: Tensor, stop: Tensor) -> Any:
        def going(i: Tensor, state: Any) -> Tensor:
            return (i < stop) & ops.any(~state["done"])

        def further(i: Tensor, state: Any) -> Any:
            return i + 1, {**state, **step(forward, constants, state, i)}

        return ops.while_loop(going, further, (i, state))

    return run


def repeated_inside(
    forward: Any, identity: Any, step: Callable[..., Any], count: int, x: Tensor, constants: tuple[Any, ...]
) -> Tensor:
    """Take a step so many times in the graph that is being traced."""
    return ops.fori_loop(0, count, lambda _, x: step(forward, x, *constants), x)
