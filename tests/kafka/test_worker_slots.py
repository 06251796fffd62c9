"""One worker process with two slots: two runs at once, and what happens to one is nothing to the other."""

from __future__ import annotations

import os
import signal

import pytest

from kafka_jupyter.protocol import control
from kafka_jupyter.runs.state import State
from tests.kafka.conftest import NO_CHECKPOINTS
from tests.support.scene import Scene
from tests.support.training import endless, submit
from tests.support.waiting import wait_until


@pytest.fixture
def two_slots(own: Scene) -> Scene:
    own.workers.start("two", slots=2, more_env=NO_CHECKPOINTS)
    own.workers_there(1)
    return own


def test_a_worker_with_two_slots_trains_two_runs_at_once(two_slots: Scene) -> None:
    runs = [endless(two_slots.log, name) for name in ("left", "right")]
    states = [two_slots.running(run) for run in runs]
    assert {state.state for state in states} == {State.RUNNING}
    assert len({two_slots.child_pid(run) for run in runs}) == 2
    third = submit(two_slots.log, "third", epochs=1)
    wait_until(
        lambda: [(info.slots, info.free, len(info.running)) for info in two_slots.follower.workers()] == [(2, 0, 2)],
        "the worker does not say that it is busy",
    )
    assert two_slots.state(third).state is State.QUEUED
    assert "free slot" in str(two_slots.follower.card(third.run_id)["waiting"])
    epochs = [len(two_slots.follower.history(run.run_id).epochs) for run in runs]
    for run, before in zip(runs, epochs, strict=True):
        two_slots.running(run, before + 3)
        run.stop()
    for run in (*runs, third):
        assert two_slots.ended(run).state is State.SUCCEEDED


def test_a_child_that_crashes_again_and_again_is_nothing_to_the_run_beside_it(two_slots: Scene) -> None:
    calm = endless(two_slots.log, "calm")
    two_slots.running(calm)
    crashing = endless(two_slots.log, "crashing")
    for attempt in (1, 2, 3):
        two_slots.reached(crashing, attempt)
        os.kill(two_slots.child_pid(crashing), signal.SIGSEGV)
        if attempt < 3:
            two_slots.reached(crashing, attempt + 1)
    state = two_slots.ended(crashing)
    assert (state.state, state.last_n) == (State.DEAD, 3)
    failures = [record for record in two_slots.records(crashing) if isinstance(record, control.Failed)]
    assert [(failed.retryable, failed.reason, failed.signal) for failed in failures] == [(True, "signal", signal.SIGSEGV)] * 3
    wait_until(lambda: any(isinstance(record, control.Dead) for record in two_slots.records(crashing)), "no Dead in run_control")
    assert two_slots.letters(crashing.run_id), "no letter in task_dlq"
    (dead,) = (record for record in two_slots.records(crashing) if isinstance(record, control.Dead))
    assert "signal 11" in dead.reason
    two_slots.running(calm, len(two_slots.follower.history(calm.run_id).epochs) + 3)
    calm.stop()
    state = two_slots.ended(calm)
    assert (state.state, state.last_n) == (State.SUCCEEDED, 1)
