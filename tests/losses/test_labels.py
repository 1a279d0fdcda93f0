"""Labels in every form that Keras users have them."""

import numpy as np
import pytest
from keras import ops

from kbl import losses
from kbl.losses.labels import largest_other, pick, to_indices

INDICES = np.array([2, 0, 1, 2])
FORMS = {
    "int32": INDICES.astype("int32"),
    "int64": INDICES,
    "uint8": INDICES.astype("uint8"),
    "float32": INDICES.astype("float32"),
    "column": INDICES[:, None],
    "float column": INDICES[:, None].astype("float32"),
    "one-hot": np.eye(3, dtype="float32")[INDICES],
    "integer one-hot": np.eye(3, dtype="int32")[INDICES],
}
LOGITS = np.array([[-1, 2, 0.5], [-3, -1, -2], [4, 4.5, -1], [0, 1, 9]], "float32")
LOSSES = {
    "cross_entropy": losses.cross_entropy,
    "margin": losses.margin,
    "margin 1": lambda y, z: losses.margin(y, z, 1.0),
    "dlr": losses.dlr,
    "likelihood": losses.likelihood_regularization,
    "atblr_clean": lambda y, z: losses.atblr_clean(y, z, 0.3),
    "atblr_adversarial": lambda y, z: losses.atblr_adversarial(y, z, 0.3, 2.0),
}


@pytest.mark.parametrize("form", FORMS)
def test_indices(form: str) -> None:
    indices = ops.convert_to_numpy(to_indices(FORMS[form]))
    assert indices.dtype == "int32"
    assert indices.tolist() == [2, 0, 1, 2]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("form", FORMS)
def test_every_loss_reads_every_form(loss: str, form: str) -> None:
    expected = ops.convert_to_numpy(LOSSES[loss](INDICES, LOGITS))
    assert expected.shape == (4,)
    np.testing.assert_allclose(ops.convert_to_numpy(LOSSES[loss](FORMS[form], LOGITS)), expected, rtol=1e-6)


def test_pick_and_largest_other() -> None:
    z, y = ops.convert_to_tensor(LOGITS), ops.convert_to_tensor(FORMS["int32"])
    assert ops.convert_to_numpy(pick(z, y)).tolist() == [0.5, -3, 4.5, 9]
    assert ops.convert_to_numpy(largest_other(z, y)).tolist() == [2, -1, 4, 1]
