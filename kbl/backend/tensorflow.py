"""TensorFlow: whole functions in one graph."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kbl.backend import loops
from kbl.backend.parts import inference, leaves
from kbl.backend.pixel_blocks import PixelBlocks, pixel_blocks
from kbl.typing import Network, Tensor

COMPILES_SHAPES = True
_BATCH_SIZE = 32  # Keras' own


def value_and_grad(fn: Callable[[Any], tuple[Tensor, Any]], x: Any) -> tuple[Any, Any]:
    """Return ``(auxiliary, gradient)`` of ``fn: x -> (scalar, auxiliary)`` at x, a tensor or a list of tensors."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        value, auxiliary = fn(x)
    return auxiliary, tape.gradient(value, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def compiled(network: Network, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Trace ``kernel(forward, *arrays)`` into one graph a shape; it reads the variables at each call."""
    prepare(network)
    forward = inference(network)

    def run(*arrays: Any) -> Any:
        return kernel(forward, *arrays)

    # One function for each signature: of one that is traced often TensorFlow warns. It knows functions by their code,
    # which all of kbl's attacks would share, but a partial by itself.
    graphs: dict[Any, Any] = {}

    def call(*arrays: Any) -> Any:
        tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, arrays)
        signature = tuple((tensor.shape, tensor.dtype) for tensor in keras.tree.flatten(tensors))
        if signature not in graphs:
            graphs[signature] = tf.function(partial(run), autograph=False)
        return graphs[signature](*tensors)

    return call


def repeated(network: Network, step: Callable[..., Any]) -> Callable[..., Any]:
    """Compile the loop with the step."""
    return compiled(network, loops.repeating(_apart(step)))


def repeated_inside(
    forward: Any, identity: Any, step: Callable[..., Any], count: int, x: Tensor, constants: tuple[Any, ...]
) -> Tensor:
    """Take a step so many times in the graph that is being traced."""
    return loops.repeated_inside(forward, identity, _apart(step), count, x, constants)


def _apart(step: Callable[..., Any]) -> Callable[..., Any]:
    """Let a step be a graph of its own, called from the loop's.

    Inlined it would lie on the loop's cycle, where TensorFlow meets operations in an order that changes from trace to
    trace: when it meets the gradient of max-pooling before the pooling itself, it does not give it to oneDNN, and the
    gradient takes ten times as long.
    """

    def call(forward: Any, *given: Any) -> Any:
        graph = tf.function(
            partial(step, forward), autograph=False, experimental_attributes={"_noinline": True}
        )
        return graph(*given)

    return call


def with_adversaries(model: Any, step: Callable[..., Any], training: bool, *data: Any) -> Any:
    """Craft inside the graph of the step, outside its gradient tape."""
    attacked = model.attacked(*data, training)
    shift = model.perturbation(attacked) if training else None
    with model.moved(shift):
        return step(attacked)


def fed(batches: Any) -> Any:
    """Return a pipeline of the batches that tf.data does not tune."""

    def batch(i: int) -> Any:
        return keras.tree.map_structure(_standard, batches[i])

    first, last = (keras.tree.map_structure(tf.type_spec_from_value, batch(i)) for i in (0, len(batches) - 1))
    signature = keras.tree.map_structure(
        lambda one, other: one.most_specific_common_supertype([other]), first, last
    )
    pipeline = tf.data.Dataset.from_generator(
        lambda: map(batch, range(len(batches))), output_signature=signature
    )
    return _untuned(pipeline.apply(tf.data.experimental.assert_cardinality(len(batches))))


def fit_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Return arguments of ``fit`` with pipelines that tf.data does not tune in place of NumPy arrays."""
    changed = dict(given)
    size = given.get("batch_size") or _BATCH_SIZE
    validation = given.get("validation_data")
    if isinstance(validation, tuple) and _are_arrays(validation):
        rows = changed.pop("validation_batch_size", None) or size
        changed["validation_data"] = _from_arrays(validation, rows, shuffle=False)
    data = given.get("x"), given.get("y"), given.get("sample_weight")
    keras_own = given.get("validation_split") or given.get("class_weight") or given.get("shuffle") == "batch"
    if not keras_own and _are_arrays(data):
        for name in ("y", "sample_weight", "batch_size"):
            changed.pop(name, None)
        changed |= {"x": _from_arrays(data, size, given.get("shuffle", True)), "shuffle": False}
    return changed


def _are_arrays(data: Any) -> bool:
    """Tell whether images and labels, and what else there is, are arrays of equally many rows."""
    arrays = keras.tree.flatten([part for part in data if part is not None])
    if any(part is None for part in data[:2]) or not all(isinstance(array, np.ndarray) for array in arrays):
        return False
    counts = {len(array) if array.ndim else 0 for array in arrays}
    return len(counts) == 1 and counts != {0}


def _from_arrays(data: Any, size: int, shuffle: Any) -> Any:
    """Return a pipeline of batches of the arrays' rows, shuffled anew each epoch, the last as short as it is."""
    arrays = keras.tree.map_structure(_standard, tuple(part for part in data if part is not None))
    count = len(keras.tree.flatten(arrays)[0])
    rows = tf.data.Dataset.range(count)
    if shuffle:
        rows = rows.shuffle(count)
    batches = rows.batch(size, drop_remainder=count % size == 0)
    return _untuned(
        batches.map(lambda places: keras.tree.map_structure(lambda array: tf.gather(array, places), arrays))
    )


def _untuned(pipeline: Any) -> Any:
    """Return the pipeline, one batch ahead, without the thread that tunes it.

    The end of each epoch would wait for that thread, which sleeps until 10 ms × 2ᵏ have passed since the epoch began:
    one of 6 s takes 10.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return pipeline.prefetch(1).with_options(options)


def _standard(array: Any) -> Tensor:
    """Return a tensor where pipelines run; of floats, in the type that Keras computes with."""
    with tf.device("CPU:0"):
        return tf.convert_to_tensor(array, keras.config.floatx() if array.dtype.kind == "f" else None)


def prepare(network: Network) -> None:
    """Let 2-D convolutions add their bias by the operation that TensorFlow fuses with the convolution.

    Keras adds it as one tensor to another, which costs a pass of its own. Gradients in images of few channels are
    computed in blocks of pixels on a CPU. Results are the same, up to rounding.
    """
    for layer in leaves(network):
        if type(layer) is keras.layers.Conv2D and layer.data_format == "channels_last":
            layer.call = _convolution(layer)


def _convolution(layer: Any) -> Callable[[Tensor], Tensor]:
    def plain(inputs: Tensor, kernel: Tensor, *bias: Tensor) -> Tensor:
        outputs = layer.convolution_op(inputs, kernel)
        return tf.nn.bias_add(outputs, *bias) if bias else outputs

    def convolution(inputs: Tensor) -> Tensor:
        weights = [layer.kernel, layer.bias] if layer.use_bias else [layer.kernel]
        weights = [tf.convert_to_tensor(keras.ops.convert_to_tensor(each)) for each in weights]  # as tensors
        blocks = _pixel_blocks(layer, inputs, weights[0])
        outputs = (plain if blocks is None else _narrow(layer, plain, blocks))(inputs, *weights)
        return outputs if layer.activation is None else layer.activation(outputs)

    return convolution


def _pixel_blocks(layer: Any, inputs: Tensor, kernel: Tensor) -> PixelBlocks | None:
    size, outputs = (tuple(shape[1:3]) for shape in (inputs.shape, layer.compute_output_shape(inputs.shape)))
    if None in size or layer.groups != 1 or tuple(layer.dilation_rate) != (1, 1):
        return None
    if tf.config.list_physical_devices("GPU"):
        return None
    sides, strides = tuple(kernel.shape[:2]), tuple(layer.strides)
    before = [0, 0]
    if layer.padding == "same":
        before = [max((outputs[i] - 1) * strides[i] + sides[i] - size[i], 0) // 2 for i in (0, 1)]
    return pixel_blocks(size, outputs, tuple(kernel.shape), strides, tuple(before))


def _narrow(layer: Any, plain: Callable[..., Tensor], blocks: PixelBlocks) -> Callable[..., Tensor]:
    """Return the convolution with the gradient in the images in blocks of pixels, the others TensorFlow's own."""

    @tf.custom_gradient
    def convolution(inputs: Tensor, kernel: Tensor, *bias: Tensor) -> Any:
        def gradients(slope: Tensor) -> tuple[Tensor, ...]:
            pads = [[0, 0], *map(list, blocks.pads), [0, 0]]
            pixels = tf.nn.conv2d(slope, blocks.kernel(kernel), blocks.strides, pads)
            in_kernel = tf.raw_ops.Conv2DBackpropFilter(
                input=inputs,
                filter_sizes=kernel.shape,
                out_backprop=slope,
                strides=(1, *layer.strides, 1),
                padding=layer.padding.upper(),
            )
            in_bias = [tf.reduce_sum(slope, (0, 1, 2)) for _ in bias]
            return blocks.images(pixels, *inputs.shape[1:3]), in_kernel, *in_bias

        return plain(inputs, kernel, *bias), gradients

    return convolution


def sign(x: Tensor) -> Tensor:
    """Return -1, 0 or 1, and 0 of NaN; Keras' `nan_to_num` would take seven passes."""
    return tf.sign(tf.where(tf.math.is_nan(x), tf.zeros((), x.dtype), x))


def argmax(x: Tensor) -> Tensor:
    """Return the place of the greatest along the last axis, int32; of equals the first."""
    return tf.argmax(x, -1, "int32")


def allow_tf32(allowed: bool) -> None:
    """Set what matrix products and convolutions may use."""
    tf.config.experimental.enable_tensor_float_32_execution(allowed)


def devices() -> list[str]:
    """Names of TensorFlow's devices."""
    return [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices()]
