"""A real worker on the real broker: trainings, cancels, deaths of children, tasks that cannot be trained."""

from __future__ import annotations

import importlib.metadata
import os
import signal
from typing import Any

import msgspec
import psutil
import pytest

from kafka_jupyter.protocol import control, topics
from kafka_jupyter.protocol.parts import InlineText
from kafka_jupyter.runs.state import State
from tests.support.scene import Scene, gone
from tests.support.training import ENDLESS, Submission, endless, mlp, submit, task_of
from tests.support.waiting import wait_until


def test_a_worker_trains_a_run_and_its_metrics_come_epoch_by_epoch(shared: Scene) -> None:
    run = submit(shared.log, epochs=4)
    state = shared.ended(run)
    assert state.state is State.SUCCEEDED
    assert isinstance(state.end, control.Succeeded)
    assert state.end.epochs == 4
    assert set(state.end.parts) == {"state", "outcome"}
    metrics = shared.follower.history(run.run_id).metrics()
    assert len(metrics["loss"]) == 4
    assert metrics["loss"][-1] < metrics["loss"][0]
    assert state.end.metrics["loss"] == metrics["loss"][-1]


def test_what_a_training_prints_stands_in_the_log_as_lines(shared: Scene) -> None:
    import keras

    patient = keras.callbacks.EarlyStopping(monitor="loss", patience=1, min_delta=1e6, verbose=1)
    run = submit(shared.log, epochs=5, callbacks=[keras.callbacks.ModelCheckpoint("best.keras", verbose=1), patient])
    shared.ended(run)
    lines = shared.follower.history(run.run_id).lines
    assert [line.text for line in lines if line.text.endswith("early stopping")] == ["Epoch 2: early stopping"]
    saved = [line for line in lines if "best.keras" in line.text]
    assert len(saved) >= 1
    assert {line.stream for line in saved} == {"stdout"}


def test_a_worker_says_what_it_is(shared: Scene) -> None:
    shared.workers_there(1)
    (info,) = shared.follower.workers()
    (worker,) = shared.workers.all
    assert (info.name, info.pid, info.slots, info.unfit) == ("shared", worker.process.pid, 1, "")
    assert info.versions["keras"] == importlib.metadata.version("keras")
    assert info.versions["backend"] == "tensorflow"
    assert info.versions["tensorflow"].startswith("2.")
    assert info.device in ("cpu", "gpu")
    assert info.memory > 1 << 30


def test_a_worker_tells_where_its_threads_are(shared: Scene) -> None:
    shared.workers_there(1)
    (worker,) = shared.workers.all
    worker.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: all(where in worker.log for where in ("in _loop", "prober.py", "in poll")), "it tells nothing")
    assert shared.ended(submit(shared.log, epochs=1)).state is State.SUCCEEDED


def test_cancel_kills_the_child_and_ends_the_run(shared: Scene) -> None:
    run = endless(shared.log)
    shared.running(run)
    pid = shared.child_pid(run)
    run.cancel()
    assert shared.ended(run, within=5).state is State.CANCELLED
    assert gone(pid)


def test_stop_ends_after_the_batch_and_keeps_the_weights_so_far(shared: Scene) -> None:
    run = submit(shared.log, epochs=ENDLESS)
    shared.running(run)
    run.stop()
    state = shared.ended(run, within=10)
    assert state.state is State.SUCCEEDED
    assert isinstance(state.end, control.Succeeded)
    assert state.end.stopped_early
    assert "state" in state.end.parts


def test_an_exception_in_training_fails_the_run_at_once_with_its_traceback(shared: Scene) -> None:
    model = mlp(loss="binary_crossentropy")  # labels (n,) against logits (n, 10)
    run = submit(shared.log, model=model)
    state = shared.ended(run)
    assert state.state is State.FAILED
    assert state.last_n == 1
    assert isinstance(state.end, control.Failed)
    assert "Traceback" in state.end.traceback
    again = submit(shared.log)
    assert shared.ended(again).state is State.SUCCEEDED


def test_a_child_that_is_killed_again_and_again_makes_the_run_dead_with_the_signal(shared: Scene) -> None:
    run = endless(shared.log)
    for attempt in (1, 2, 3):
        shared.reached(run, attempt)
        os.kill(shared.child_pid(run), signal.SIGKILL)
    state = shared.ended(run)
    assert state.state is State.DEAD
    assert state.last_failure is not None
    assert state.last_failure.signal == signal.SIGKILL
    wait_until(lambda: shared.letters(run.run_id), "no letter in task_dlq")


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ({"keras": "2.4.0"}, "no worker has keras 2.4 (it has 3."),
        ({"backend": "torch"}, "no worker has the backend torch (it has tensorflow)"),
        ({"backend_version": "1.15.0"}, "no worker has tensorflow 1.15 (it has 2."),
        ({"device": "gpu"}, "no worker has a GPU"),
        ({"memory": psutil.virtual_memory().total + (1 << 40)}, "GiB of memory (it has "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_run_waits_for_a_worker_that_has_what_it_needs(shared: Scene, needs: dict[str, Any], said: str) -> None:
    shared.workers_there(1)
    known = task_of(mlp(), "needy", 64, 1)
    needy = submit(shared.log, task=msgspec.structs.replace(known, requirements=msgspec.structs.replace(known.requirements, **needs)))
    other = submit(shared.log)
    assert shared.ended(other).state is State.SUCCEEDED
    assert shared.state(needy).state is State.QUEUED
    assert shared.state(needy).last_n == 0, "a worker that lacks something does not even try"
    card = shared.follower.card(needy.run_id)
    assert said in str(card["waiting"])
    assert "1 worker is there" in str(card["waiting"])
    needy.cancel()


def test_junk_in_the_task_topic_goes_to_the_dlq_and_stops_nobody(shared: Scene) -> None:
    shared.log.send(topics.TASK, "junk-1", b"\xff\x00 no task", "task")
    run = submit(shared.log)
    assert shared.ended(run).state is State.SUCCEEDED
    wait_until(lambda: shared.letters("junk-1"), "no letter in task_dlq")


def test_a_task_without_submitted_is_trained_all_the_same(shared: Scene) -> None:
    task = task_of(mlp(), "orphan", 64, 1)
    shared.log.write_task(task)
    run = Submission(shared.log, task.run_id, task)
    assert shared.ended(run).state is State.SUCCEEDED


def test_a_model_that_is_not_allowed_is_refused_before_keras_sees_it(shared: Scene) -> None:
    task = task_of(mlp(), "evil", 64, 1)
    assert isinstance(task.model.config, InlineText)
    evil = task.model.config.text.replace('"Dense"', '"Lambda"')
    assert evil != task.model.config.text
    model = msgspec.structs.replace(task.model, config=InlineText(evil))
    run = submit(shared.log, task=msgspec.structs.replace(task, model=model))
    state = shared.ended(run)
    assert state.state is State.FAILED
    assert isinstance(state.end, control.Failed)
    assert state.end.reason == "refused"
    assert "Lambda" in state.end.message
