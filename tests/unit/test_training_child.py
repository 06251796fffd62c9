"""Real children with Keras: what they train is what `fit` trains here through the same adapter, and how they end."""

import csv
import json
import os
import pathlib
import signal
import time

import keras
import numpy as np
import pytest

from kafka_jupyter.models import callbacks as callback_room
from kafka_jupyter.models import state
from kafka_jupyter.protocol import frames
from kafka_jupyter.training.adapter import ShuffledArrays
from kafka_jupyter.worker.children import Children
from tests.support import jobs
from tests.support.watching import Watched

ROWS = 96


@pytest.fixture(scope="module")
def children():
    made = Children()
    yield made
    made.close()


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


def sent(children, job, *requests):
    watched = Watched(children)
    for frame in (job, *requests):
        watched.child.send(frame)
    return watched


def done(watched):
    """The Done frame of a child that has ended well, and its outcome."""
    ended = watched.exit(within=60)
    assert (ended.code, ended.signal) == (0, 0), (watched.frames, watched.lines)
    frame = watched.frames[-1]
    assert isinstance(frame, frames.Done), frame
    return frame, json.loads(pathlib.Path(frame.files["outcome"]).read_text())


def trained(frame):
    """The bytes of the trained state."""
    return pathlib.Path(frame.files["state"]).read_bytes()


def failed(watched):
    assert watched.exit(within=60).code == 0
    frame = watched.frames[-1]
    assert isinstance(frame, frames.Error), frame
    return frame


def of(watched, kind):
    return [frame for frame in watched.frames if isinstance(frame, kind)]


def endless(folder, arrays, **arguments):
    """A training that goes on until somebody ends it."""
    return jobs.job(folder, network(), *arrays, epochs=1_000_000, **arguments)


def test_a_child_trains_exactly_what_fit_trains_here(children, arrays, tmp_path):
    x, y = arrays
    job = jobs.job(tmp_path, network(), x, y, epochs=3, batch_size=16, validation_split=0.25)
    split = ROWS * 3 // 4
    local = network()
    local.fit(
        ShuffledArrays(x[:split], y[:split], seed=7, batch_size=16),
        validation_data=(x[split:], y[split:]),
        batch_size=16,
        epochs=3,
        verbose=0,
    )

    watched = sent(children, job)
    frame, outcome = done(watched)
    there = network()
    state.load_into(there, there.optimizer, frame.files["state"])
    for mine, other in zip(local.variables + local.optimizer.variables, there.variables + there.optimizer.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), other.numpy())
    assert outcome["history"] == local.history.history
    assert outcome["epoch"] == [0, 1, 2]
    assert outcome["params"] == {"epochs": 3, "steps": 5}
    assert (outcome["stop_training"], frame.stopped_early, frame.epochs) == (False, False, 3)


def test_frames_come_in_order_and_tell_each_epoch(children, arrays, tmp_path):
    watched = sent(children, jobs.job(tmp_path, network(), *arrays, epochs=3, batch_size=16, initial_epoch=1, period_s=0.0))
    frame, outcome = done(watched)
    ready = watched.frames[0]
    assert (ready.epoch, ready.step, ready.device) == (1, 0, "cpu")
    assert ready.versions["keras"] == keras.__version__
    batches = [(f.epoch, f.step, f.steps) for f in of(watched, frames.Batch)]
    assert batches == [(epoch, step, 6) for epoch in (1, 2) for step in range(1, 7)]
    epochs = of(watched, frames.Epoch)
    assert [(f.epoch, f.step) for f in epochs] == [(1, 6), (2, 6)]
    assert [f.metrics["loss"] for f in epochs] == outcome["history"]["loss"]
    assert all(f.seconds > 0 for f in epochs)
    assert frame.metrics == epochs[-1].metrics
    assert frame.epochs == 3


def test_batch_progress_is_throttled_and_every_epoch_is_told(children, arrays, tmp_path):
    watched = sent(children, jobs.job(tmp_path, network(), *arrays, epochs=40, batch_size=4))
    done(watched)
    assert [f.epoch for f in of(watched, frames.Epoch)] == list(range(40))
    seconds = sum(f.seconds for f in of(watched, frames.Epoch))
    assert 1 <= len(of(watched, frames.Batch)) <= 4 * seconds + 2


def test_stop_ends_after_the_batch_with_the_weights_so_far(children, arrays, tmp_path):
    watched = sent(children, endless(tmp_path, arrays, batch_size=16, validation_data=arrays))
    watched.frame(frames.Epoch, within=60)
    watched.child.send(frames.Stop())
    frame, outcome = done(watched)
    assert frame.stopped_early
    assert frame.epochs == len(outcome["epoch"]) == len(of(watched, frames.Epoch))
    assert outcome["stop_training"]
    there = network()
    state.load_into(there, there.optimizer, frame.files["state"])
    last = of(watched, frames.Epoch)[-1]
    assert int(there.optimizer.iterations.numpy()) == 6 * last.epoch + last.step


def test_a_stop_that_is_there_before_the_training_ends_it_after_one_batch(children, arrays, tmp_path):
    frame, outcome = done(sent(children, endless(tmp_path, arrays, batch_size=16), frames.Stop()))
    assert frame.stopped_early
    assert outcome["epoch"] == [0]


def test_early_stopping_is_not_a_stop_and_its_final_state_is_told(children, arrays, tmp_path):
    def stopping():
        return keras.callbacks.EarlyStopping(monitor="loss", patience=1, min_delta=100, restore_best_weights=True)

    frame, outcome = done(sent(children, jobs.job(tmp_path, network(), *arrays, epochs=9, shuffle=False, callbacks=[stopping()])))
    local = stopping()
    network().fit(*arrays, epochs=9, shuffle=False, callbacks=[local], verbose=0)
    assert outcome["callbacks"] == callback_room.final_state([local])
    assert (outcome["stop_training"], frame.stopped_early, frame.epochs) == (True, False, local.stopped_epoch + 1)


def test_files_of_callbacks_come_back_under_the_paths_that_were_given(children, arrays, tmp_path):
    callbacks = [
        keras.callbacks.ModelCheckpoint("out/best-{epoch}.keras", monitor="loss"),
        keras.callbacks.CSVLogger("log.csv"),
        keras.callbacks.TensorBoard("logs/fit"),
    ]
    frame, outcome = done(sent(children, jobs.job(tmp_path, network(), *arrays, epochs=2, callbacks=callbacks)))
    assert {"out/best-1.keras", "out/best-2.keras", "log.csv"} <= frame.outputs.keys()
    assert any(path.startswith("logs/fit/train/events.out") for path in frame.outputs)
    assert all(path.startswith(str(tmp_path / "own")) for path in frame.outputs.values())
    with open(frame.outputs["log.csv"]) as file:
        assert [float(row["loss"]) for row in csv.DictReader(file)] == outcome["history"]["loss"]
    assert keras.saving.load_model(frame.outputs["out/best-2.keras"]).count_params() == network().count_params()


def test_metrics_that_are_arrays_or_not_finite_are_told_as_numbers_and_none(children, arrays, tmp_path):
    x, y = arrays
    model = network(loss="categorical_crossentropy", metrics=[keras.metrics.F1Score(name="f1")])
    targets = keras.utils.to_categorical(y, 3)
    targets[0, 0] = np.nan
    watched = sent(children, jobs.job(tmp_path, model, x, targets))
    _, outcome = done(watched)
    metrics = of(watched, frames.Epoch)[0].metrics
    assert metrics["loss"] is None
    assert {"f1_0", "f1_1", "f1_2"} <= metrics.keys()
    assert outcome["history"]["loss"] == [{"$float": "nan"}]
    assert len(outcome["history"]["f1"][0]) == 3


def test_an_exception_in_training_is_an_error_frame_with_its_traceback(children, arrays, tmp_path):
    x, y = arrays
    watched = sent(children, jobs.job(tmp_path, network(), x, y + 5))
    error = failed(watched)
    assert (error.reason, error.error) == ("exception", "InvalidArgumentError")
    assert "valid range" in error.message
    assert "model.fit(" in error.traceback
    assert len(error.traceback) <= 16_002


def test_a_task_that_the_allow_list_does_not_know_is_refused(children, arrays, tmp_path):
    job = jobs.job(tmp_path, network(), *arrays)
    config = pathlib.Path(job.inputs["model"])
    config.write_text(config.read_text().replace('"class_name":"Dropout"', '"class_name":"Lambda"'))
    error = failed(sent(children, job))
    assert (error.reason, error.error) == ("refused", "CannotTravel")
    assert "Lambda" in error.message


def test_a_broken_input_file_is_a_matter_of_the_store(children, arrays, tmp_path):
    job = jobs.job(tmp_path, network(), *arrays)
    os.truncate(job.inputs["data/0"], 100)
    assert failed(sent(children, job)).reason == "store"


def test_the_learning_rate_changes_between_batches_and_is_answered(children, arrays, tmp_path):
    watched = sent(children, endless(tmp_path, arrays), frames.Apply("r1", {"learning_rate": 0.5}))
    answer = watched.frame(frames.AppliedFrame, within=60)
    assert (answer.request_id, answer.settings, answer.epoch) == ("r1", {"learning_rate": 0.5}, 0)
    watched.child.send(frames.Stop())
    frame, _ = done(watched)
    there = network()
    state.load_into(there, there.optimizer, frame.files["state"])
    assert float(there.optimizer.learning_rate.numpy()) == 0.5


def test_a_learning_rate_that_cannot_be_set_is_refused_and_the_training_goes_on(children, arrays, tmp_path):
    schedule = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, 100))
    job = jobs.job(tmp_path, network(optimizer=schedule), *arrays, epochs=2)
    watched = sent(children, job, frames.Apply("r1", {"learning_rate": 0.5}), frames.Apply("r2", {"learning_rate": "fast"}))
    done(watched)
    answers = of(watched, frames.AppliedFrame)
    assert [answer.request_id for answer in answers] == ["r1", "r2"]
    assert "LearningRateSchedule" in answers[0].settings["refused"]
    assert "fast" in answers[1].settings["refused"]


def test_the_loss_of_the_first_rows_is_that_of_the_state_as_it_arrived(children, arrays, tmp_path):
    """Asked for in the middle of a training, which goes on as if nothing had been asked."""
    from kafka_jupyter.models import capture, probe

    model = network()
    captured = capture.capture_fit(model, arrays, {})
    here = probe.first_batch_loss(model, captured.structure, captured.leaves)
    quiet, _ = done(sent(children, jobs.job(tmp_path / "quiet", network(), *arrays, epochs=3)))
    asked = [frames.Apply(name, {"check_loss": here, "check_rtol": 1e-3}) for name in ("r1", "r2")]
    watched = sent(children, jobs.job(tmp_path / "asked", network(), *arrays, epochs=3), *asked)
    frame, _ = done(watched)
    answers = of(watched, frames.AppliedFrame)
    assert [answer.request_id for answer in answers] == ["r1", "r2"]
    assert answers[0].settings["worker_loss"] == pytest.approx(here, rel=1e-6)
    assert trained(frame) == trained(quiet)


def test_a_model_that_did_not_arrive_as_it_was_ends_the_attempt_with_both_values(children, arrays, tmp_path):
    watched = sent(children, endless(tmp_path, arrays), frames.Apply("r1", {"check_loss": 99.0, "check_rtol": 1e-3}))
    error = failed(watched)
    assert (error.reason, error.error) == ("mismatch", "ModelMismatch")
    assert error.fields["kernel"] == 99.0
    assert 0 < error.fields["worker_loss"] < 10
    assert "99.0" in error.message


def test_what_a_training_prints_becomes_lines_and_nothing_else_does(children, arrays, tmp_path):
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=1, min_delta=100, verbose=1)
    watched = sent(children, jobs.job(tmp_path, network(), *arrays, epochs=3, callbacks=[plateau]))
    done(watched)
    assert any("reducing learning rate" in text for text, stream in watched.lines if stream == "stdout")
    assert [text for text, _ in watched.lines if text and "reducing learning rate" not in text] == []


def test_cancel_ends_a_training_within_a_second(children, arrays, tmp_path):
    watched = sent(children, endless(tmp_path, arrays))
    watched.frame(frames.Epoch, within=60)
    begun = time.monotonic()
    watched.child.terminate(60)
    ended = watched.exit()
    assert time.monotonic() - begun < 1.0
    assert (ended.signal, ended.terminated) == (signal.SIGTERM, True)


def test_a_training_killed_for_its_memory_is_told_with_signal_and_size(children, arrays, tmp_path):
    watched = sent(children, endless(tmp_path, arrays))
    watched.frame(frames.Epoch, within=60)
    os.kill(watched.child.pid, signal.SIGKILL)
    ended = watched.exit()
    assert (ended.signal, ended.terminated) == (signal.SIGKILL, False)
    assert ended.memory > 50 << 20


def test_two_trainings_at_once_do_not_disturb_each_other(children, arrays, tmp_path):
    alone, _ = done(sent(children, jobs.job(tmp_path / "alone", network(), *arrays, epochs=20)))
    pair = [sent(children, jobs.job(tmp_path / name, network(), *arrays, epochs=20)) for name in ("a", "b")]
    assert [trained(done(watched)[0]) for watched in pair] == [trained(alone)] * 2


def test_equipment_tells_versions_and_devices(children):
    found = children.equipment(60)
    assert found.unfit == ""
    assert (found.device, found.devices) == ("cpu", ["CPU"])
    assert found.versions["keras"] == keras.__version__
    assert found.versions["backend"] == "tensorflow"
    assert found.versions["tensorflow"]


def test_what_keras_imports_for_others_is_not_there_before_a_training_imports_it():
    children = Children(train="tests.unit.children_entries:wait_for_orders")
    try:
        watched = Watched(children)
        watched.child.send(frames.Apply(request_id="1", settings={"do": "modules"}))
        assert watched.told("loaded") == {"keras": True, "sklearn": False, "pandas": False}
        assert (watched.told("f1"), watched.told("rows")) == (1.0, 2)
    finally:
        children.close()


def test_a_backend_that_cannot_be_imported_makes_the_worker_unfit():
    children = Children(environ={**os.environ, "KERAS_BACKEND": "abacus"})
    try:
        assert "abacus" in children.equipment(60).unfit
    finally:
        children.close()
