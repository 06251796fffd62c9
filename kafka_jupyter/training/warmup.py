"""What TensorFlow does once a process, done before there is a task: a child that has waited is as quick as a warm kernel.

TensorFlow alone, and nothing random: Keras' names and seeds are those of a process in which nothing has happened.
"""

from __future__ import annotations

import tensorflow as tf


def warm_up() -> None:
    """A training step as Keras traces it, on nothing: about 0.15 s, nearly all of which the first `fit` would take longer."""
    weights = tf.Variable(tf.zeros((4, 4)))

    def step(rows: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.relu(tf.matmul(rows, weights)))
        weights.assign_sub(tape.gradient(loss, weights))
        return loss

    traced = tf.function(step, autograph=False, reduce_retracing=True)
    train = tf.function(lambda batches: traced(next(batches)), autograph=False, reduce_retracing=True)
    whole, rest = (tf.data.Dataset.from_tensor_slices(tf.zeros((1, rows, 4))) for rows in (2, 1))
    batches = whole.concatenate(rest).map(tf.autograph.experimental.do_not_convert(lambda rows: rows)).prefetch(tf.data.AUTOTUNE)
    train(iter(batches))
