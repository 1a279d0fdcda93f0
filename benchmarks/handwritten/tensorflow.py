"""PGD by hand in TensorFlow, one graph."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def make(weights: list[Any], epsilon: float, step_size: float, steps: int) -> Callable[[Any, Any], Any]:
    weights = [tf.Variable(weight) for weight in weights]

    def logits(x: Any) -> Any:
        for kernel, bias in (weights[:2], weights[2:4]):
            x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias))
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")
        x = tf.nn.relu(tf.reshape(x, (tf.shape(x)[0], -1)) @ weights[4] + weights[5])
        return x @ weights[6] + weights[7]

    @tf.function(autograph=False)
    def run(x: Any, y: Any) -> Any:
        def step(i: Any, x_adv: Any) -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x_adv)
                loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits(x_adv)))
            x_adv = x_adv + step_size * tf.sign(tape.gradient(loss, x_adv))
            return i + 1, tf.clip_by_value(tf.clip_by_value(x_adv, x - epsilon, x + epsilon), 0, 1)

        start = tf.clip_by_value(x + tf.random.uniform(tf.shape(x), -epsilon, epsilon), 0, 1)
        return tf.while_loop(lambda i, _: i < steps, step, (0, start))[1]

    return lambda x, y: run(tf.constant(x), tf.constant(y)).numpy()
