"""Each row of the table, trained by the child of a worker: a difference of 0 in outputs, weights, optimizer slots, seeds and logs."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import tensorflow as tf

from kafka_jupyter.models import callbacks, probe, state
from kafka_jupyter.models.capture import capture_fit
from kafka_jupyter.training.adapter import order_of
from tests.capture import cases
from tests.capture import twin as other

Given = dict[str, Any]


@pytest.mark.parametrize("name", cases.CASES)
def test_a_model_trains_elsewhere_exactly_as_it_would_here(name: str, twin: Any, tmp_path: pathlib.Path) -> None:
    keras.utils.set_random_seed(7)
    model, given = cases.CASES[name]()
    given = {"epochs": 2, **given}
    for round_ in ("fresh", "warm"):  # the second fit goes on with a warm optimizer
        captured = capture_fit(model, (), {**given, "shuffle": False})
        before = state.dump(model)
        loss = probe.first_batch_loss(model, captured.structure, captured.leaves, class_weight=given.get("class_weight"))
        ahead = other.forward(model, other.first_x(captured.structure, captured.leaves))
        assert state.dump(model) == before, "looking at the model has changed it"
        there = twin.train(captured, tmp_path / round_, loss)
        model.fit(**{"verbose": 0, **given, "shuffle": False})
        assert there.loss() == pytest.approx(loss, rel=1e-6)
        assert np.array_equal(ahead, np.load(there.folder / "forward.npy"))
        # An optimizer that has never trained has no slots yet where the model comes from.
        assert_same_state(before, (there.folder / "state-built").read_bytes(), optimizer=round_ == "warm")
        assert there.outcome()["history"] == callbacks.final_state([model.history])[0]["history"]
        assert_same_state(state.dump(model), there.state().read_bytes())


SHUFFLED = [
    "functional_with_dicts_and_several_losses",
    "list_of_outputs_each_with_weights",
    "class_weights",
    "tuple_of_inputs",
    "dict_of_pandas_columns",
    "strings_with_a_validation_split",
    "ragged_tensor",
    "sparse_tensor",
]


@pytest.mark.parametrize("name", SHUFFLED)
def test_a_shuffled_fit_is_the_plain_one_of_the_rows_in_the_order_of_the_run(name: str, twin: Any, tmp_path: pathlib.Path) -> None:
    keras.utils.set_random_seed(7)
    model, given = cases.CASES[name]()
    captured = capture_fit(model, (), given)
    there = twin.train(captured, tmp_path)
    assert captured.rows is not None
    trained = math.floor(captured.rows * (1 - given.get("validation_split", 0)))  # the last rows are split off before
    order = np.concatenate([order_of(captured.seed, 0, trained), np.arange(trained, captured.rows)])
    for field in {"x", "y", "sample_weight"} & given.keys():
        given[field] = keras.tree.map_structure(lambda part: in_order(part, order), given[field], none_is_leaf=False)
    model.fit(**given, shuffle=False, verbose=0)
    assert there.outcome()["history"] == callbacks.final_state([model.history])[0]["history"]
    assert_same_state(state.dump(model), there.state().read_bytes())


def in_order(part: Any, order: Any) -> Any:
    if isinstance(part, tf.SparseTensor):
        return tf.sparse.from_dense(tf.gather(tf.sparse.to_dense(part), order))
    if isinstance(part, pd.Series):
        return part.iloc[order]
    return part[order] if isinstance(part, np.ndarray) else tf.gather(part, order)


def assert_same_state(here: bytes, there: bytes, optimizer: bool = True) -> None:
    mine, theirs = (
        {key: value for key, value in safetensors.numpy.load(state).items() if optimizer or not key.startswith("optimizer/")}
        for state in (here, there)
    )
    assert mine.keys() == theirs.keys()
    assert not {
        key: (mine[key], theirs[key]) for key in mine if not np.array_equal(mine[key], theirs[key], equal_nan=mine[key].dtype.kind == "f")
    }
