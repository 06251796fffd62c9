"""Cells as people write them, with code of their own: each leaves a compiled `model` and the arguments of its `fit`, `given`.

They are text, and run as the cells of a notebook are: what they define belongs to `__main__`, which no worker has.
"""

from __future__ import annotations

import linecache
import textwrap
from typing import Any

BEGIN = """
import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

chance = np.random.default_rng(3)
x, y = chance.normal(size=(50, 6)).astype("float32"), chance.integers(0, 3, 50)
"""

CELLS: dict[str, str] = {
    "a layer that nobody can write down": """
        class Scaled(layers.Layer):
            def __init__(self, scale, units):
                super().__init__()
                self.scale, self.units = scale, units

            def build(self, shape):
                self.w = self.add_weight(shape=(shape[-1], self.units), initializer="glorot_uniform")

            def call(self, inputs):
                return ops.relu(inputs @ self.w) * self.scale

        model = keras.Sequential([keras.Input((6,)), Scaled(np.float32(1.5), 8), layers.Dropout(0.3), layers.Dense(3)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        given = {"x": x, "y": y, "batch_size": 16}
    """,
    "a subclassed model": """
        class Wide(keras.Model):
            def __init__(self, widths):
                super().__init__()
                self.blocks = [layers.Dense(width, activation="gelu") for width in widths]
                self.drop, self.head = layers.Dropout(0.2), layers.Dense(3)
                self.table = {"bias": self.add_weight(shape=(3,), name="bias")}

            def call(self, inputs, training=False):
                for block in self.blocks:
                    inputs = self.drop(block(inputs), training=training)
                return self.head(inputs) + self.table["bias"]

        model = Wide([8, 5])
        model.compile(keras.optimizers.AdamW(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        given = {"x": x, "y": y, "batch_size": 16, "validation_split": 0.2}
    """,
    "a training step of its own": """
        class Stepping(keras.Model):
            def __init__(self, inner, weight):
                super().__init__()
                self.inner, self.weight = inner, weight
                self.loss_tracker, self.mae = keras.metrics.Mean(name="loss"), keras.metrics.MeanAbsoluteError(name="mae")

            def call(self, inputs, training=False):
                return self.inner(inputs, training=training)

            def train_step(self, data):
                inputs, target = data
                with tf.GradientTape() as tape:
                    found = self(inputs, training=True)
                    loss = ops.mean(keras.losses.mean_squared_error(target, found)) + self.weight * ops.mean(ops.abs(found))
                grads = tape.gradient(loss, self.trainable_variables)
                self.optimizer.apply_gradients(zip(grads, self.trainable_variables))
                self.loss_tracker.update_state(loss)
                self.mae.update_state(target, found)
                return {m.name: m.result() for m in self.metrics}

            @property
            def metrics(self):
                return [self.loss_tracker, self.mae]

        model = Stepping(keras.Sequential([keras.Input((6,)), layers.Dense(5, "relu"), layers.BatchNormalization(), layers.Dense(1)]), 0.01)
        model.compile(optimizer=keras.optimizers.Adam(1e-2))
        given = {"x": x, "y": x[:, :1] * 2, "batch_size": 16}
    """,
    "a variational autoencoder": """
        class Sampling(layers.Layer):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.seed_generator = keras.random.SeedGenerator(1337)

            def call(self, inputs):
                mean, log_var = inputs
                return mean + ops.exp(0.5 * log_var) * keras.random.normal(ops.shape(mean), seed=self.seed_generator)

        inputs = keras.Input((6,))
        hidden = layers.Dense(5, activation="relu")(inputs)
        mean, log_var = layers.Dense(2, name="mean")(hidden), layers.Dense(2, name="log_var")(hidden)
        encoder = keras.Model(inputs, [mean, log_var, Sampling()([mean, log_var])], name="encoder")
        decoder = keras.Sequential([keras.Input((2,)), layers.Dense(5, "relu"), layers.Dense(6)], name="decoder")

        class VAE(keras.Model):
            def __init__(self, encoder, decoder, **kwargs):
                super().__init__(**kwargs)
                self.encoder, self.decoder = encoder, decoder
                self.total, self.kl = keras.metrics.Mean(name="total"), keras.metrics.Mean(name="kl")

            @property
            def metrics(self):
                return [self.total, self.kl]

            def train_step(self, data):
                with tf.GradientTape() as tape:
                    mean, log_var, z = self.encoder(data)
                    error = ops.mean(ops.sum(ops.square(data - self.decoder(z)), axis=1))
                    kl = ops.mean(ops.sum(-0.5 * (1 + log_var - ops.square(mean) - ops.exp(log_var)), axis=1))
                    total = error + kl
                self.optimizer.apply_gradients(zip(tape.gradient(total, self.trainable_weights), self.trainable_weights))
                self.total.update_state(total)
                self.kl.update_state(kl)
                return {"total": self.total.result(), "kl": self.kl.result()}

        model = VAE(encoder, decoder)
        model.compile(optimizer=keras.optimizers.Adam())
        given = {"x": x, "batch_size": 16}
    """,
    "a GAN with two optimizers": """
        class GAN(keras.Model):
            def __init__(self, discriminator, generator, latent):
                super().__init__()
                self.discriminator, self.generator, self.latent = discriminator, generator, latent
                self.seeds = keras.random.SeedGenerator(1337)
                self.d_loss, self.g_loss = keras.metrics.Mean(name="d_loss"), keras.metrics.Mean(name="g_loss")

            def compile(self, d_optimizer, g_optimizer, loss_fn):
                super().compile()
                self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn

            @property
            def metrics(self):
                return [self.d_loss, self.g_loss]

            def train_step(self, real):
                count = tf.shape(real)[0]
                made = self.generator(keras.random.normal((count, self.latent), seed=self.seeds))
                labels = tf.concat([tf.ones((count, 1)), tf.zeros((count, 1))], axis=0)
                with tf.GradientTape() as tape:
                    d_loss = self.loss_fn(labels, self.discriminator(tf.concat([made, real], axis=0)))
                weights = self.discriminator.trainable_weights
                self.d_optimizer.apply_gradients(zip(tape.gradient(d_loss, weights), weights))
                noise = keras.random.normal((count, self.latent), seed=self.seeds)
                with tf.GradientTape() as tape:
                    g_loss = self.loss_fn(tf.zeros((count, 1)), self.discriminator(self.generator(noise)))
                weights = self.generator.trainable_weights
                self.g_optimizer.apply_gradients(zip(tape.gradient(g_loss, weights), weights))
                self.d_loss.update_state(d_loss)
                self.g_loss.update_state(g_loss)
                return {"d_loss": self.d_loss.result(), "g_loss": self.g_loss.result()}

        discriminator = keras.Sequential([keras.Input((6,)), layers.Dense(5), layers.LeakyReLU(negative_slope=0.2), layers.Dense(1)])
        generator = keras.Sequential([keras.Input((4,)), layers.Dense(5, "relu"), layers.Dense(6)])
        model = GAN(discriminator, generator, 4)
        model.compile(keras.optimizers.Adam(3e-4), keras.optimizers.RMSprop(1e-3), keras.losses.BinaryCrossentropy(from_logits=True))
        given = {"x": x, "batch_size": 16}
    """,
    "losses of its own": """
        ALPHA = 0.25

        def focal(target, found):
            chosen = ops.sum(ops.one_hot(ops.cast(target, "int32")[:, 0], 3) * ops.softmax(found), axis=-1)
            return -ALPHA * ops.power(1 - chosen, 2) * ops.log(chosen + 1e-7)

        class Penalty(keras.losses.Loss):
            def __init__(self, power):
                super().__init__(name="penalty")
                self.power = power

            def call(self, target, found):
                return ops.mean(ops.power(ops.abs(target - found), self.power), axis=-1)

        inputs = keras.Input((6,))
        hidden = layers.Dense(6, activation="tanh")(inputs)
        model = keras.Model(inputs, {"kind": layers.Dense(3, name="kind")(hidden), "size": layers.Dense(1, name="size")(hidden)})
        model.compile("adam", {"kind": focal, "size": Penalty(1.5)}, loss_weights={"kind": 1.0, "size": 0.5})
        given = {"x": x, "y": {"kind": y[:, None], "size": x[:, :1]}, "batch_size": 16}
    """,
    "metrics of its own": """
        def in_top_two(target, found):
            return keras.metrics.sparse_top_k_categorical_accuracy(target, found, k=2)

        class Hits(keras.metrics.Metric):
            def __init__(self, name="hits", **kwargs):
                super().__init__(name=name, **kwargs)
                self.hits = self.add_weight(name="hits", initializer="zeros")

            def update_state(self, target, found, sample_weight=None):
                right = ops.equal(ops.cast(target, "int64"), ops.cast(ops.argmax(found, axis=-1)[:, None], "int64"))
                self.hits.assign_add(ops.sum(ops.cast(right, "float32")))

            def result(self):
                return self.hits

            def reset_state(self):
                self.hits.assign(0.0)

        model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(3)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=[Hits(), in_top_two])
        given = {"x": x, "y": y[:, None], "batch_size": 16, "validation_split": 0.2}
    """,
    "callbacks of its own": """
        class Remembers(keras.callbacks.Callback):
            def __init__(self, every):
                super().__init__()
                self.every, self.losses, self.norms, self.best = every, [], {}, np.inf

            def on_train_batch_end(self, batch, logs=None):
                if batch % self.every == 0:
                    self.losses.append(logs["loss"])

            def on_epoch_end(self, epoch, logs=None):
                self.norms[str(epoch)] = float(np.linalg.norm(self.model.get_weights()[0]))
                self.best = min(self.best, logs["loss"])
                self.model.optimizer.learning_rate = 0.9 * float(self.model.optimizer.learning_rate)

        remembers = Remembers(2)
        model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(3)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        noted = []
        given = {
            "x": x, "y": y, "batch_size": 16,
            "callbacks": [
                remembers,
                keras.callbacks.LearningRateScheduler(lambda epoch, lr: lr * 0.5 if epoch else lr),
                keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: noted.append(logs["loss"])),
            ],
        }
    """,
    "a Lambda layer": """
        CENTRE = x.mean(axis=0)
        model = keras.Sequential([
            keras.Input((6,)), layers.Lambda(lambda value: (value - CENTRE) * 2.0), layers.Dense(8, activation=lambda v: ops.relu(v) ** 2),
            layers.Dense(3),
        ])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        given = {"x": x, "y": y, "batch_size": 16}
    """,
    "batches of its own": """
        class Windows(keras.utils.PyDataset):
            def __init__(self, x, y, size, **kwargs):
                super().__init__(**kwargs)
                self.x, self.y, self.size = x, y, size
                self.order = np.arange(len(x))

            def __len__(self):
                return len(self.x) // self.size

            def __getitem__(self, i):
                rows = self.order[i * self.size : (i + 1) * self.size]
                return self.x[rows], self.y[rows]

            def on_epoch_end(self):
                self.order = np.roll(self.order, 7)

        model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(3)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        given = {"x": Windows(x, y, 10), "validation_data": Windows(x[:20], y[:20], 10)}
    """,
    "a generator that is alive": """
        def batches(size):
            import itertools
            for i in itertools.count():
                rows = (np.arange(size) + i * size) % len(x)
                yield x[rows], y[rows], np.full(size, 1.0 + i % 2)

        model = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation=lambda v: ops.relu(v)), layers.Dense(3)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), weighted_metrics=["accuracy"])
        given = {"x": batches(7), "steps_per_epoch": 4}
    """,
    "an optimizer of its own": """
        class Sign(keras.optimizers.Optimizer):
            def __init__(self, learning_rate=0.01, momentum=0.9):
                super().__init__(learning_rate=learning_rate, name="sign")
                self.momentum = momentum

            def build(self, variables):
                super().build(variables)
                self.slots = [self.add_variable_from_reference(v, name="slot") for v in variables]

            def update_step(self, gradient, variable, learning_rate):
                slot = self.slots[self._get_variable_index(variable)]
                self.assign(slot, self.momentum * slot + (1 - self.momentum) * gradient)
                self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * ops.sign(slot))

        model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(3)])
        model.compile(Sign(), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        given = {"x": x, "y": y, "batch_size": 16}
    """,
    "a schedule, an initializer, a regularizer and a constraint of its own": """
        class Warm(keras.optimizers.schedules.LearningRateSchedule):
            def __init__(self, top, steps):
                self.top, self.steps = top, steps

            def __call__(self, step):
                return self.top * ops.minimum(1.0, (ops.cast(step, "float32") + 1) / self.steps)

        def ones_and_a_bit(shape, dtype=None):
            return ops.ones(shape, dtype) * 0.1

        def shrink(weights):
            return 1e-2 * ops.sum(ops.square(weights))

        class Bounded(keras.constraints.Constraint):
            def __call__(self, weights):
                return ops.clip(weights, -0.3, 0.3)

        hidden = layers.Dense(8, "relu", kernel_initializer=ones_and_a_bit, kernel_regularizer=shrink, kernel_constraint=Bounded())
        model = keras.Sequential([keras.Input((6,)), hidden, layers.Dense(3)])
        model.compile(keras.optimizers.Adam(Warm(0.05, 5)), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        given = {"x": x, "y": y, "batch_size": 16}
    """,
    "a tf.function that AutoGraph rewrites": """
        class Careful(keras.Model):
            def __init__(self):
                super().__init__()
                self.a, self.b = layers.Dense(6, "relu"), layers.Dense(3)
                self.calls = tf.Variable(0, trainable=False, name="calls")

            @tf.function
            def bounded(self, value):
                total = tf.reduce_sum(tf.abs(value))
                if total > 1.0:
                    value = value / total
                for _ in tf.range(2):
                    value = value * 1.5
                return value

            def call(self, inputs):
                return self.b(self.bounded(self.a(inputs)))

        model = Careful()
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        given = {"x": x, "y": y, "batch_size": 10}
    """,
    "a transformer block": """
        class Block(layers.Layer):
            def __init__(self, width, heads, hidden, rate=0.1):
                super().__init__()
                self.attention = layers.MultiHeadAttention(heads, width)
                self.feed = keras.Sequential([layers.Dense(hidden, activation="relu"), layers.Dense(width)])
                self.norms = [layers.LayerNormalization(epsilon=1e-6), layers.LayerNormalization(epsilon=1e-6)]
                self.drops = [layers.Dropout(rate), layers.Dropout(rate)]

            def call(self, inputs, training=False):
                inputs = self.norms[0](inputs + self.drops[0](self.attention(inputs, inputs), training=training))
                return self.norms[1](inputs + self.drops[1](self.feed(inputs), training=training))

        class Positions(layers.Layer):
            def __init__(self, length, words, width):
                super().__init__()
                self.words, self.places = layers.Embedding(words, width), layers.Embedding(length, width)
                self.length = length

            def call(self, tokens):
                return self.words(tokens) + self.places(ops.arange(self.length))

        tokens = keras.Input((7,), dtype="int32")
        hidden = Block(4, 2, 8)(Positions(7, 11, 4)(tokens))
        model = keras.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(hidden)))
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        given = {"x": chance.integers(0, 11, (50, 7)), "y": y, "batch_size": 16}
    """,
    "distillation": """
        class Distiller(keras.Model):
            def __init__(self, student, teacher):
                super().__init__()
                self.student, self.teacher = student, teacher
                teacher.trainable = False

            def compile(self, optimizer, metrics, student_loss, distillation_loss, alpha=0.1, temperature=3):
                super().compile(optimizer=optimizer, metrics=metrics)
                self.student_loss, self.distillation_loss = student_loss, distillation_loss
                self.alpha, self.temperature = alpha, temperature

            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                taught = self.teacher(x, training=False)
                soft = self.distillation_loss(ops.softmax(taught / self.temperature), ops.softmax(y_pred / self.temperature))
                return self.alpha * self.student_loss(y, y_pred) + (1 - self.alpha) * soft * self.temperature**2

            def call(self, inputs):
                return self.student(inputs)

        teacher = keras.Sequential([keras.Input((6,)), layers.Dense(16, "relu"), layers.Dense(3)])
        student = keras.Sequential([keras.Input((6,)), layers.Dense(4, "relu"), layers.Dense(3)])
        model = Distiller(student, teacher)
        model.compile(
            keras.optimizers.Adam(), [keras.metrics.SparseCategoricalAccuracy()],
            keras.losses.SparseCategoricalCrossentropy(from_logits=True), keras.losses.KLDivergence(),
        )
        given = {"x": x, "y": y, "batch_size": 16}
    """,
}


def run(name: str) -> dict[str, Any]:
    """The namespace that the cell leaves."""
    text = BEGIN + textwrap.dedent(CELLS[name])
    file = f"<cell {name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)  # as IPython does it
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, file, "exec"), names)
    return names
