"""The order of rows by (seed, epoch), and that everything else is what Keras does with the same arrays."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.data.ops.iterator_ops import OwnedIterator

from kafka_jupyter.models import data
from kafka_jupyter.protocol.task import FitArguments
from kafka_jupyter.training.adapter import Passes, ShuffledArrays, order_of
from kafka_jupyter.training.fit import fit_arguments

ROWS = 50


@pytest.fixture
def arrays():
    rng = np.random.default_rng(1)
    return rng.normal(size=(ROWS, 4)).astype("float32"), rng.integers(0, 3, ROWS)


def network(**compile):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.2), keras.layers.Dense(3, "softmax")]
    )
    model.compile(**{"optimizer": "adam", "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], **compile})
    return model


def rows_of(adapter):
    """The first column of each batch of one pass."""
    return [np.asarray(keras.tree.flatten(batch)[0])[:, 0].tolist() for batch in adapter.get_tf_dataset()]


def joined(batches):
    return [row for batch in batches for row in batch]


def numbered(**arguments):
    return ShuffledArrays(np.arange(ROWS, dtype="float32")[:, None], seed=7, batch_size=16, **arguments)


def same(ours, theirs):
    """Both models and histories are equal to the last bit."""
    for mine, other in zip(ours.variables, theirs.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), other.numpy())
    for mine, other in zip(ours.optimizer.variables, theirs.optimizer.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), other.numpy())
    assert ours.history.history == theirs.history.history
    assert ours.history.epoch == theirs.history.epoch
    assert ours.history.params == theirs.history.params


def fitted(fields, seed=7, **arguments):
    model = network()
    callbacks = arguments.pop("callbacks", None)
    model.fit(**fit_arguments(FitArguments(**arguments), seed, fields)[0], verbose=0, callbacks=callbacks)
    return model


def test_each_epoch_has_its_own_order_known_from_seed_and_epoch():
    adapter = numbered()
    for epoch in range(3):
        adapter.on_epoch_begin()
        batches = rows_of(adapter)
        assert [len(batch) for batch in batches] == [16, 16, 16, 2]
        assert joined(batches) == order_of(7, epoch, ROWS).tolist()
    assert order_of(7, 0, ROWS).tolist() != order_of(7, 1, ROWS).tolist() != order_of(8, 1, ROWS).tolist()


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_iterator_that_keras_made_and_did_not_read_serves_the_next_epoch(arrays, monkeypatch, shuffle):
    made, begin = [], OwnedIterator.__init__

    def noted(self, dataset=None, *args, **kwargs):
        if dataset is not None:  # else it is taken apart and put together on its way into a function
            made.append(self)
        begin(self, dataset, *args, **kwargs)

    monkeypatch.setattr(OwnedIterator, "__init__", noted)
    x, y = arrays
    fitted({"x": x, "y": y}, batch_size=16, epochs=5, shuffle=shuffle)
    assert len(made) == (5 + 1 if shuffle else 2 * 5)


def test_an_iterator_serves_until_somebody_reads_from_it():
    adapter = numbered()
    dataset = adapter.get_tf_dataset()
    adapter.on_epoch_begin()
    first = iter(dataset)
    assert iter(dataset) is first
    next(first)
    second = iter(dataset)
    assert second is not first
    assert iter(dataset) is second
    adapter.on_epoch_begin()
    assert joined(np.asarray(keras.tree.flatten(batch)[0])[:, 0].tolist() for batch in second) == order_of(7, 1, ROWS).tolist()


def test_the_order_is_pinned_so_that_another_version_can_go_on_with_a_run():
    assert order_of(7, 2, 8).tolist() == [6, 0, 2, 3, 7, 5, 1, 4]


@pytest.mark.parametrize(("size", "lengths"), [(25, [25, 25]), (49, [49, 1]), (64, [50])])
def test_every_row_comes_once_whatever_the_batch_size(size, lengths):
    adapter = ShuffledArrays(np.arange(ROWS, dtype="float32")[:, None], seed=7, batch_size=size)
    adapter.on_epoch_begin()
    batches = rows_of(adapter)
    assert [len(batch) for batch in batches] == lengths
    assert joined(batches) == order_of(7, 0, ROWS).tolist()


def test_a_fit_that_begins_at_epoch_2_takes_the_order_of_epoch_2():
    adapter = numbered(initial_epoch=2)
    adapter.on_epoch_begin()
    assert joined(rows_of(adapter)) == order_of(7, 2, ROWS).tolist()


def test_fit_sees_exactly_the_order_of_each_epoch(arrays):
    """The oracle: plain `fit(shuffle=False)`, an epoch at a time, on arrays that were put in order by hand."""
    x, y = arrays
    ours = fitted({"x": x, "y": y}, epochs=3, batch_size=16)
    theirs = network()
    losses = []
    for epoch in range(3):
        rows = order_of(7, epoch, ROWS)
        losses += theirs.fit(x[rows], y[rows], batch_size=16, shuffle=False, verbose=0).history["loss"]
    assert ours.history.history["loss"] == losses
    for mine, other in zip(ours.variables, theirs.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), other.numpy())


@pytest.mark.parametrize("steps", [2, 3])
def test_with_steps_per_epoch_a_pass_lasts_several_epochs(steps):
    """50 rows in 5 batches: passes begin in epochs 0 and, when it is used up, in the epoch after; Keras warns of the short one."""
    seen = []

    class Rows(keras.layers.Layer):
        def call(self, inputs):
            tf.py_function(lambda part: seen.append(part.numpy()[:, 0].tolist()), [inputs], [])
            return inputs

    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1)(Rows()(inputs)))
    model.compile("sgd", "mse", run_eagerly=True)
    fields = {"x": np.arange(ROWS, dtype="float32")[:, None], "y": np.zeros((ROWS, 1), "float32")}
    arguments, _ = fit_arguments(FitArguments(epochs=3, steps_per_epoch=steps, batch_size=10), 7, fields)
    with pytest.warns(UserWarning, match="ran out of data"):
        model.fit(**arguments, verbose=0)
    per_epoch = {2: [2, 2, 1], 3: [3, 2, 3]}[steps]
    begun = {2: [0], 3: [0, 2]}[steps]
    expected = joined(order_of(7, epoch, ROWS).tolist() for epoch in begun)[: 10 * sum(per_epoch)]
    assert joined(seen) == expected


@pytest.mark.parametrize(("rows", "steps", "at_once"), [(50, 3, 2), (70, 3, 2), (80, 4, 3), (50, 2, 4), (50, None, 2), (50, 4, 2)])
def test_epochs_take_the_batches_that_plain_fit_takes_when_it_executes_several_at_once(rows, steps, at_once):
    model, taken = network(steps_per_execution=at_once), [0]
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: taken.append(int(model.optimizer.iterations)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your input ran out of data")
        model.fit(np.zeros((rows, 4)), np.zeros(rows), batch_size=10, epochs=4, steps_per_epoch=steps, verbose=0, callbacks=[count])
    passes = Passes(rows // 10, steps, at_once=at_once)
    assert [passes.of(epoch)[2] for epoch in range(4)] == np.diff(taken).tolist()


def test_without_shuffle_everything_is_as_plain_fit_does_it(arrays):
    x, y = arrays
    ours = fitted({"x": x, "y": y}, epochs=2, shuffle=False, validation_split=0.2)
    theirs = network()
    theirs.fit(x, y, epochs=2, shuffle=False, validation_split=0.2, verbose=0)
    same(ours, theirs)


CASES = {
    "sample weights": lambda x, y, w: ({"x": x, "y": y, "sample_weight": w}, {}),
    "class weights": lambda x, y, w: ({"x": x, "y": y}, {"class_weight": {"0": 0.5, "1": 2.0, "2": 1.0}}),
    "a split-off validation": lambda x, y, w: ({"x": x, "y": y, "sample_weight": w}, {"validation_split": 0.3}),
    "validation data": lambda x, y, w: (
        {"x": x, "y": y, "validation_data": (x[:20], y[:20], w[:20])},
        {"validation_freq": 2, "validation_batch_size": 7, "epochs": 4},
    ),
    "chosen validation epochs": lambda x, y, w: ({"x": x, "y": y, "validation_data": (x, y)}, {"validation_freq": [1, 3], "epochs": 3}),
    "validation steps": lambda x, y, w: ({"x": x, "y": y, "validation_data": (x, y)}, {"validation_steps": 1}),
    "a later first epoch": lambda x, y, w: ({"x": x, "y": y}, {"initial_epoch": 1, "epochs": 3}),
    "steps without a batch size": lambda x, y, w: ({"x": x, "y": y}, {"steps_per_epoch": 4}),
    "double precision": lambda x, y, w: ({"x": x.astype("float64"), "y": y}, {}),
    "whole batches only": lambda x, y, w: ({"x": x, "y": y}, {"batch_size": 25}),
}


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_other_arguments_keep_their_meaning(arrays, case, shuffle):
    """Against Keras' own adapter. A constant order makes the shuffled one comparable: each row is the same."""
    x, y = arrays
    if shuffle:
        x, y = np.repeat(x[:1], ROWS, axis=0), np.repeat(y[:1], ROWS)
    weights = np.full(ROWS, 0.7, "float32") if shuffle else np.linspace(0.1, 2, ROWS).astype("float32")
    fields, arguments = CASES[case](x, y, weights)
    ours = fitted(fields, shuffle=shuffle, **{"epochs": 2, **arguments})
    theirs = network()
    plain = {"epochs": 2, "shuffle": False, **fields, **arguments}
    if "class_weight" in plain:
        plain["class_weight"] = {int(key): value for key, value in plain["class_weight"].items()}
    theirs.fit(**plain, verbose=0)
    same(ours, theirs)


def test_structured_inputs_targets_and_weights_are_shuffled_together():
    count = np.arange(ROWS)
    x = {"number": count[:, None].astype("float32"), "word": tf.constant([[f"w{i}"] for i in count])}
    y = [count * 2, {"deep": count * 3}]
    adapter = ShuffledArrays(x, y, seed=7, batch_size=16)
    adapter.on_epoch_begin()
    order = order_of(7, 0, ROWS)
    seen = list(adapter.get_tf_dataset().as_numpy_iterator())
    np.testing.assert_array_equal(np.concatenate([batch[0]["number"][:, 0] for batch in seen]), order)
    assert [word.decode() for batch in seen for word in batch[0]["word"][:, 0]] == [f"w{i}" for i in order]
    np.testing.assert_array_equal(np.concatenate([batch[1][0] for batch in seen]), order * 2)
    np.testing.assert_array_equal(np.concatenate([batch[1][1]["deep"] for batch in seen]), order * 3)


def test_stored_strings_come_back_as_the_tensors_they_were():
    words = tf.constant([["ab"], ["ü"], [""]])
    encoded = data.encode({"x": words, "validation_data": ([words, words],)})
    arguments, _ = fit_arguments(FitArguments(shuffle=False), 7, data.load(encoded.structure, encoded.leaves))
    for part in keras.tree.flatten((next(iter(arguments["x"].get_tf_dataset())), arguments["validation_data"])):
        np.testing.assert_array_equal(part.numpy(), words.numpy())


def test_ragged_and_sparse_tensors_are_shuffled_with_the_rest():
    ragged = tf.ragged.constant([[i] * (i % 3 + 1) for i in range(ROWS)], dtype=tf.float32)
    sparse = tf.sparse.from_dense(np.diag(np.arange(1, ROWS + 1)).astype("float32"))
    adapter = ShuffledArrays((ragged, sparse), seed=7, batch_size=16)
    adapter.on_epoch_begin()
    order = order_of(7, 0, ROWS)
    seen = [batch[0] for batch in adapter.get_tf_dataset()]
    assert [row[0] for pair in seen for row in pair[0].to_list()] == order.tolist()
    np.testing.assert_array_equal(np.concatenate([tf.sparse.to_dense(pair[1]) for pair in seen]), np.diag(np.arange(1, ROWS + 1))[order])


def test_a_dataset_that_was_read_keeps_its_batches_and_their_order(arrays):
    x, y = arrays
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    encoded = data.encode({"x": dataset, "validation_data": dataset})
    ours = fitted(data.load(encoded.structure, encoded.leaves), epochs=2)
    theirs = network()
    theirs.fit(dataset, epochs=2, validation_data=dataset, shuffle=False, verbose=0)
    same(ours, theirs)


def test_class_weights_apply_to_the_batches_of_a_dataset(arrays):
    x, y = arrays
    dataset = tf.data.Dataset.from_tensor_slices((x, y.astype("int32"))).batch(16)
    encoded = data.encode({"x": dataset})
    ours = fitted(data.load(encoded.structure, encoded.leaves), epochs=2, class_weight={"0": 0.5, "1": 2.0, "2": 1.0})
    theirs = network()
    theirs.fit(dataset, epochs=2, class_weight={0: 0.5, 1: 2.0, 2: 1.0}, shuffle=False, verbose=0)
    same(ours, theirs)


def test_an_epoch_takes_exactly_its_batches_and_no_step_more(arrays):
    x, y = arrays
    model = fitted({"x": x, "y": y}, epochs=3, batch_size=16)
    assert int(model.optimizer.iterations.numpy()) == 12
    assert model.history.params["steps"] == 4
