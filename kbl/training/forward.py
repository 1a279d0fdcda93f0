"""The forward pass of a training step."""

from typing import Any

import keras
from keras import ops

from kbl.typing import Tensor


class Forward(keras.layers.Layer):
    """A model's `method.forward` as one layer, at moved weights where a step is to be.

    Keras forgets what layers have added to the loss when an outermost layer is called anew. JAX' trainer calls no layer
    around the model's `call`: without this one, of several passes only the last would count there.

    Args:
        model: the `kbl.RobustModel`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(dtype="float32", autocast=False)  # mixed precision is the network's layers' own
        self.model = model
        self.built = True

    def call(
        self, inputs: tuple[Any, ...], shift: list[Tensor] | None = None, training: bool | None = None
    ) -> tuple[Tensor, ...]:
        """Return what the method's forward does.

        Args:
            inputs: clean images, and what was crafted from them if anything was.
            shift: what to add to each trainable weight for this pass; the weights themselves stay, and the gradient
                comes to them.
            training: whether it is a training step.
        """
        model = self.model
        if shift is None:
            return self._forward(inputs, training)
        weights, others = model.trainable_variables, model.non_trainable_variables
        mapping = [
            *((weight, weight.value + change) for weight, change in zip(weights, shift, strict=True)),
            *((variable, variable.value) for variable in others),
        ]
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            before = [scope.get_current_value(variable) for variable in others]
            outputs = self._forward(inputs, training)
        for variable, old in zip(others, before, strict=True):
            new = scope.get_current_value(variable)
            if new is not old:
                variable.assign(new)
        if scope.losses:
            model.add_loss(sum(ops.sum(loss) for loss in scope.losses))
        return outputs

    def _forward(self, inputs: tuple[Any, ...], training: bool | None) -> tuple[Tensor, ...]:
        x, x_adv = inputs if len(inputs) == 2 else (inputs[0], None)
        outputs: tuple[Tensor, ...] = self.model.method.forward(self.model.network, x, x_adv, bool(training))
        return outputs
