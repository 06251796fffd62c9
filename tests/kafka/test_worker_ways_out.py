"""An attempt that cannot go its way leaves its run to others, or says why it ends: with a real log, store and children, and no training."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import pytest

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import control, ids
from kafka_jupyter.settings import Settings
from kafka_jupyter.worker.attempt import HAND_OVER_S, Phase
from kafka_jupyter.worker.children import Children
from kafka_jupyter.worker.supervisor import SHUTDOWN_S
from tests.support.attempts import attended
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
        wait_until(lambda: site.store.ls(), "nothing is stored", within=20)
        made.attempt.shut_down()
        made.turn(HAND_OVER_S - 1)
        assert made.attempt.phase is phase
        made.turn(HAND_OVER_S + 1)
        released = made.end()
        assert isinstance(released, control.Released)
        assert released.reason == ("pause" if name == "paused" else "shutdown")
    assert HAND_OVER_S < SHUTDOWN_S - 1
