"""Images moved to where a model of images finds them likelier."""

from typing import Any

import keras
from keras import ops

from kbl.typing import Network, Tensor


@keras.saving.register_keras_serializable(package="kbl")
class Purify(keras.layers.Layer):
    """PixelDefend (Song et al., arXiv:1710.10766, Algorithm 1): greedy decoding by a PixelCNN, within a distance.

    Pixel by pixel in raster order, each colour takes the likeliest of the levels that lie within `epsilon` of what it
    was, given the pixels before it as they are by then. It costs a pass of the PixelCNN for each pixel and colour.

    The gradient is that of the identity (BPDA, Athalye et al., arXiv:1802.00420, §5.1): an attack by gradients goes
    through, as one must that is to tell whether the defence holds.

    Args:
        pixelcnn: a trained `kbl.networks.pixelcnn`; it is not trained any further.
        epsilon: L∞ distance ≥ 0 that a pixel may move.

    Input and output: images (batch, H, W, C) in [0, 1]. A pixel with no level within reach stays.

    Raises:
        ValueError: epsilon is below 0.
    """

    def __init__(self, pixelcnn: Network, epsilon: float, **kwargs: Any) -> None:
        super().__init__(**{"autocast": False, **kwargs})
        if not epsilon >= 0:
            raise ValueError(f"epsilon must be at least 0. Received: epsilon={epsilon}")
        self.pixelcnn = pixelcnn
        self.epsilon = epsilon
        self.trainable = False

    def call(self, x: Tensor) -> Tensor:
        """Return purified images."""
        given = ops.stop_gradient(ops.cast(x, "float32"))
        shape = tuple(self.pixelcnn.input_shape[1:])
        levels = self.pixelcnn.output_shape[-1]
        values = ops.cast(ops.arange(levels), "float32") / (levels - 1)
        flat = ops.reshape(given, (-1, shape[0] * shape[1] * shape[2]))
        places = ops.arange(flat.shape[1], dtype="int32")

        def decide(place: Tensor, pixels: Tensor) -> Tensor:
            logits = self.pixelcnn(ops.reshape(pixels, (-1, *shape)), training=False)
            logits = ops.reshape(logits, (-1, flat.shape[1], levels))
            here = ops.cast(places == place, "float32")
            before = ops.matmul(flat, here)[:, None]  # at the place alone
            within = ops.abs(values - before) <= self.epsilon + 1e-6
            scores = ops.where(within, ops.take(logits, place, axis=1), -float("inf"))
            best = ops.take(values, ops.argmax(scores, axis=-1))[:, None]
            chosen = ops.where(ops.any(within, axis=-1, keepdims=True), best, before)
            return ops.where(places == place, chosen, pixels)

        purified = ops.stop_gradient(ops.fori_loop(0, flat.shape[1], decide, flat))
        return x + (ops.reshape(purified, ops.shape(given)) - given)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The same shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        config = {
            "pixelcnn": keras.saving.serialize_keras_object(self.pixelcnn),
            "epsilon": self.epsilon,
        }
        return {**super().get_config(), **config}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Purify":
        """Return the layer with these arguments."""
        return cls(**{**config, "pixelcnn": keras.saving.deserialize_keras_object(config["pixelcnn"])})
