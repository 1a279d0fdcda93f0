"""What the logs show of each batch besides the loss."""

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from kbl import backend
from kbl.losses import likelihood_regularization
from kbl.losses.labels import to_indices
from kbl.typing import Tensor


def monitors() -> dict[str, keras.metrics.Metric]:
    """Return a mean for the accuracy and, of Gaussian heads, the ``‖h - μ_y‖²`` of each outcome there may be."""
    names = ("clean_accuracy", "adversarial_accuracy", "certified_accuracy", "clean_lkd", "adversarial_lkd")
    return {name: keras.metrics.Mean(name=name) for name in names}


def shown(outcomes: Iterable[str], gaussian: bool) -> set[str]:
    """Name the monitors that a method with these outcomes gives a meaning."""
    kinds = ("accuracy", "lkd") if gaussian else ("accuracy",)
    return {f"{outcome}_{kind}" for outcome in outcomes for kind in kinds}


def update(
    monitors: dict[str, Any], outcomes: Iterable[str], y: Tensor, outputs: Iterable[Tensor], gaussian: bool
) -> None:
    """Take a batch in: labels, and the logits (batch, K) of each outcome in order."""
    indices = to_indices(y)
    for outcome, logits in zip(outcomes, outputs, strict=False):
        logits = ops.stop_gradient(logits)
        right = ops.cast(backend.argmax(logits) == indices, "float32")
        monitors[f"{outcome}_accuracy"].update_state(right)
        if gaussian and f"{outcome}_lkd" in monitors:
            monitors[f"{outcome}_lkd"].update_state(likelihood_regularization(indices, logits))
