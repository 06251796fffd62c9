"""A training that goes on from any of its checkpoints, in another process, ends as if it had never been cut: to the last bit."""

import contextlib
import csv
import json
import os
import pathlib
import random
import resource
import signal

import keras
import msgspec
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.util import event_pb2

from kafka_jupyter.models import callback_state, state
from kafka_jupyter.protocol import frames
from kafka_jupyter.training.adapter import Passes
from kafka_jupyter.training.checkpoint import Checkpointer
from kafka_jupyter.worker.children import Children
from tests.support import jobs
from tests.support.waiting import wait_until
from tests.support.watching import Watched

EVERY_BATCH = frames.Cadence(every_s=0.0, gap_s=0.0, share=1.0)
ROWS = 96


@pytest.fixture(scope="module")
def children():
    made = Children()
    yield made
    made.close()


def mlp():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.GaussianNoise(0.1),
            keras.layers.Dense(12, "relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(3, "softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["accuracy"])
    return model, np.random.default_rng(1).normal(size=(ROWS, 8)).astype("float32")


def cnn():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.RandomFlip(),
            keras.layers.RandomRotation(0.1),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(3, "softmax"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model, np.random.default_rng(1).normal(size=(ROWS, 6, 6, 1)).astype("float32")


def lstm():
    model = keras.Sequential(
        [keras.Input((5, 4)), keras.layers.LSTM(6, dropout=0.2, recurrent_dropout=0.2), keras.layers.Dense(3, "softmax")]
    )
    model.compile(keras.optimizers.AdamW(0.01, use_ema=True, ema_momentum=0.9), "sparse_categorical_crossentropy")
    return model, np.random.default_rng(1).normal(size=(ROWS, 5, 4)).astype("float32")


def accumulating():
    """Gradients that are collected over several batches, and two batches for each call of Keras."""
    model, x = mlp()
    model.compile(
        keras.optimizers.Adam(0.01, gradient_accumulation_steps=2), "sparse_categorical_crossentropy", metrics=["accuracy"],
        steps_per_execution=2,
    )  # fmt: skip
    return model, x


MODELS = {"mlp": mlp, "cnn": cnn, "lstm": lstm, "accumulating": accumulating}


def labels():
    return np.random.default_rng(2).integers(0, 3, ROWS)


def watchful():
    return [
        keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, cooldown=1),
    ]


class Undisturbed:
    """A training that wrote a checkpoint after every batch, to its end. `saved` are the frames, `result` and `outcome` what came out."""

    def __init__(self, children, folder, model, *args, cadence=EVERY_BATCH, **kwargs):
        self.children, self.folder = children, folder
        self.job = msgspec.structs.replace(jobs.job(folder / "undisturbed", model, *args, **kwargs), cadence=cadence)
        watched = Watched(children)
        watched.child.send(self.job)
        self.done, self.result, self.outcome = finished(watched)
        self.saved = [frame for frame in watched.frames if isinstance(frame, frames.Saved)]
        self.epochs = [frame for frame in watched.frames if isinstance(frame, frames.Epoch)]

    def resumed(self, saved, **changes):
        """A new child that goes on from this checkpoint."""
        folder = self.folder / f"resumed-{saved.epoch}-{saved.step}-{random.randrange(1 << 40)}"
        folder.mkdir()
        inputs = self.job.inputs | {"checkpoint": saved.file}
        job = msgspec.structs.replace(self.job, inputs=inputs, files=saved.outputs, folder=str(folder), **changes)
        watched = Watched(self.children)
        watched.child.send(job)
        return watched

    def some(self, count):
        """Checkpoints within epochs and at their ends, the first and the last among them."""
        chosen = random.Random(count).sample(self.saved[1:-1], min(count, len(self.saved) - 2))
        return [self.saved[0], *chosen, self.saved[-1]]

    def same(self, watched):
        done, result, outcome = finished(watched)
        assert result == self.result
        assert outcome == self.outcome
        assert (done.epochs, done.metrics, done.stopped_early) == (self.done.epochs, self.done.metrics, self.done.stopped_early)
        return done


def finished(watched):
    ended = watched.exit(within=90)
    assert (ended.code, ended.signal) == (0, 0), (watched.frames[-3:], watched.lines)
    done = watched.frames[-1]
    assert isinstance(done, frames.Done), done
    return done, pathlib.Path(done.files["state"]).read_bytes(), json.loads(pathlib.Path(done.files["outcome"]).read_text())


@pytest.mark.parametrize("name", MODELS)
def test_it_ends_as_if_it_had_not_been_cut(children, tmp_path, name):
    keras.utils.set_random_seed(3)
    model, x = MODELS[name]()
    # Labels that nothing can be learnt from: both callbacks have something to do.
    whole = Undisturbed(children, tmp_path, model, x, labels(), epochs=8, batch_size=20, validation_split=0.25, callbacks=watchful())
    for saved in whole.some(3):
        resumed = whole.resumed(saved)
        whole.same(resumed)
        ready = resumed.frames[0]
        assert (ready.epoch, ready.step) == (saved.epoch, saved.step)
        again = [frame for frame in resumed.frames if isinstance(frame, frames.Epoch)]
        expected = [frame for frame in whole.epochs if frame.epoch >= saved.epoch]
        assert [(f.epoch, f.step, f.metrics) for f in again] == [(f.epoch, f.step, f.metrics) for f in expected]


FITS = {
    "in the order of the arrays": {"shuffle": False, "batch_size": 16},
    "with class weights": {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}, "batch_size": 20},
    "passes over several epochs": {"steps_per_epoch": 2, "batch_size": 20},
    "passes that end within an epoch": {"steps_per_epoch": 3, "batch_size": 20},
    "executions that take more than an epoch's batches": {"steps_per_epoch": 3, "batch_size": 20},
    "later epochs": {"initial_epoch": 2, "batch_size": 20},
    "validation now and then": {"validation_freq": 2, "batch_size": 20},
}


@pytest.mark.parametrize("how", FITS)
def test_it_goes_on_whatever_way_the_data_are_passed(children, tmp_path, how):
    keras.utils.set_random_seed(3)
    model, x = accumulating() if how.startswith("executions") else mlp()
    whole = Undisturbed(children, tmp_path, model, x, labels(), epochs=6, validation_data=(x[:10], labels()[:10]), **FITS[how])
    for saved in whole.some(2):
        whole.same(whole.resumed(saved))


@pytest.mark.parametrize(("steps", "made", "repeats"), [(None, mlp, 1), (3, mlp, 1), (3, accumulating, -1)])
def test_a_dataset_goes_on_at_its_next_batch(children, tmp_path, steps, made, repeats):
    keras.utils.set_random_seed(3)
    model, x = made()
    dataset = tf.data.Dataset.from_tensor_slices((x, labels())).batch(20).repeat(repeats)
    whole = Undisturbed(children, tmp_path, model, dataset, epochs=5, steps_per_epoch=steps)
    for saved in whole.some(2):
        whole.same(whole.resumed(saved))
    if repeats < 0:  # plain `fit` takes as much of it
        assert model.fit(dataset, epochs=5, steps_per_epoch=steps, shuffle=False, verbose=0).history == whole.outcome["history"]


def test_files_of_callbacks_are_those_of_an_undisturbed_training(children, tmp_path):
    keras.utils.set_random_seed(3)
    model, x = mlp()
    callbacks = [
        keras.callbacks.ModelCheckpoint("out/best.keras", monitor="loss", save_best_only=True),
        keras.callbacks.ModelCheckpoint("every-{epoch:02d}-{batch}.keras", save_freq=3),
        keras.callbacks.CSVLogger("log.csv"),
        keras.callbacks.BackupAndRestore("backup", delete_checkpoint=False),
    ]
    whole = Undisturbed(children, tmp_path, model, x, labels(), epochs=4, batch_size=20, callbacks=callbacks)
    assert {"out/best.keras", "log.csv", "every-01-3.keras"} <= whole.done.outputs.keys()
    for saved in whole.some(2):
        done = whole.same(whole.resumed(saved))
        assert done.outputs.keys() == whole.done.outputs.keys()
        rows = []
        for outputs in (done.outputs, whole.done.outputs):
            with open(outputs["log.csv"]) as file:
                rows.append(list(csv.DictReader(file)))
        assert rows[0] == rows[1]
        for path in ("out/best.keras", "every-01-3.keras"):
            mine, other = (keras.saving.load_model(outputs[path]).get_weights() for outputs in (done.outputs, whole.done.outputs))
            assert all(np.array_equal(a, b) for a, b in zip(mine, other, strict=True))


def test_each_point_of_tensorboard_is_written_once_wherever_it_was_cut(children, tmp_path):
    keras.utils.set_random_seed(3)
    model, x = mlp()
    board = keras.callbacks.TensorBoard("logs", update_freq="batch")
    whole = Undisturbed(children, tmp_path, model, x, labels(), epochs=3, batch_size=20, validation_split=0.2, callbacks=[board])
    points = points_of(whole.done.outputs)
    assert {("logs/train", "batch_loss", 12), ("logs/train", "epoch_loss", 2), ("logs/validation", "epoch_loss", 0)} <= points.keys()
    for saved in (saved for saved in whole.saved if (saved.epoch, saved.step) in {(0, 2), (2, 0)}):
        assert points_of(whole.same(whole.resumed(saved)).outputs) == points


def points_of(outputs):
    """Folder, tag and step of each point in the event files → its values."""
    points = {}
    for path, file in sorted(outputs.items()):
        for record in tf.data.TFRecordDataset(file).as_numpy_iterator():
            event = event_pb2.Event.FromString(record)
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars" or value.tag.startswith(("batch_", "epoch_")):
                    points.setdefault((os.path.dirname(path), value.tag, event.step), []).append(tf.make_ndarray(value.tensor).item())
    assert all(len(values) == 1 for values in points.values()), points
    return points


def test_killed_twice_at_any_step_it_ends_the_same(children, tmp_path):
    keras.utils.set_random_seed(3)
    model, x = cnn()
    chance = random.Random(5)
    whole = Undisturbed(children, tmp_path, model, x, labels(), epochs=4, batch_size=20, callbacks=watchful())
    saved = whole.saved[0]
    for _ in range(2):
        watched = whole.resumed(saved)
        wanted = chance.randrange(2, 5)
        watched.wait(lambda watched=watched, wanted=wanted: len(saved_of(watched)) >= wanted, "no checkpoints were written", 60)
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile: a busy machine
            os.kill(watched.child.pid, signal.SIGKILL)
        watched.exit()
        saved = saved_of(watched)[-1]
    whole.same(whole.resumed(saved))


def saved_of(watched):
    return [frame for frame in watched.frames if isinstance(frame, frames.Saved)]


def test_suspended_it_writes_a_checkpoint_after_the_batch_and_goes_on_elsewhere(children, tmp_path):
    keras.utils.set_random_seed(3)
    model, x = mlp()
    rarely = frames.Cadence(every_s=1000.0, gap_s=1000.0)
    whole = Undisturbed(children, tmp_path, model, x, labels(), epochs=100, batch_size=20, cadence=rarely)
    assert whole.saved == []
    watched = Watched(children)
    watched.child.send(msgspec.structs.replace(whole.job, folder=str(tmp_path)))
    watched.frame(frames.Epoch, within=60)
    watched.child.send(frames.Suspend())
    assert watched.exit().code == 0
    saved, last = watched.frames[-2:]
    assert isinstance(last, frames.Suspended)
    assert isinstance(saved, frames.Saved)
    assert 0 < saved.epoch < 100
    whole.same(whole.resumed(saved))


def test_published_it_gives_what_the_checkpoint_has_and_ends_as_a_stop_would(children, tmp_path):
    keras.utils.set_random_seed(3)
    model, x = mlp()
    whole = Undisturbed(children, tmp_path, model, x, labels(), epochs=6, batch_size=20, validation_split=0.25, callbacks=watchful()[:1])
    saved = next(frame for frame in whole.saved if (frame.epoch, frame.step) == (3, 1))
    done, _, outcome = finished(whole.resumed(saved, publish=True))
    assert (done.stopped_early, done.epochs) == (True, 3)
    assert outcome["epoch"] == [0, 1, 2]
    assert outcome["history"] == {name: values[:3] for name, values in whole.outcome["history"].items()}
    assert done.metrics == whole.epochs[2].metrics


def test_published_in_its_first_epoch_it_has_the_averaged_weights_that_a_stop_would_give(children, tmp_path):
    keras.utils.set_random_seed(3)
    model, x = lstm()
    whole = Undisturbed(children, tmp_path, model, x, labels(), batch_size=20)
    saved = whole.saved[1]
    assert (saved.epoch, saved.step) == (0, 2)
    done, _, outcome = finished(whole.resumed(saved, publish=True))
    assert (done.stopped_early, done.epochs, outcome["epoch"]) == (True, 0, [])
    state.load_into(model, model.optimizer, saved.file)
    raw = model.get_weights()
    model.optimizer.finalize_variable_values(model.trainable_weights)
    averaged = model.get_weights()
    state.load_into(model, model.optimizer, done.files["state"])
    for ours, mean, last in zip(model.get_weights(), averaged, raw, strict=True):
        np.testing.assert_array_equal(ours, mean)
        assert not np.array_equal(mean, last)


def test_changes_are_applied_again_where_they_were_applied_before(children, tmp_path):
    keras.utils.set_random_seed(3)
    model, x = mlp()
    change = [frames.Change(1, 3, {"learning_rate": 0.3}), frames.Change(2, 0, {"learning_rate": 0.001})]
    whole = Undisturbed(children, tmp_path, model, x, labels(), epochs=3, batch_size=20)
    changed = Watched(children)
    changed.child.send(msgspec.structs.replace(whole.job, folder=str(tmp_path / "changed"), changes=change))
    (tmp_path / "changed").mkdir()
    done, result, _ = finished(changed)
    assert result != whole.result
    around = {(1, 1), (1, 3), (1, 4), (2, 0), (2, 1)}  # before, between and behind the changes
    for saved in (saved for saved in saved_of(changed) if (saved.epoch, saved.step) in around):
        later = [c for c in change if (c.epoch, c.step) > (saved.epoch, saved.step)]
        _, again, _ = finished(whole.resumed(saved, changes=later))
        assert again == result, saved
    assert done.epochs == 3


def test_checkpoints_take_no_more_than_their_share_and_not_the_last_epoch(children, tmp_path):
    model, x = mlp()
    whole = Undisturbed(children, tmp_path, model, x, labels(), epochs=40, cadence=frames.Cadence(every_s=1000, gap_s=0.2, share=1.0))
    seconds = sum(frame.seconds for frame in whole.epochs)
    assert len(whole.saved) <= seconds / 0.2 + 1
    every = Undisturbed(children, tmp_path / "b", model, x, labels(), epochs=5, cadence=frames.Cadence(every_s=1000, gap_s=0, share=1.0))
    assert [(frame.epoch, frame.step) for frame in every.saved] == [(1, 0), (2, 0), (3, 0), (4, 0)]
    assert [frame.metric for frame in every.saved] == ["loss"] * 4
    assert [frame.value for frame in every.saved] == [frame.metrics["loss"] for frame in every.epochs[:4]]


def test_a_disk_that_is_full_costs_checkpoints_and_not_the_training(children, tmp_path):
    keras.utils.set_random_seed(3)
    model, x = mlp()
    often = frames.Cadence(every_s=1000, gap_s=0.05, share=1.0)
    whole = Undisturbed(children, tmp_path, model, x, labels(), epochs=120, cadence=often)
    watched = Watched(children)
    pid = wait_until(lambda: watched.child.pid, "it was not forked")
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1000, hard))
    (tmp_path / "full").mkdir()
    watched.child.send(msgspec.structs.replace(whole.job, folder=str(tmp_path / "full")))
    watched.wait(lambda: [text for text, _ in watched.lines if text.startswith("No checkpoint of epoch")], "no failure was told", 60)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    whole.same(watched)


def test_what_tensorboard_remembers_of_its_speed_goes_along(tmp_path):
    model, _ = mlp()
    model.optimizer.iterations.assign(7)
    board, fresh = (keras.callbacks.TensorBoard(str(tmp_path), write_steps_per_second=True) for _ in range(2))
    board.set_model(model)
    board.on_epoch_begin(0)
    states, arrays = callback_state.collect([board])
    callback_state.restore([fresh], json.loads(json.dumps(states)), arrays)
    assert fresh._previous_epoch_iterations == 7.0


def test_a_state_that_is_no_json_costs_checkpoints_and_not_the_training(tmp_path, capsys):
    model, x = mlp()
    history, odd = keras.callbacks.History(), keras.callbacks.SwapEMAWeights()
    odd._ema_weights_in_model = {"a set"}
    told = []
    checkpointer = Checkpointer(told.append, str(tmp_path), EVERY_BATCH)
    checkpointer.watch([history, odd], Passes(3))
    model.fit(x, labels(), epochs=2, verbose=0, callbacks=[history, checkpointer])
    assert (history.epoch, told, list(tmp_path.iterdir())) == ([0, 1], [], [])
    assert "No checkpoint of epoch 1, step 0 could be written: " in capsys.readouterr().err
    odd._ema_weights_in_model = True
    model.fit(x, labels(), epochs=1, verbose=0, callbacks=[history, checkpointer])
    assert [(frame.epoch, frame.step) for frame in told] == [(0, 1), (0, 2)]


def test_what_is_no_checkpoint_of_this_task_is_a_matter_of_the_store(children, tmp_path):
    keras.utils.set_random_seed(3)
    model, x = mlp()
    whole = Undisturbed(children, tmp_path, model, x, labels(), epochs=2, batch_size=20, callbacks=watchful()[1:])
    other = jobs.job(tmp_path / "other", mlp()[0], x, labels(), epochs=2, batch_size=20)
    for job in (
        msgspec.structs.replace(other, inputs=other.inputs | {"checkpoint": whole.saved[0].file}),  # other callbacks
        msgspec.structs.replace(other, inputs=other.inputs | {"checkpoint": other.inputs["state"]}),  # a state, no checkpoint
        msgspec.structs.replace(
            whole.job, inputs=whole.job.inputs | {"checkpoint": whole.saved[0].file}, files={"callback-7/../../x": other.inputs["state"]}
        ),
    ):
        watched = Watched(children)
        watched.child.send(job)
        watched.exit(within=60)
        error = watched.frames[-1]
        assert isinstance(error, frames.Error), error
        assert error.reason == "store"


def test_what_numpy_made_comes_back_as_numpy_and_nothing_else_is_set():
    stopping = keras.callbacks.EarlyStopping()
    stopping.best, stopping.best_weights, stopping.wait = np.float32(0.1), [np.arange(3.0)], 7
    states, arrays = callback_state.collect([stopping])
    states = json.loads(json.dumps(states))
    states[0]["monitor"] = "accuracy"
    fresh = keras.callbacks.EarlyStopping()
    callback_state.restore([fresh], states, arrays)
    assert (type(fresh.best), fresh.best, fresh.wait, fresh.monitor) == (np.float32, np.float32(0.1), 7, "val_loss")
    assert np.array_equal(fresh.best_weights[0], [0.0, 1.0, 2.0])
