"""What is built before a training: one trace instead of two, and not a bit of difference."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from kafka_jupyter.training.adapter import ShuffledArrays
from kafka_jupyter.training.building import build_before
from kafka_jupyter.worker.children import Children
from tests.unit.test_training_resume import Undisturbed

ROWS = 40


def dropping():
    layers = [keras.Input((8,)), keras.layers.GaussianNoise(0.1), keras.layers.Dense(6, "relu"), keras.layers.Dropout(0.3)]
    model = keras.Sequential([*layers, keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["accuracy"])
    return model, rows(8), labels()


def normalising():
    layers = [keras.Input((6, 6, 1)), keras.layers.RandomFlip(), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()]
    model = keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss, metrics=["accuracy"], steps_per_execution=2)
    return model, rows(6, 6, 1), labels()


def averaging():
    model = keras.Sequential([keras.Input((5, 4)), keras.layers.LSTM(6, dropout=0.2), keras.layers.Dense(3, "softmax")])
    optimizer = keras.optimizers.AdamW(0.01, use_ema=True, ema_momentum=0.9, gradient_accumulation_steps=2)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model, rows(5, 4), labels()


def forking():
    here = keras.Input((8,), name="here")
    seen = keras.layers.Dense(5, "tanh", kernel_regularizer="l2")(here)
    model = keras.Model({"here": here}, {"kind": keras.layers.Dense(3)(seen), "size": keras.layers.Dense(1)(seen)})
    losses = {"kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "size": "mse"}
    model.compile("rmsprop", losses, loss_weights={"kind": 1.0, "size": 0.1}, metrics={"kind": "accuracy", "size": ["mae", "mse"]})
    return model, {"here": rows(8)}, {"kind": labels(), "size": rows(1)}


def rows(*shape):
    return np.random.default_rng(1).normal(size=(ROWS, *shape)).astype("float32")


def labels():
    return np.random.default_rng(2).integers(0, 3, ROWS)


def trained(made, before):
    """History and weights of a short `fit`, and how often its step was traced."""
    keras.utils.set_random_seed(3)
    model, x, y = made()
    traced = []
    step = model.train_step
    model.train_step = lambda data: traced.append(1) or step(data)
    adapter = ShuffledArrays(x, y, seed=7, batch_size=16)
    if before:
        assert build_before(model, adapter)
    history = model.fit(adapter, epochs=3, shuffle=False, verbose=0)
    return history.history, [weight.tobytes() for weight in model.get_weights()], len(traced) // model.steps_per_execution


@pytest.mark.parametrize("made", [dropping, normalising, averaging, forking])
def test_a_step_is_traced_once_and_every_bit_is_the_same(made):
    assert trained(made, before=True)[:2] == trained(made, before=False)[:2]
    assert trained(made, before=True)[2] < trained(made, before=False)[2]


def test_nothing_changes_but_what_is_there():
    keras.utils.set_random_seed(3)
    model, x, y = dropping()
    before = [variable.numpy() for variable in model.variables]
    assert build_before(model, ShuffledArrays(x, y, seed=7, batch_size=16))
    assert model.optimizer.built
    assert all(np.array_equal(was, variable.numpy()) for was, variable in zip(before, model.variables[: len(before)], strict=True))
    assert len(model.metrics_variables) > 2


def test_sparse_rows_are_left_to_fit():
    model = keras.Sequential([keras.Input((8,), sparse=True), keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    adapter = ShuffledArrays(tf.sparse.from_dense(rows(8)), labels(), seed=7, batch_size=16)
    assert not build_before(model, adapter)
    assert len(model.fit(adapter, epochs=2, shuffle=False, verbose=0).epoch) == 2


def test_a_training_with_sparse_rows_goes_on_within_an_epoch(tmp_path):
    """Its metrics are made by a batch, which must leave no trace."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((8,), sparse=True), keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    with contextlib.closing(Children()) as children:
        whole = Undisturbed(children, tmp_path, model, tf.sparse.from_dense(rows(8).round()), labels(), epochs=3, batch_size=16)
        whole.same(whole.resumed(next(saved for saved in whole.saved if saved.step)))


def test_an_error_is_that_of_fit():
    def failing(before):
        model, x, _ = dropping()
        adapter = ShuffledArrays(x, rows(7, 2), seed=7, batch_size=16)
        if before:
            assert not build_before(model, adapter)
        with pytest.raises(ValueError) as caught:
            model.fit(adapter, shuffle=False, verbose=0)
        return str(caught.value)

    assert failing(before=True) == failing(before=False)
