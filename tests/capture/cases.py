"""Every row of the table "What can be captured": a function that builds a compiled model and the arguments of its `fit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import layers, ops

Case = tuple[keras.Model, dict[str, Any]]
CASES: dict[str, Callable[[], Case]] = {}


def case(build: Callable[[], Case]) -> Callable[[], Case]:
    CASES[build.__name__] = build
    return build


def rows(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def labels(count: int, classes: int = 3, seed: int = 1) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng(seed).integers(0, classes, count)


def mlp(*more: Any, width: int = 8, inputs: int = 6, outputs: int = 3) -> keras.Sequential:
    return keras.Sequential([keras.Input((inputs,)), layers.Dense(width, activation="relu"), *more, layers.Dense(outputs)])


def regression(**arguments: Any) -> dict[str, Any]:
    return {"x": rows(50, 6), "y": rows(50, 3, seed=2), "batch_size": 16, **arguments}


def classified(model: keras.Model, optimizer: Any = "adam", **compile_arguments: Any) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **{"metrics": ["accuracy"], **compile_arguments})
    return model


def classes(**arguments: Any) -> dict[str, Any]:
    return {"x": rows(50, 6), "y": labels(50), "batch_size": 16, **arguments}


# --- architectures


@case
def sequential() -> Case:
    return classified(mlp()), classes()


@case
def unbuilt_sequential() -> Case:
    return classified(keras.Sequential([layers.Dense(8, activation="relu"), layers.Dropout(0.3), layers.Dense(3)])), classes()


@case
def functional_with_dicts_and_several_losses() -> Case:
    a, b = keras.Input((6,), name="a"), keras.Input((4,), name="b")
    joined = layers.Concatenate()([layers.Dense(5)(a), layers.Dense(5, activation="tanh")(b)])
    outputs = {"kind": layers.Dense(3, name="kind")(joined), "size": layers.Dense(1, name="size")(joined)}
    model = keras.Model({"a": a, "b": b}, outputs)
    model.compile(
        keras.optimizers.RMSprop(1e-3, momentum=0.5),
        loss={"kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "size": keras.losses.Huber(delta=0.3)},
        loss_weights={"kind": 0.7, "size": 2.0},
        metrics={"kind": ["accuracy"], "size": [keras.metrics.RootMeanSquaredError(), "mae"]},
        weighted_metrics={"size": ["mse"], "kind": []},
    )
    y = {"kind": labels(50), "size": rows(50, 1, seed=4)}
    return model, {"x": {"a": rows(50, 6), "b": rows(50, 4, seed=3)}, "y": y, "batch_size": 16}


@case
def shared_and_nested_layers() -> Case:
    shared = layers.Dense(6, activation="gelu", name="shared")
    left = keras.Sequential([keras.Input((6,)), layers.Dense(6), layers.Dropout(0.2)], name="left")
    inner = keras.Input((6,))
    right = keras.Model(inner, [layers.BatchNormalization()(left(inner)), layers.Dense(6)(inner)], name="right")
    x = keras.Input((6,))
    model = keras.Model(x, layers.Dense(3)(layers.Concatenate()([shared(x), *right(x), shared(shared(x)), right(shared(x))[0]])))
    return classified(model), classes()


@case
def keras_operations() -> Case:
    x = keras.Input((6,))
    hidden = layers.Dense(6)(x)
    hidden = ops.relu(hidden) * 0.5 + ops.mean(hidden, axis=-1, keepdims=True)
    hidden = ops.concatenate([hidden[:, :3], ops.softmax(hidden)], axis=1)
    return classified(keras.Model(x, layers.Dense(3)(hidden))), classes()


@case
def attention() -> Case:
    x = keras.Input((7, 8))
    hidden = layers.MultiHeadAttention(2, 4, dropout=0.1)(x, x)
    hidden = layers.LayerNormalization()(hidden + x)
    model = keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(hidden)))
    return classified(model), {"x": rows(40, 7, 8), "y": labels(40), "batch_size": 16}


@case
def random_layers_and_batch_normalization() -> Case:
    body = [keras.Input((8, 8, 3)), layers.RandomFlip("horizontal"), layers.RandomRotation(0.1), layers.Conv2D(4, 3)]
    tail = [layers.BatchNormalization(), layers.ReLU(), layers.GaussianNoise(0.1), layers.Flatten(), layers.Dropout(0.4), layers.Dense(3)]
    model = keras.Sequential(body + tail)
    return classified(model, keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True)), {"x": rows(40, 8, 8, 3), "y": labels(40)}


@case
def spectral_normalization_and_regularizers() -> Case:
    dense = layers.Dense(6, kernel_regularizer=keras.regularizers.L1L2(1e-3, 1e-2), kernel_constraint=keras.constraints.MaxNorm(2.0))
    hidden = layers.Dense(6, activity_regularizer="l2", kernel_initializer=keras.initializers.HeNormal(seed=3))
    return classified(mlp(layers.SpectralNormalization(dense), hidden)), classes()


@case
def recurrent_with_dropout() -> Case:
    model = keras.Sequential(
        [keras.Input((5, 4)), layers.Bidirectional(layers.LSTM(4, dropout=0.2, recurrent_dropout=0.1)), layers.Dense(3)]
    )
    return classified(model, keras.optimizers.AdamW(1e-3, use_ema=True, ema_overwrite_frequency=2)), {"x": rows(40, 5, 4), "y": labels(40)}


@case
def stacked_gru_with_masking() -> Case:
    model = keras.Sequential([keras.Input((5, 4)), layers.Masking(), layers.GRU(4, return_sequences=True), layers.GRU(3)])
    return classified(model, "nadam"), {"x": rows(40, 5, 4), "y": labels(40)}


@case
def stateful_recurrent() -> Case:
    model = keras.Sequential([keras.Input(batch_shape=(10, 5, 4)), layers.LSTM(4, stateful=True), layers.Dense(3)])
    return classified(model), {"x": rows(40, 5, 4), "y": labels(40), "batch_size": 10}


@case
def frozen_and_partly_frozen() -> Case:
    base = keras.Sequential([keras.Input((6,)), layers.Dense(6), layers.BatchNormalization()], name="base")
    base.trainable = False
    model = mlp(layers.Dense(6, name="half"))
    whole = keras.Sequential([keras.Input((6,)), base, *model.layers])
    whole.get_layer("half").bias.trainable = False
    whole.get_layer("base").layers[0].trainable = True
    return classified(whole), classes()


@case
def lora() -> Case:
    model = mlp(layers.Dense(8, name="adapted"))
    model.get_layer("adapted").enable_lora(2)
    return classified(model), classes()


# --- numbers and optimizers


@case
def mixed_float16_everywhere() -> Case:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = mlp(layers.Dropout(0.2), layers.BatchNormalization())
        return classified(model, keras.optimizers.Adam(1e-3)), classes()
    finally:
        keras.config.set_dtype_policy(before)


@case
def mixed_float16_without_loss_scaling() -> Case:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return classified(mlp(), auto_scale_loss=False), classes()
    finally:
        keras.config.set_dtype_policy(before)


@case
def mixed_precision_of_single_layers() -> Case:
    model = mlp(layers.Dense(8, dtype="mixed_bfloat16"), layers.Dense(8, dtype="mixed_float16"), layers.Dense(8, dtype="float32"))
    return classified(model), classes()


@case
def bfloat16_variables() -> Case:
    return classified(mlp(layers.Dense(8, dtype="bfloat16")), "sgd"), classes()


@case
def schedule_with_warmup_and_clipping() -> Case:
    schedule = keras.optimizers.schedules.CosineDecay(1e-4, 50, warmup_target=1e-2, warmup_steps=5)
    return classified(mlp(), keras.optimizers.Adam(schedule, global_clipnorm=0.5)), classes()


@case
def gradient_accumulation_and_clipnorm() -> Case:
    return classified(mlp(), keras.optimizers.Adam(1e-3, gradient_accumulation_steps=3, clipnorm=1.0)), classes()


@case
def weight_decay_with_exclusions_by_name() -> Case:
    optimizer = keras.optimizers.AdamW(1e-2, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return classified(mlp(), optimizer), classes()


@case
def weight_decay_with_exclusions_by_variable() -> Case:
    model, optimizer = mlp(), keras.optimizers.SGD(1e-2, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_list=[model.layers[0].kernel])
    return classified(model, optimizer), classes()


@case
def ftrl() -> Case:
    return classified(mlp(), keras.optimizers.Ftrl(0.01, l1_regularization_strength=0.001)), classes()


@case
def adagrad_with_changed_learning_rate() -> Case:
    model = classified(mlp(), keras.optimizers.Adagrad(0.1))
    model.optimizer.learning_rate = 0.037
    return model, classes()


@case
def huber_with_delta() -> Case:
    model = mlp()
    model.compile("adam", keras.losses.Huber(delta=0.2))
    return model, regression()


@case
def losses_and_metrics_with_arguments() -> Case:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3, activation="softmax")])
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    metrics = [keras.metrics.TopKCategoricalAccuracy(k=2), keras.metrics.AUC(num_thresholds=20), keras.metrics.F1Score(average="macro")]
    model.compile("adam", loss, metrics=metrics)
    return model, {"x": rows(50, 6), "y": np.eye(3, dtype="float32")[labels(50)]}


@case
def loss_and_metric_given_as_functions() -> Case:
    model = mlp()
    model.compile("adam", keras.losses.mean_absolute_error, metrics=[keras.metrics.mean_squared_error])
    return model, regression()


@case
def compile_options() -> Case:
    return classified(mlp(layers.Dropout(0.1)), steps_per_execution=2, jit_compile=True), classes()


@case
def run_eagerly() -> Case:
    return classified(mlp(layers.Dropout(0.1)), run_eagerly=True), classes()


@case
def tensorflow_activation() -> Case:
    return classified(mlp(layers.Dense(8, activation=tf.nn.relu), layers.Dense(8, activation=keras.activations.hard_silu))), classes()


# --- layers that have learned


@case
def adapted_normalization() -> Case:
    norm = layers.Normalization()
    norm.adapt(rows(80, 6, seed=9) * 5 + 3)
    return classified(keras.Sequential([keras.Input((6,)), norm, layers.Dense(3)])), classes()


@case
def adapted_discretization() -> Case:
    bins = layers.Discretization(num_bins=4, output_mode="int")
    bins.adapt(rows(80, 6, seed=9))
    return classified(keras.Sequential([keras.Input((6,)), bins, layers.Embedding(5, 2), layers.Flatten(), layers.Dense(3)])), classes()


WORDS = np.array(["red fox", "blue whale", "red whale swims", "the fox runs", "blue"] * 8, dtype=object)


def text(vectorize: Any) -> keras.Model:
    vectorize.adapt(WORDS)
    mode = vectorize._output_mode
    tail = [layers.Embedding(20, 4), layers.GlobalAveragePooling1D()] if mode == "int" else []
    return classified(keras.Sequential([keras.Input((), dtype="string"), vectorize, *tail, layers.Dense(3)]))


@case
def adapted_text_vectorization() -> Case:
    return text(layers.TextVectorization(output_sequence_length=4)), {"x": WORDS, "y": labels(40)}


@case
def adapted_text_vectorization_tf_idf() -> Case:
    return text(layers.TextVectorization(output_mode="tf_idf", ngrams=2)), {"x": WORDS, "y": labels(40)}


@case
def adapted_string_lookup() -> Case:
    lookup = layers.StringLookup(output_mode="multi_hot")
    lookup.adapt(np.array(["a", "b", "b", "c"], dtype=object))
    x = tf.constant(np.random.default_rng(3).choice(["a", "b", "c", "?"], (40, 2)))
    return classified(keras.Sequential([keras.Input((2,), dtype="string"), lookup, layers.Dense(3)])), {"x": x, "y": labels(40)}


@case
def integer_lookup_with_vocabulary() -> Case:
    lookup = layers.IntegerLookup(vocabulary=[3, 5, 8], output_mode="one_hot")
    x = np.random.default_rng(3).choice([3, 5, 8, 9], (40, 1))
    model = keras.Sequential([keras.Input((1,), dtype="int64"), lookup, layers.Flatten(), layers.Dense(3)])
    return classified(model), {"x": x, "y": labels(40)}


# --- arguments of fit


@case
def class_weights() -> Case:
    return classified(mlp()), classes(class_weight={0: 1.0, 1: 3.0, 2: np.float32(0.5)})


@case
def sample_weights_and_validation_data() -> Case:
    weights = np.linspace(0, 1, 50).astype("float32")
    return classified(mlp(), weighted_metrics=["accuracy"]), classes(
        sample_weight=weights, validation_data=(rows(20, 6, seed=7), labels(20, seed=8), weights[:20]), validation_batch_size=7
    )


@case
def validation_split_and_frequency() -> Case:
    return classified(mlp()), classes(validation_split=0.3, validation_freq=2, epochs=3, initial_epoch=1)


@case
def steps_per_epoch() -> Case:
    return classified(mlp()), classes(steps_per_epoch=2, validation_data=(rows(20, 6), labels(20)), validation_steps=1)


# --- forms of data


@case
def tensors() -> Case:
    return classified(mlp()), classes(x=tf.constant(rows(50, 6)), y=tf.constant(labels(50)))


@case
def float64_and_fortran_order() -> Case:
    return classified(mlp()), classes(x=np.asfortranarray(rows(50, 6).astype("float64")))


@case
def pandas_frames() -> Case:
    frame = pd.DataFrame(rows(50, 6), columns=list("abcdef"))
    return classified(mlp()), classes(x=frame, y=pd.Series(labels(50)), validation_data=(frame[:10], pd.Series(labels(10))))


@case
def list_of_inputs() -> Case:
    a, b = keras.Input((6,)), keras.Input((4,))
    model = keras.Model([a, b], layers.Dense(3)(layers.Concatenate()([a, b])))
    return classified(model), {"x": [rows(50, 6), rows(50, 4)], "y": labels(50)}


@case
def batched_dataset() -> Case:
    data = tf.data.Dataset.from_tensor_slices((rows(50, 6), labels(50))).batch(16)
    return classified(mlp()), {"x": data, "validation_data": data.take(2)}


@case
def dataset_of_dicts_with_weights() -> Case:
    a, b = keras.Input((6,), name="zebra"), keras.Input((), name="apple", dtype="string")
    lookup = layers.StringLookup(vocabulary=["x", "y"], output_mode="one_hot")
    model = keras.Model({"zebra": a, "apple": b}, layers.Dense(3)(layers.Concatenate()([a, lookup(b)])))
    x = {"zebra": rows(50, 6), "apple": np.array(["x", "y"] * 25)}
    data = tf.data.Dataset.from_tensor_slices((x, labels(50), rows(50) ** 2)).batch(8)
    return classified(model), {"x": data}


@case
def endless_dataset_with_steps() -> Case:
    data = tf.data.Dataset.from_tensor_slices((rows(50, 6), labels(50))).repeat().batch(8)
    return classified(mlp()), {"x": data, "steps_per_epoch": 4}


@case
def dataset_of_padded_batches() -> Case:
    lengths = tf.data.Dataset.from_tensor_slices(np.arange(1, 31, dtype="int64"))
    data = lengths.map(lambda n: (tf.cast(tf.range(n) % 7, "float32")[:, None], n % 3)).padded_batch(8)
    model = keras.Sequential([keras.Input((None, 1)), layers.GRU(3), layers.Dense(3)])
    return classified(model), {"x": data}


@case
def dataset_of_ragged_strings() -> Case:
    words = tf.ragged.constant([["a"], ["b", "c"], ["a", "b", "c"], ["?"]] * 8)
    data = tf.data.Dataset.from_tensor_slices((words, labels(32))).batch(8)
    lookup = layers.StringLookup(vocabulary=["a", "b"])
    inputs = keras.Input((None,), dtype="string", ragged=True)
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(layers.Embedding(5, 2)(lookup(inputs)))))
    return classified(model), {"x": data}


@case
def tuple_of_inputs() -> Case:
    a, b = keras.Input((6,)), keras.Input((4,))
    model = keras.Model((a, b), layers.Dense(3)(layers.Concatenate()([a, b])))
    x = (rows(50, 6), rows(50, 4))
    return classified(model), {"x": x, "y": labels(50), "validation_data": ((x[0][:9], x[1][:9]), labels(9))}


@case
def list_of_outputs_each_with_weights() -> Case:
    x = keras.Input((6,))
    model = keras.Model(x, [layers.Dense(3)(x), layers.Dense(2)(x)])
    model.compile("adam", ["mse", keras.losses.Huber(delta=0.1)], loss_weights=[1.0, 0.3], metrics=[["mae"], ["mse"]])
    weights = [np.linspace(0, 1, 50), np.linspace(2, 0, 50)]
    return model, {"x": rows(50, 6), "y": [rows(50, 3), rows(50, 2)], "sample_weight": weights, "validation_split": 0.3}


@case
def dict_of_pandas_columns() -> Case:
    frame = pd.DataFrame({"age": rows(50), "word": ["x", "y"] * 25})
    age, word = keras.Input((1,), name="age"), keras.Input((1,), name="word", dtype="string")
    coded = layers.Flatten()(layers.StringLookup(vocabulary=["x", "y"], output_mode="one_hot")(word))
    model = keras.Model({"age": age, "word": word}, layers.Dense(3)(layers.Concatenate()([age, coded])))
    return classified(model), {"x": {"age": frame["age"], "word": tf.constant(frame["word"].to_numpy()[:, None])}, "y": labels(50)}


@case
def strings_with_a_validation_split() -> Case:
    return text(layers.TextVectorization(output_sequence_length=4)), {"x": tf.constant(WORDS), "y": labels(40), "validation_split": 0.25}


@case
def ragged_tensor() -> Case:
    x = tf.ragged.constant([["a"], ["b", "c"], ["a", "b", "c"], ["?"]] * 8)
    inputs = keras.Input((None,), dtype="string", ragged=True)
    hidden = layers.Embedding(5, 2)(layers.StringLookup(vocabulary=["a", "b"])(inputs))
    return classified(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(hidden)))), {"x": x, "y": labels(32)}


@case
def sparse_tensor() -> Case:
    x = tf.sparse.from_dense(np.maximum(rows(50, 6), 0))
    inputs = keras.Input((6,), sparse=True)
    return classified(keras.Model(inputs, layers.Dense(3)(inputs))), {"x": x, "y": labels(50), "batch_size": 16}


@case
def integers_and_booleans() -> Case:
    x = {"whole": np.arange(100, dtype="uint8").reshape(50, 2), "flag": rows(50, 2) > 0}
    whole, flag = keras.Input((2,), name="whole", dtype="uint8"), keras.Input((2,), name="flag", dtype="bool")
    hidden = layers.Concatenate()([layers.Rescaling(1 / 255)(whole), ops.cast(flag, "float32")])
    return classified(keras.Model({"whole": whole, "flag": flag}, layers.Dense(3)(hidden))), {"x": x, "y": labels(50)}


# --- arguments together, and callbacks that change what is trained


@case
def class_weights_with_a_validation_split() -> Case:
    return classified(mlp(), weighted_metrics=["accuracy"]), classes(
        class_weight={0: 1.0, 1: 4.0, 2: 0.25}, validation_split=0.3, validation_freq=[2], validation_batch_size=5, epochs=2
    )


@case
def class_weights_on_a_dataset() -> Case:
    data = tf.data.Dataset.from_tensor_slices((rows(50, 6), labels(50))).batch(16)
    return classified(mlp()), {"x": data, "class_weight": {0: 1.0, 1: 4.0, 2: 0.25}}


@case
def early_stopping_that_restores_the_best_weights() -> Case:
    stopping = keras.callbacks.EarlyStopping(monitor="val_loss", patience=1, restore_best_weights=True)
    return classified(mlp(), keras.optimizers.Adam(0.3)), classes(validation_split=0.3, epochs=9, callbacks=[stopping])


@case
def learning_rate_reduced_on_a_plateau() -> Case:
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.3, patience=1, min_delta=10.0)
    return classified(mlp(), keras.optimizers.Adam(0.01)), classes(epochs=5, callbacks=[plateau])


@case
def averaged_weights_swapped_in_for_the_validation() -> Case:
    optimizer = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5)
    return classified(mlp(), optimizer), classes(validation_split=0.3, epochs=3, callbacks=[keras.callbacks.SwapEMAWeights(True)])
