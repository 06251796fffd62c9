"""Runs that real workers pause with a checkpoint: the slot is free, any worker goes on there, a retry does too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kafka_jupyter import errors
from kafka_jupyter.client import Client, TrainingRun
from kafka_jupyter.protocol import control
from kafka_jupyter.runs.state import RunState, State
from tests.support.pace import paced
from tests.support.scene import READY_S, Scene, gone
from tests.support.training import Submission, endless, submit
from tests.support.waiting import wait_until

EPOCHS = 60


@pytest.fixture
def client(shared: Scene) -> Iterator[Client]:
    client = Client(shared.settings)
    yield client
    for run in client.runs():
        run.cancel()
    client.close()


def pause(scene: Scene, client: Client, run: Submission, epochs: int = 2) -> TrainingRun:
    """The run, paused behind some epochs."""
    scene.running(run, epochs)
    asked = client.attach(run.run_id)
    asked.pause()
    wait_until(lambda: asked.state == scene.state(run).state == "PAUSED", f"{asked!r} was never paused", within=READY_S)
    return asked


def place(state: RunState) -> tuple[int, int]:
    """Of its newest checkpoint."""
    newest = state.checkpoints[-1]
    return newest.epoch, newest.step


def starts(scene: Scene, run_id: str) -> list[tuple[int, int]]:
    return [(record.epoch, record.step) for record in scene.log_records(run_id) if isinstance(record, control.Started)]


def test_a_paused_run_leaves_a_checkpoint_and_its_slot(shared: Scene, client: Client) -> None:
    run = endless(shared.log, "pausing")
    asked = pause(shared, client, run)
    state = shared.state(run)
    assert isinstance(state.last_release, control.Released)
    assert state.last_release.reason == "pause"
    assert place(state) >= (2, 0)
    assert asked.card()["checkpoint"] == dict(zip(("epoch", "step"), place(state), strict=True))
    assert gone(shared.child_pid(run))
    other = submit(shared.log, "other", epochs=1)
    assert shared.ended(other).state is State.SUCCEEDED, "the worker has one slot, and it is free"
    assert asked.state == "PAUSED"


def test_a_learning_rate_holds_over_a_pause_and_one_asked_for_meanwhile_begins_with_the_resume(shared: Scene, client: Client) -> None:
    run = endless(shared.log, "rate")
    shared.running(run)
    asked = client.attach(run.run_id)
    assert asked.set(learning_rate=0.25, timeout=20) is not None
    pause(shared, client, run, epochs=1)
    asked.set(learning_rate=0.125)
    asked.resume()
    state = wait_until(lambda: s if len((s := shared.state(run)).applications) == 2 else None, "it was never applied", within=READY_S)
    assert [answer.settings for answer in state.applications] == [{"learning_rate": 0.25}, {"learning_rate": 0.125}]
    assert state.applications[1].n == 2


def test_resuming_before_it_has_paused_lets_it_train_on(shared: Scene, client: Client) -> None:
    run = endless(shared.log, "wavering")
    shared.running(run)
    asked = client.attach(run.run_id)
    asked.pause()
    asked.resume()
    state = shared.state(run)
    shared.running(run, len(shared.follower.history(run.run_id).epochs) + 5)
    assert shared.state(run).state is State.RUNNING, state


def test_a_paused_run_is_cancelled_by_the_request_itself_and_no_process_is_left(shared: Scene, client: Client) -> None:
    run = endless(shared.log, "cancelled")
    asked = pause(shared, client, run)
    asked.cancel()
    assert shared.ended(run).state is State.CANCELLED
    wait_until(lambda: asked.state == "CANCELLED", "the handle never heard of it")
    assert asked.card()["process"] == "gone"
    assert gone(shared.child_pid(run))


def test_a_cancelled_run_is_retried_from_its_checkpoint(shared: Scene, client: Client) -> None:
    run = submit(shared.log, "again", epochs=EPOCHS, callbacks=[paced()])
    asked = pause(shared, client, run)
    there = place(shared.state(run))
    asked.cancel()
    shared.ended(run)
    wait_until(lambda: asked.state == "CANCELLED", "the handle never heard of it")
    again = asked.retry()
    assert again.wait(READY_S).state == "SUCCEEDED"
    assert starts(shared, again.id) == [there]
    assert len(again.history["loss"]) == EPOCHS - there[0], "its own epochs; those before are the history of the run before"
    if there[1]:
        with pytest.raises(errors.BadWish, match="in the middle of epoch"):
            asked.retry(batch_size=16)


def test_a_retry_with_fewer_epochs_ends_there(shared: Scene, client: Client) -> None:
    run = endless(shared.log, "shorter")
    asked = pause(shared, client, run)
    there = place(shared.state(run))
    asked.cancel()
    shared.ended(run)
    wait_until(lambda: asked.state == "CANCELLED", "the handle never heard of it")
    with pytest.raises(errors.BadWish, match="goes on behind epoch"):
        asked.retry(epochs=there[0])
    again = asked.retry(epochs=there[0] + 3)
    assert again.wait(READY_S).state == "SUCCEEDED"
    assert again.card()["epochs_done"] == there[0] + 3
