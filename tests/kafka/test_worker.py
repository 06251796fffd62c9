"""Real workers on the real broker: claims, takeovers, cancels, deaths, shutdowns."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
from collections.abc import Iterator

import pytest

from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import control, topics
from kafka_jupyter.protocol.task import Requirements
from kafka_jupyter.runs.state import RunState, State
from kafka_jupyter.settings import Settings
from tests.support.training import Submission, mlp, submit, task_of
from tests.support.waiting import wait_until
from tests.support.workers import Workers, workers

READY_S = 40  # a worker imports TensorFlow first


@pytest.fixture
def log(settings: Settings) -> Iterator[Log]:
    with contextlib.closing(Log.open(Cluster(settings), create=True)) as log:
        yield log


@pytest.fixture
def follower(log: Log) -> Iterator[Follower]:
    follower = Follower(log)
    follower.start()
    with contextlib.closing(follower):
        yield follower


@pytest.fixture
def boxes(settings: Settings, log: Log, tmp_path: pathlib.Path) -> Iterator[Workers]:
    """Workers with a short lease, so that silence is noticed within a test."""
    with workers(settings.replace(lease_ttl_s=3.0), tmp_path / "workers") as started:
        yield started
        for worker in started.all:
            print(f"--- {worker.name}\n{worker.log[-4000:]}")  # shown where a test fails


def state_of(follower: Follower, run: Submission) -> RunState:
    state = follower.state(run.run_id)
    assert state is not None
    return state


def ended(follower: Follower, run: Submission, within: float = READY_S) -> RunState:
    reached = follower.wait(lambda: (s := follower.state(run.run_id)) is not None and s.terminal and follower.has_all_rows(run.run_id), within)
    assert reached, f"{run.run_id} did not end: {follower.state(run.run_id)}"
    return state_of(follower, run)


def running(follower: Follower, run: Submission, epochs: int = 1) -> RunState:
    """Until the run has ended its first epoch(s)."""
    wait_until(
        lambda: (s := follower.state(run.run_id)) is not None and s.state is State.RUNNING and len(follower.history(run.run_id).epochs) >= epochs,
        f"{run.run_id} never got going: {follower.state(run.run_id)}",
        within=READY_S,
    )
    return state_of(follower, run)


def child_pid(follower: Follower, log: Log, run: Submission) -> int:
    place = log.topics.place(topics.RUN_CONTROL, run.run_id)
    pids = [
        record.pid
        for message in log.read_range(place, 0, None)
        if isinstance(record := log.decode(message), control.Started) and record.run_id == run.run_id
    ]
    return pids[-1]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_worker_trains_a_run_and_its_metrics_come_epoch_by_epoch(log: Log, follower: Follower, boxes: Workers) -> None:
    boxes.start()
    run = submit(log, epochs=4)
    state = ended(follower, run)
    assert state.state is State.SUCCEEDED
    assert isinstance(state.end, control.Succeeded)
    assert state.end.epochs == 4
    assert set(state.end.parts) == {"state", "outcome"}
    metrics = follower.history(run.run_id).metrics()
    assert len(metrics["loss"]) == 4
    assert metrics["loss"][-1] < metrics["loss"][0]
    assert state.end.metrics["loss"] == metrics["loss"][-1]


def test_twenty_runs_on_three_workers_all_succeed_exactly_once(log: Log, follower: Follower, boxes: Workers) -> None:
    for name in ("a", "b", "c"):
        boxes.start(name)
    wait_until(lambda: len(follower.workers()) == 3, "the workers never came", within=READY_S)
    runs = [submit(log, f"run{i}", epochs=1) for i in range(20)]
    states = [ended(follower, run, within=90) for run in runs]
    assert {str(state.state) for state in states} == {"SUCCEEDED"}
    assert [state.last_n for state in states] == [1] * 20
    ends = [
        record.run_id
        for place in log.topics.all_places(topics.RUN_CONTROL)
        for message in log.read_range(place, 0, None)
        if isinstance(record := log.decode(message), control.Succeeded)
    ]
    assert sorted(ends) == sorted(run.run_id for run in runs)
    assert len({state.starts[-1].worker for state in states}) > 1


def test_when_a_worker_is_killed_another_one_finishes_the_run(log: Log, follower: Follower, boxes: Workers) -> None:
    boxes.start("first")
    run = submit(log, epochs=200, rows=1797)
    state = running(follower, run)
    boxes.start("second")
    wait_until(lambda: len(follower.workers()) == 2, "the second worker never came", within=READY_S)
    assert state.open is not None
    pid = child_pid(follower, log, run)
    boxes.all[0].kill()
    wait_until(lambda: gone(pid), "the child outlived its supervisor")
    wait_until(lambda: state_of(follower, run).last_n == 2, "nobody took the run over", within=20)
    state = ended(follower, run, within=60)
    assert state.state is State.SUCCEEDED
    assert [start.n for start in state.starts] == [1, 2]
    assert [row.epoch for row in follower.history(run.run_id).epochs] == list(range(200))


def test_cancel_kills_the_child_and_ends_the_run(log: Log, follower: Follower, boxes: Workers) -> None:
    boxes.start()
    run = submit(log, epochs=100_000)
    running(follower, run)
    pid = child_pid(follower, log, run)
    run.cancel()
    assert ended(follower, run, within=5).state is State.CANCELLED
    assert gone(pid)


def test_cancel_of_a_queued_run_needs_no_worker(log: Log, follower: Follower) -> None:
    run = submit(log)
    run.cancel()
    assert ended(follower, run, within=5).state is State.CANCELLED


def test_stop_ends_after_the_batch_and_keeps_the_weights_so_far(log: Log, follower: Follower, boxes: Workers) -> None:
    boxes.start()
    run = submit(log, epochs=100_000)
    running(follower, run)
    run.stop()
    state = ended(follower, run, within=10)
    assert state.state is State.SUCCEEDED
    assert isinstance(state.end, control.Succeeded)
    assert state.end.stopped_early
    assert "state" in state.end.parts


def test_an_exception_in_training_fails_the_run_at_once_with_its_traceback(log: Log, follower: Follower, boxes: Workers) -> None:
    boxes.start()
    model = mlp(loss="binary_crossentropy")  # labels (n,) against logits (n, 10)
    run = submit(log, model=model)
    state = ended(follower, run)
    assert state.state is State.FAILED
    assert state.last_n == 1
    assert isinstance(state.end, control.Failed)
    assert "Traceback" in state.end.traceback
    again = submit(log)
    assert ended(follower, again).state is State.SUCCEEDED


def test_a_child_that_is_killed_again_and_again_makes_the_run_dead_with_the_signal(log: Log, follower: Follower, boxes: Workers) -> None:
    boxes.start()
    run = submit(log, epochs=100_000)
    for attempt in (1, 2, 3):
        wait_until(
            lambda attempt=attempt: (s := state_of(follower, run)).state is State.RUNNING and s.last_n == attempt,
            f"attempt {attempt} never ran: {state_of(follower, run)}",
            within=READY_S,
        )
        os.kill(child_pid(follower, log, run), signal.SIGKILL)
    state = ended(follower, run)
    assert state.state is State.DEAD
    assert state.last_failure is not None
    assert state.last_failure.signal == signal.SIGKILL
    place = log.topics.place(topics.TASK_DLQ, run.run_id)
    wait_until(lambda: [m for m in log.read_range(place, 0, None) if m.key == run.run_id.encode()], "no letter in task_dlq")


def test_sigterm_hands_the_run_over_and_says_goodbye(log: Log, follower: Follower, boxes: Workers) -> None:
    first = boxes.start("first")
    run = submit(log, epochs=300, rows=1797)
    running(follower, run)
    assert first.terminate() == 0
    wait_until(lambda: state_of(follower, run).state is State.QUEUED, f"the run was not released: {state_of(follower, run)}")
    wait_until(lambda: not follower.workers(), "the worker did not say goodbye")
    boxes.start("second")
    assert ended(follower, run, within=60).state is State.SUCCEEDED


def test_a_run_waits_for_a_worker_that_has_what_it_needs(log: Log, follower: Follower, boxes: Workers) -> None:
    boxes.start()
    wait_until(lambda: follower.workers(), "the worker never came", within=READY_S)
    needy = submit(log, task=task_of(mlp(), "needy", 64, 1, requirements=Requirements(keras="2.4.0")))
    other = submit(log)
    assert ended(follower, other).state is State.SUCCEEDED
    assert state_of(follower, needy).state is State.QUEUED
    assert "keras 2.4" in str(follower.card(needy.run_id)["waiting"])


def test_a_worker_that_sleeps_longer_than_its_lease_changes_nothing_when_it_wakes(log: Log, follower: Follower, boxes: Workers) -> None:
    sleeper = boxes.start("sleeper")
    run = submit(log, epochs=400, rows=1797)
    running(follower, run)
    boxes.start("second")
    wait_until(lambda: len(follower.workers()) == 2, "the second worker never came", within=READY_S)
    sleeper.pause()
    wait_until(lambda: state_of(follower, run).last_n == 2, "nobody took the run over", within=20)
    sleeper.go_on()
    state = ended(follower, run, within=60)
    assert state.state is State.SUCCEEDED
    assert state.starts[-1].n == 2
    assert [row.epoch for row in follower.history(run.run_id).epochs] == list(range(400))


def test_junk_in_the_task_topic_goes_to_the_dlq_and_stops_nobody(log: Log, follower: Follower, boxes: Workers) -> None:
    boxes.start()
    log.send(topics.TASK, "junk-1", b"\xff\x00 no task")
    run = submit(log)
    assert ended(follower, run).state is State.SUCCEEDED
    place = log.topics.place(topics.TASK_DLQ, "junk-1")
    wait_until(lambda: [m for m in log.read_range(place, 0, None) if m.key == b"junk-1"], "no letter in task_dlq")


def test_a_task_without_submitted_is_trained_all_the_same(log: Log, follower: Follower, boxes: Workers) -> None:
    boxes.start()
    task = task_of(mlp(), "orphan", 64, 1)
    log.write_task(task)
    run = Submission(log, task.run_id, task)
    wait_until(lambda: follower.state(run.run_id), "nobody claimed the orphan", within=READY_S)
    assert ended(follower, run).state is State.SUCCEEDED


def test_a_model_that_is_not_allowed_is_refused_before_keras_sees_it(log: Log, follower: Follower, boxes: Workers) -> None:
    import msgspec

    from kafka_jupyter.protocol.parts import InlineText

    boxes.start()
    task = task_of(mlp(), "evil", 64, 1)
    assert isinstance(task.model.config, InlineText)
    evil = task.model.config.text.replace('"Dense"', '"Lambda"')
    assert evil != task.model.config.text
    model = msgspec.structs.replace(task.model, config=InlineText(evil))
    run = submit(log, task=msgspec.structs.replace(task, model=model))
    state = ended(follower, run)
    assert state.state is State.FAILED
    assert isinstance(state.end, control.Failed)
    assert state.end.reason == "refused"
    assert "Lambda" in state.end.message
