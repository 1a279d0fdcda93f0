"""Center loss."""

from keras import ops

from kbl.losses.labels import to_indices
from kbl.typing import Tensor


def center_loss(y: Tensor, features: Tensor, centres: Tensor) -> Tensor:
    """Half the squared distance of a feature to its class' centre, ``½‖h - c_y‖²``.

    Args:
        y: labels, integers or one-hot.
        features: (batch, C) deepest features h.
        centres: (K, C); `moved_centres` updates them.

    Returns:
        (batch,) loss in squared feature units.

    References:
        Y. Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition, ECCV 2016, Eq. 2.
    """
    own = ops.take(centres, to_indices(y), axis=0)
    return 0.5 * ops.sum(ops.square(ops.convert_to_tensor(features) - own), axis=-1)
