"""An attempt that cannot go its way leaves its run to others, or says why it ends: with a real log, store and children, and no training."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
from collections.abc import Iterator

import pytest

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import control, ids, topics
from kafka_jupyter.settings import Settings
from kafka_jupyter.worker.attempt import DEATH_S, HAND_OVER_S, Phase
from kafka_jupyter.worker.children import Children
from kafka_jupyter.worker.farewell import CANCELLED_S
from kafka_jupyter.worker.supervisor import SHUTDOWN_S
from tests.support.attempts import attended
from tests.support.limits import take_at_most
from tests.support.refusing import Refusing, refusing_url
from tests.support.sites import a_site
from tests.support.training import mlp, submit, task_of
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    with contextlib.closing(Children(train="tests.support.entries:train", equipment="tests.support.entries:equipment")) as made:
        yield made


def test_a_worker_that_cannot_start_a_child_leaves_the_run_to_others(log: Log, settings: Settings, tmp_path: pathlib.Path) -> None:
    with (
        contextlib.closing(Children(train="no_such_module:main", equipment="tests.support.entries:equipment")) as children,
        a_site(log, settings, tmp_path, children) as (site, loop),
        attended(site, loop, submit(log)) as made,
    ):
        released = made.end()
        assert isinstance(released, control.Released)
        assert released.reason == "unfit"
        assert "No module named 'no_such_module'" in released.detail
        assert made.attempt.healthy is False


@pytest.mark.parametrize(("name", "phase"), [("done", Phase.STORING), ("paused", Phase.LEAVING)])
def test_told_to_go_while_the_store_is_away_a_worker_hands_over_in_time(
    log: Log, settings: Settings, children: Children, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str, phase: Phase
) -> None:
    monkeypatch.setattr(Refusing, "reading", True)
    away = settings.replace(store=refusing_url(tmp_path / "store"))
    run = submit(log, task=task_of(mlp(), name, 64, 1))
    with a_site(log, away, tmp_path, children) as (site, loop), attended(site, loop, run) as made:
        if name == "paused":
            made.until(Phase.TRAINING)
            run.say(control.PauseRequested(run_id=run.run_id, request_id=ids.new_request_id(), by="ada@test"))
        made.until(phase)
        wait_until(lambda: site.store.ls(), "nothing is stored")
        made.attempt.shut_down()
        made.turn(HAND_OVER_S / 2)
        assert made.attempt.phase is phase
        made.turn(HAND_OVER_S + 1)
        released = made.end()
        assert isinstance(released, control.Released)
        assert released.reason == ("pause" if name == "paused" else "shutdown")
    assert HAND_OVER_S < SHUTDOWN_S - 1


def test_a_cancelled_run_ends_although_kafka_does_not_take_its_rows_but_waits_for_them_while_kafka_is_away(
    log: Log, settings: Settings, children: Children, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    take_at_most(log, topics.TRAINING_LOG, 100)
    run = submit(log, task=task_of(mlp(), "speaking", 64, 1))
    with a_site(log, settings, tmp_path, children) as (site, loop), attended(site, loop, run) as made:
        wait_until(lambda: made.turn() or made.attempt._reporter.last_seq, "the child says nothing")
        run.cancel()
        made.until(Phase.ENDING)
        for second in range(3 * int(CANCELLED_S)):
            made.turn(second, knowing=False)
        assert not site.outbox.pending()
        for second in range(3 * int(CANCELLED_S), 4 * int(CANCELLED_S) + 2):
            made.turn(second)
        cancelled = made.end()
        assert isinstance(cancelled, control.Cancelled)
        assert cancelled.log_end is None
        assert "ends without its last 1 row(s)" in caplog.text


def test_a_child_that_does_not_die_costs_the_worker_its_slot_and_not_the_run(
    log: Log, settings: Settings, children: Children, tmp_path: pathlib.Path
) -> None:
    run = submit(log, task=task_of(mlp(), "silent", 64, 1))
    with a_site(log, settings.replace(stall_timeout_s=20), tmp_path, children) as (site, loop), attended(site, loop, run) as made:
        wait_until(lambda: made.turn() or made.attempt.healthy, "the child is not ready")
        forkserver = children.forkserver_pid
        os.kill(forkserver, signal.SIGSTOP)  # nobody kills the child, nobody tells of its end
        try:
            for second in range(20 + int(DEATH_S) - 4):
                made.turn(second)
            assert made.attempt.phase is Phase.TRAINING
            for second in range(20 + int(DEATH_S) - 4, 20 + int(DEATH_S) + 5):
                made.turn(second)
            failed = made.end()
            assert isinstance(failed, control.Failed)
            assert (failed.reason, failed.retryable) == ("stall", True)
            assert "does not die" in failed.message
            made.until(Phase.OVER)
            assert not made.attempt.finished
        finally:
            os.kill(forkserver, signal.SIGCONT)
