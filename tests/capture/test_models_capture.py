"""What a capture holds besides the model: arguments, notes, digest; and that it is quick and leaves no trace."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kafka_jupyter.errors import StoreError
from kafka_jupyter.models import data, probe, state
from kafka_jupyter.models.capture import CapturedFit, capture_fit
from tests.capture import cases


def captured(model: Any = None, **arguments: Any) -> CapturedFit:
    return capture_fit(model or cases.classified(cases.mlp()), (), cases.classes(**arguments))


def test_arguments_are_bound_as_fit_binds_them() -> None:
    x, y = cases.rows(50, 6), cases.labels(50)
    found = capture_fit(cases.classified(cases.mlp()), (x, y, 8, 3), {"class_weight": {0: 2}, "verbose": 2})
    assert (found.fit.batch_size, found.fit.epochs, found.fit.verbose, found.fit.class_weight) == (8, 3, "2", {"0": 2.0})
    assert found.rows == 50
    assert found.parameters == 6 * 8 + 8 + 8 * 3 + 3


def test_arrays_are_not_copied_and_the_same_array_travels_once() -> None:
    x = cases.rows(50, 6)
    model = cases.mlp(outputs=6)
    model.compile("adam", "mse")
    found = capture_fit(model, (x, x), {"validation_data": (x, x)})
    assert len(found.leaves) == 1
    assert found.leaves[0] is x


def test_what_reading_a_dataset_freezes_is_said_in_one_line() -> None:
    dataset = tf.data.Dataset.from_tensor_slices((cases.rows(50, 6), cases.labels(50))).shuffle(50).batch(16)
    seen: list[tuple[int, int | None]] = []
    found = capture_fit(cases.classified(cases.mlp()), (dataset,), {}, progress=lambda done, of: seen.append((done, of)))
    assert found.notes == ["x: the tf.data.Dataset was read once (4 elements); what is random in it is frozen."]
    assert seen[-1] == (4, 4)
    assert found.rows == 50


def test_running_the_cell_again_gives_the_same_digest() -> None:
    shas = ["a", "b"]
    first, again = captured(), captured()
    assert [layer.name for layer in first.model.layers] != [layer.name for layer in again.model.layers]
    assert first.state != again.state
    assert first.digest(shas) == again.digest(shas)


@pytest.mark.parametrize(
    "changed",
    [
        lambda: captured(epochs=2),
        lambda: captured(cases.classified(cases.mlp(width=9))),
        lambda: captured(cases.classified(cases.mlp(), keras.optimizers.Adam(0.01))),
        lambda: captured(callbacks=keras.callbacks.EarlyStopping(monitor="loss")),
        lambda: captured(validation_split=0.2),
    ],
)
def test_another_fit_has_another_digest(changed: Any) -> None:
    assert changed().digest(["a", "b"]) != captured().digest(["a", "b"])


def test_a_second_fit_with_the_same_arguments_is_another_fit() -> None:
    model = cases.classified(cases.mlp())
    first = captured(model)
    model.fit(**cases.classes(), verbose=0)
    assert captured(model).digest(["a", "b"]) != first.digest(["a", "b"])


def test_other_data_have_another_digest() -> None:
    found = captured()
    assert found.digest(["a", "b"]) != found.digest(["a", "c"])


def test_the_first_loss_is_that_of_keras_and_looking_leaves_no_trace() -> None:
    model = cases.classified(cases.mlp(keras.layers.Dropout(0.5), keras.layers.BatchNormalization()))
    found = captured(model)
    before = state.dump(model)
    names = [keras.layers.Dense(1).name for _ in range(2)]
    loss = probe.first_batch_loss(model, found.structure, found.leaves, rows=5)
    assert state.dump(model) == before
    assert names[0] != names[1]
    assert loss == pytest.approx(model.evaluate(cases.rows(50, 6)[:5], cases.labels(50)[:5], verbose=0)[0], rel=1e-5)


def test_tolerances_follow_the_coarsest_type() -> None:
    assert probe.rtol(cases.mlp()) == 1e-3
    assert probe.rtol(cases.mlp(keras.layers.Dense(3, dtype="mixed_float16"))) > 1e-3
    assert probe.rtol(cases.mlp(keras.layers.Dense(3, dtype="bfloat16"))) > 2e-2


def test_capturing_a_small_model_takes_less_than_ten_milliseconds() -> None:
    model = cases.classified(cases.mlp())
    took = []
    for _ in range(20):
        start = time.thread_time()  # of the processor: other tests run beside this one
        captured(model)
        took.append(time.thread_time() - start)
    assert min(took) < 0.010, f"{sorted(took)} s"


@pytest.mark.parametrize("structure", [{}, {"v": 2}, {"v": 1, "x": {"leaf": 7}}, {"v": 1, "x": {"what": 1}}, {"v": 1, "x": {"leaf": "a"}}])
def test_a_structure_from_elsewhere_is_one_clear_error(structure: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match="cannot be put together"):
        data.load(structure, [np.ones(3)])


def test_globals_of_keras_come_back_after_a_rebuild(tmp_path: Any) -> None:
    from kafka_jupyter.models import rebuild

    found = captured()
    (tmp_path / "state").write_bytes(found.state)
    document = {**found.document, "globals": {**found.document["globals"], "epsilon": 1e-3, "floatx": "float64"}}
    with rebuild.keras_globals(document):
        assert (keras.config.epsilon(), keras.config.floatx()) == (1e-3, "float64")
    assert (keras.config.epsilon(), keras.config.floatx()) == (1e-7, "float32")


@pytest.mark.parametrize(("optimizer", "slots"), [("adam", 2), ("sgd", 0)])
def test_a_fit_needs_the_memory_of_its_data_weights_gradients_and_slots(optimizer: str, slots: int) -> None:
    weights = 4 * (6 * 8 + 8 + 8 * 3 + 3)
    data_bytes = 50 * 6 * 4 + 50 * 8
    model = cases.classified(cases.mlp(), optimizer)
    assert captured(model).requirements.memory == data_bytes + weights * (1 + 1 + 2), "nobody knows the slots yet"
    model.fit(**cases.classes(), verbose=0)
    counters = 4 * len([v for v in model.optimizer.variables if v.name == "learning_rate"]) + 8
    warm = captured(model).requirements
    assert warm.memory == data_bytes + weights * (1 + 1 + slots) + counters
    model.trainable = False
    frozen = cases.classified(model, keras.optimizers.Adam())
    assert captured(frozen).requirements.memory == data_bytes + weights, "what is not trained has no gradient"
    assert (warm.keras, warm.backend, warm.backend_version, warm.device) == (keras.__version__, "tensorflow", "", "")
