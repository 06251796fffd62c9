"""Several workers on the real broker: who takes what, and what happens when one is killed, put to sleep or told to go."""

from __future__ import annotations

from kafka_jupyter.protocol import control
from kafka_jupyter.runs.state import State
from tests.support.scene import Scene, gone
from tests.support.training import submit
from tests.support.waiting import wait_until


def test_twenty_runs_on_three_workers_all_succeed_exactly_once(own: Scene) -> None:
    for name in ("a", "b", "c"):
        own.workers.start(name)
    own.workers_there(3)
    runs = [submit(own.log, f"run{i}", epochs=1) for i in range(20)]
    states = [own.ended(run, within=90) for run in runs]
    assert {str(state.state) for state in states} == {"SUCCEEDED"}
    assert [state.last_n for state in states] == [1] * 20
    for run in runs:
        assert [type(record) for record in own.records(run)].count(control.Succeeded) == 1
    assert len({state.starts[-1].worker for state in states}) > 1


def test_when_a_worker_is_killed_another_one_finishes_the_run(own: Scene) -> None:
    _two_workers(own)
    run = submit(own.log, epochs=80, rows=1000)
    own.running(run)
    pid = own.child_pid(run)
    own.holder(run).kill()
    wait_until(lambda: gone(pid), "the child outlived its supervisor")
    own.reached(run, 2)
    state = own.ended(run)
    assert state.state is State.SUCCEEDED
    assert [start.n for start in state.starts] == [1, 2]
    assert len({start.worker for start in state.starts}) == 2
    assert [row.epoch for row in own.follower.history(run.run_id).epochs] == list(range(80))


def test_cancel_of_a_queued_run_needs_no_worker(own: Scene) -> None:
    run = submit(own.log)
    run.cancel()
    assert own.ended(run, within=5).state is State.CANCELLED


def test_sigterm_hands_the_run_over_and_says_goodbye(own: Scene) -> None:
    _two_workers(own)
    run = submit(own.log, epochs=80, rows=1000)
    own.running(run)
    holder = own.holder(run)
    assert holder.terminate() == 0
    own.workers_there(1)
    state = own.ended(run)
    assert state.state is State.SUCCEEDED
    assert state.last_n == 2
    released = [record for record in own.records(run) if isinstance(record, control.Released)]
    assert [record.reason for record in released] == ["shutdown"]


def test_a_worker_that_sleeps_longer_than_its_lease_changes_nothing_when_it_wakes(own: Scene) -> None:
    _two_workers(own)
    run = submit(own.log, epochs=80, rows=1000)
    own.running(run)
    sleeper, pid = own.holder(run), own.child_pid(run)
    sleeper.pause()
    own.reached(run, 2)
    sleeper.go_on()
    wait_until(lambda: gone(pid), "the sleeper's child goes on")
    state = own.ended(run)
    assert state.state is State.SUCCEEDED
    assert state.starts[-1].n == 2
    assert [row.epoch for row in own.follower.history(run.run_id).epochs] == list(range(80))


def _two_workers(scene: Scene) -> None:
    scene.workers.start("first")
    scene.workers.start("second")
    scene.workers_there(2)
