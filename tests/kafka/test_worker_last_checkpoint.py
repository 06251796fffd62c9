"""The checkpoint that is on its way while its attempt ends: with a real log and store, but no training behind it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import pathlib
import queue
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kafka_jupyter.brokers.follow import Change, Follower
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.outbox import Outbox
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.protocol import control, frames, ids
from kafka_jupyter.runs import checkpoints
from kafka_jupyter.runs.state import RunState
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import open_store, upload_id
from kafka_jupyter.worker.checkpoints import Checkpoints
from kafka_jupyter.worker.children import Children
from kafka_jupyter.worker.reporter import Reporter
from kafka_jupyter.worker.site import Site
from kafka_jupyter.worker.transfer import owner_of
from tests.support.training import Submission, submit
from tests.support.waiting import wait_until

BYTES = 100_000  # more than stands in a record


class Attempt:
    """What a real one has, but for the training: the test says what its child has written."""

    def __init__(self, site: Site, loop: queue.SimpleQueue[Callable[[], None]], run: Submission) -> None:
        self.site, self._loop = site, loop
        self.own: dict[str, Any] = {"run_id": run.run_id, "n": 1, "worker": site.worker_id, "nonce": ids.new_nonce()}
        self.read: list[control.Record] = []
        site.follower.subscribe(self._saw)
        task = self.until(lambda state: state.task is not None).task
        assert task is not None
        site.log.write_control(control.Claimed(**self.own, task=task))
        site.log.write_control(control.Started(**self.own))
        self.checkpoints = Checkpoints(site, self.own, Reporter(site.log, run.run_id, 1, site.worker_id, self.own["nonce"], site.post))

    def _saw(self, change: Change) -> None:
        if isinstance(change.record, control.Record):
            self.site.outbox.saw(change.record)
            self.read.append(change.record)

    def until(self, condition: Callable[[RunState], bool]) -> RunState:
        def found() -> RunState | None:
            state = self.site.follower.state(self.own["run_id"])
            return state if state is not None and condition(state) else None

        wait_until(lambda: found() is not None, "the log does not say so", within=20)
        state = found()
        assert state is not None
        return state

    def told(self, epoch: int) -> control.Checkpointed:
        """The child has written the checkpoint of this epoch's end, and the record of it is in the log, not read back yet."""
        file = self.site.folder / f"checkpoint-{epoch}"
        file.write_bytes(bytes([epoch]) * BYTES)
        self.checkpoints.saved(frames.Saved(epoch, 0, str(file), {}))

        def record() -> control.Checkpointed | None:
            self.turn()
            return next((r for r in self.read if isinstance(r, control.Checkpointed) and r.epoch == epoch), None)

        wait_until(lambda: record() is not None, f"the checkpoint of epoch {epoch} is not told", within=20)
        made = record()
        assert made is not None
        return made

    def turn(self) -> None:
        """One of the supervisor's loop."""
        while not self._loop.empty():
            self._loop.get()()
        self.checkpoints.tick(0.0)

    def left(self) -> set[str]:
        self.turn()
        return set(self.site.store.uploads_of(owner_of(self.own["run_id"], 1)))


@pytest.fixture
def attempt(log: Log, settings: Settings, tmp_path: pathlib.Path) -> Iterator[Attempt]:
    loop: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    with contextlib.ExitStack() as closing:
        store = closing.enter_context(contextlib.closing(open_store(settings, log)))
        children = closing.enter_context(contextlib.closing(Children()))
        follower = closing.enter_context(contextlib.closing(Follower(log, rows=False)))
        prober = closing.enter_context(contextlib.closing(Reader(log.cluster)))
        pool = closing.enter_context(concurrent.futures.ThreadPoolExecutor(2))
        follower.start()
        site = Site(settings, "box-1", "box", 1, tmp_path, log, follower, store, Outbox(log), children, prober, pool, loop.put)
        yield Attempt(site, loop, submit(log))


def test_one_that_is_accepted_together_with_the_end_leaves_no_more_than_the_last_two(attempt: Attempt) -> None:
    for epoch in (1, 2):
        record = attempt.told(epoch)
        attempt.checkpoints.on_state(attempt.until(lambda state: record in state.checkpoints))  # noqa: B023
    attempt.told(3)
    attempt.site.log.write_control(control.Failed(**attempt.own, reason="exception", message="no", retryable=False))
    state = attempt.until(lambda state: state.terminal)
    attempt.checkpoints.close()
    attempt.checkpoints.over(state)
    named = {upload_id(ref) for ref in checkpoints.named(state)}
    assert len(named) == 2
    wait_until(lambda: attempt.left() == named, "what the last one supersedes stays", within=10)


def test_one_that_comes_after_the_end_is_deleted_again(attempt: Attempt) -> None:
    accepted = attempt.told(1)
    attempt.checkpoints.on_state(attempt.until(lambda state: accepted in state.checkpoints))
    attempt.site.log.write_control(control.Failed(**attempt.own, reason="exception", message="no", retryable=False))
    late = attempt.told(2)
    state = attempt.until(lambda state: state.terminal)
    assert late not in state.checkpoints
    attempt.checkpoints.close()
    attempt.checkpoints.over(state)
    named = {upload_id(ref) for ref in checkpoints.named(state)}
    assert len(named) == 1
    wait_until(lambda: attempt.left() == named, "what came too late stays", within=10)
