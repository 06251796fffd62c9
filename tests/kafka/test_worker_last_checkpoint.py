"""The checkpoint that is on its way while its attempt ends, and one that is given up: with a real log and store, but no training
behind it."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kafka_jupyter.brokers.change import Change
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import control, frames, ids, topics
from kafka_jupyter.protocol.parts import InlineBytes, UrlRef
from kafka_jupyter.runs import checkpoints
from kafka_jupyter.runs.state import RunState
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import open_store, upload_id
from kafka_jupyter.worker.checkpoints import Checkpoints
from kafka_jupyter.worker.children import Children
from kafka_jupyter.worker.reporter import Reporter
from kafka_jupyter.worker.site import Site
from kafka_jupyter.worker.transfer import RESULT_INLINE, RESULTS_INLINE, owner_of
from tests.support.limits import take_at_most
from tests.support.refusing import Refusing, refusing_url
from tests.support.sites import Loop, a_site
from tests.support.training import Submission, submit
from tests.support.waiting import wait_until

BYTES = 100_000  # more than stands in a record


class Attempt:
    """What a real one has, but for the training: the test says what its child has written."""

    def __init__(self, site: Site, loop: Loop, run: Submission) -> None:
        self.site, self._loop = site, loop
        self.own: dict[str, Any] = {"run_id": run.run_id, "n": 1, "worker": site.worker_id, "nonce": ids.new_nonce()}
        self.read: list[control.Record] = []
        site.follower.subscribe(self._saw)
        task = self.until(lambda state: state.task is not None).task
        assert task is not None
        site.log.write_control(control.Claimed(**self.own, task=task))
        site.log.write_control(control.Started(**self.own))
        self.use(site)

    def use(self, site: Site) -> None:
        self.site = site
        reporter = Reporter(site.log, self.own["run_id"], 1, site.worker_id, self.own["nonce"], site.post)
        self.checkpoints = Checkpoints(site, self.own, reporter)

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

    def told(self, epoch: int, outputs: dict[str, str] | None = None) -> control.Checkpointed:
        """The child has written the checkpoint of this epoch's end, and the record of it is in the log, not read back yet."""
        file = self.site.folder / f"checkpoint-{epoch}"
        file.write_bytes(bytes([epoch]) * BYTES)
        self.checkpoints.saved(frames.Saved(epoch, 0, str(file), outputs or {}))

        def record() -> control.Checkpointed | None:
            self.turn()
            return next((r for r in self.read if isinstance(r, control.Checkpointed) and r.epoch == epoch), None)

        wait_until(lambda: record() is not None, f"the checkpoint of epoch {epoch} is not told", within=20)
        made = record()
        assert made is not None
        return made

    def accepted(self, epoch: int, outputs: dict[str, str]) -> control.Checkpointed:
        """… and read back."""
        made = self.told(epoch, outputs)
        self.checkpoints.on_state(self.until(lambda state: made in state.checkpoints))
        return made

    def copy(self, name: str, size: int) -> str:
        """A child's copy of a file that a callback has written."""
        file = self.site.folder / name
        file.write_bytes(name[-1:].encode() * size)
        return str(file)

    def idle(self) -> bool:
        self.turn()
        return self.checkpoints.idle

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
    with contextlib.closing(Children()) as children, a_site(log, settings, tmp_path, children) as (site, loop):
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


def test_one_that_is_given_up_leaves_the_files_that_the_next_one_names_again(attempt: Attempt) -> None:
    best, better = (attempt.copy(name, 1000) for name in ("best", "better"))
    attempt.checkpoints.saved(frames.Saved(1, 0, str(attempt.site.folder / "unreadable"), {"callback-0/best.keras": best}))
    wait_until(attempt.idle, "what cannot be read is tried for ever", within=20)
    record = attempt.accepted(2, {"callback-0/best.keras": best})
    assert record.files == {"callback-0/best.keras": InlineBytes(b"t" * 1000)}
    attempt.checkpoints.saved(frames.Saved(3, 0, str(attempt.site.folder / "unreadable"), {"callback-0/best.keras": better}))
    wait_until(attempt.idle, "what cannot be read is tried for ever", within=20)
    attempt.accepted(4, {})
    assert not pathlib.Path(better).exists()


def test_small_files_that_are_superseded_take_no_room_in_the_next_record(attempt: Attempt) -> None:
    for epoch in range(1, RESULTS_INLINE // RESULT_INLINE + 2):
        record = attempt.accepted(epoch, {"callback-0/log.csv": attempt.copy(f"copy-{epoch}", RESULT_INLINE)})
    assert isinstance(record.files["callback-0/log.csv"], InlineBytes)


def test_one_that_could_not_be_read_back_when_a_newer_one_came_is_deleted_again(
    attempt: Attempt, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(open_store(attempt.site.settings.replace(store=refusing_url(tmp_path / "shelf")), attempt.site.log)) as store:
        attempt.use(dataclasses.replace(attempt.site, store=store))
        monkeypatch.setattr(Refusing, "reading", True)
        attempt.checkpoints.saved(frames.Saved(1, 0, attempt.copy("state", BYTES), {}))
        wait_until(lambda: attempt.left() and attempt.checkpoints._again_s, "it is not tried again", within=20)
        monkeypatch.setattr(Refusing, "reading", False)
        part = attempt.told(2).parts["state"]
        assert isinstance(part, UrlRef)
        wait_until(lambda: attempt.left() == {upload_id(part)}, "what nobody will name stays", within=10)


def test_what_was_stored_for_a_record_that_is_too_large_is_deleted_again(attempt: Attempt) -> None:
    take_at_most(attempt.site.log, topics.RUN_CONTROL, 2000)
    file = attempt.copy("state", BYTES)
    attempt.checkpoints.saved(frames.Saved(1, 0, file, {"callback-0/log.csv": attempt.copy("large", 4000)}))
    wait_until(attempt.idle, "what Kafka does not take is tried for ever", within=20)
    wait_until(lambda: not attempt.left(), "what nobody will name stays", within=10)
