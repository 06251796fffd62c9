"""What people ask of runs that real workers train: other settings, cancel in every state, a new try."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kafka_jupyter import errors
from kafka_jupyter.client import Client, TrainingRun
from kafka_jupyter.protocol import control, ids
from kafka_jupyter.protocol.task import Requirements
from kafka_jupyter.runs.state import State
from tests.support.scene import READY_S, Scene, gone
from tests.support.training import Submission, endless, mlp, submit, task_of
from tests.support.waiting import wait_until

SOON_S = 30.0


@pytest.fixture
def client(shared: Scene) -> Iterator[Client]:
    client = Client(shared.settings)
    yield client
    for run in client.runs():
        run.cancel()
    client.close()


def handle(scene: Scene, client: Client, run: Submission) -> TrainingRun:
    scene.state(run)
    return client.attach(run.run_id)


def becomes(run: TrainingRun, state: str, within: float = SOON_S) -> None:
    wait_until(lambda: run.state == state, f"{run!r} never became {state}", within=within)


def nowhere(scene: Scene, name: str) -> Submission:
    """A run that no worker here can take."""
    return submit(scene.log, name, task=task_of(mlp(), name, 64, 1, requirements=Requirements(device="gpu")))


def test_a_learning_rate_is_changed_while_the_run_trains_and_the_answer_says_where(shared: Scene, client: Client) -> None:
    run = endless(shared.log, "rate")
    shared.running(run)
    asked = handle(shared, client, run)
    answer = asked.set(learning_rate=0.25, timeout=SOON_S)
    assert answer is not None
    assert answer.metrics == {"learning_rate": 0.25}
    state = wait_until(lambda: s if (s := shared.state(run)).applications else None, "the answer was never read")
    (applied,) = state.applications
    assert (applied.epoch, applied.step) == (answer.epoch, answer.step)
    assert asked.card()["applied"] == {"settings": {"learning_rate": 0.25}, "epoch": applied.epoch, "step": applied.step}
    asked.cancel()
    becomes(asked, "CANCELLED")


def test_a_queued_run_is_cancelled_and_so_is_a_paused_one(shared: Scene, client: Client) -> None:
    for paused in (False, True):
        asked = handle(shared, client, nowhere(shared, "queued"))
        if paused:
            asked.pause()
            becomes(asked, "PAUSED")
        asked.cancel()
        becomes(asked, "CANCELLED")
        assert asked.card()["process"] == "none"


def test_a_paused_run_that_waits_is_taken_by_nobody_until_it_is_resumed(shared: Scene, client: Client) -> None:
    blocking = endless(shared.log, "blocking")
    shared.running(blocking)
    run = submit(shared.log, "rests", epochs=1)
    asked = handle(shared, client, run)
    asked.pause()
    becomes(asked, "PAUSED")
    client.attach(blocking.run_id).cancel()
    shared.ended(blocking)
    other = submit(shared.log, "later", epochs=1)
    assert shared.ended(other).state is State.SUCCEEDED
    assert asked.state == "PAUSED"
    asked.resume()
    assert shared.ended(run).state is State.SUCCEEDED


def test_a_run_is_cancelled_whenever_that_is_asked_after_its_claim_and_its_process_is_gone(shared: Scene, client: Client) -> None:
    for name, ready in (("claimed", lambda s: s.open is not None), ("running", lambda s: s.state is State.RUNNING)):
        run = endless(shared.log, name)
        wait_until(lambda run=run, ready=ready: ready(shared.state(run)), f"it was never {name}", within=READY_S)
        asked = handle(shared, client, run)
        asked.cancel()
        state = shared.ended(run)
        assert state.state is State.CANCELLED
        assert isinstance(state.end, control.Cancelled)
        becomes(asked, "CANCELLED")
        assert asked.card()["process"] == "gone"
        pids = [record.pid for record in shared.records(run) if isinstance(record, control.Started)]
        assert all(gone(pid) for pid in pids)


def test_a_lost_run_is_cancelled_by_the_request_itself(own: Scene) -> None:
    first = own.workers.start("first")
    own.workers_there(1)
    run = endless(own.log, "lost")
    own.running(run)
    own.workers.start("second")
    own.workers_there(2)
    other = endless(own.log, "other")
    own.running(other)  # the second worker has no slot left
    first.kill()
    wait_until(lambda: own.state(run).state is State.LOST, "it was never lost", within=READY_S)
    client = Client(own.settings)
    asked = client.attach(run.run_id)
    asked.cancel()
    becomes(asked, "CANCELLED")
    assert asked.card()["process"] == "cut off"
    client.close()


def test_a_worker_that_is_cut_off_ends_its_process_when_it_sees_that_the_run_was_cancelled(own: Scene) -> None:
    first = own.workers.start("first")
    own.workers_there(1)
    run = endless(own.log, "cut-off")
    own.running(run)
    pid = own.child_pid(run)
    own.workers.start("second")
    own.workers_there(2)
    first.pause()
    client = Client(own.settings)
    asked = client.attach(run.run_id)
    asked.cancel()
    becomes(asked, "CANCELLED", within=READY_S)
    assert asked.card()["process"] == "cut off"
    assert "its worker was cut off" in str(asked.error)
    assert not gone(pid)
    first.go_on()
    wait_until(lambda: gone(pid), "its process outlived the run", within=SOON_S)
    client.close()


def test_a_failed_run_is_trained_by_its_retry(shared: Scene, client: Client) -> None:
    task = task_of(mlp(), "again", 256, 3)
    wrong = {"check_loss": 123.0, "check_rtol": 1e-3}  # of another model: the first attempt ends FAILED, its retry is not asked
    shared.log.write_control(control.SettingsRequested(run_id=task.run_id, request_id=ids.new_request_id(), settings=wrong))
    run = submit(shared.log, "again", task=task)
    assert shared.ended(run).state is State.FAILED
    failed = handle(shared, client, run)
    again = failed.retry(epochs=2, learning_rate=0.0)
    assert failed.retry(epochs=2, learning_rate=0.0) == again
    assert again.wait(READY_S).state == "SUCCEEDED"
    assert len(again.history["loss"]) == 2
    state = client.connection().follower().state(again.id)
    assert state is not None
    assert state.submitted is not None
    assert state.submitted.retry_of == run.run_id
    assert [applied.settings for applied in state.applications] == [{"learning_rate": 0.0}]
    started = [record for record in shared.log_records(again.id) if isinstance(record, control.Started)]
    assert len(started) == 1, "asked for twice, it is one run"
    with pytest.raises(errors.CannotRetry, match="SUCCEEDED"):
        again.retry()
