"""A real attempt with a real log, store and child, on a loop that the test turns, with the time that the test says."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from kafka_jupyter.brokers.change import Change
from kafka_jupyter.protocol import control, topics
from kafka_jupyter.runs.state import RunState
from kafka_jupyter.worker.attempt import Attempt, Phase
from kafka_jupyter.worker.site import Site
from tests.support.sites import Loop
from tests.support.training import Submission
from tests.support.waiting import wait_until


class Attended:
    """An attempt, and what its supervisor would do for it."""

    def __init__(self, site: Site, loop: Loop, run: Submission) -> None:
        self.site, self.run, self._loop = site, run, loop
        site.follower.subscribe(lambda change: loop.put(lambda: self._saw(change)))
        self.attempt: Attempt | None = None
        wait_until(self._claimed, "the run is not in the log", within=20)

    def _claimed(self) -> bool:
        state = self.site.follower.state(self.run.run_id)
        if state is not None and state.task is not None:
            self.attempt = Attempt(self.site, state, time.monotonic())
        return self.attempt is not None

    def _saw(self, change: Change) -> None:
        if change.record is not None:
            self.site.outbox.saw(change.record)
        if self.attempt is not None and isinstance(change.state, RunState) and change.run_id == self.run.run_id:
            self.attempt.on_state(change.state, False)

    def turn(self, later_s: float = 0.0, knowing: bool = True) -> None:
        """One of the loop, as if it were `later_s` later. `knowing`: all that stands in the log has been read."""
        assert self.attempt is not None
        while not self._loop.empty():
            self._loop.get()()
        now_s = time.monotonic() + later_s
        if knowing:
            self.attempt.caught_up(now_s)
        self.attempt.tick(now_s)
        self.site.outbox.tick()

    def until(self, phase: Phase) -> None:
        def reached() -> bool:
            self.turn()
            assert self.attempt is not None
            return self.attempt.phase is phase

        wait_until(reached, f"it does not come to {phase}", within=20)

    def said(self) -> list[control.Record]:
        """What ends an attempt, as it stands in the log."""
        self.turn()
        place = self.site.log.topics.place(topics.RUN_CONTROL, self.run.run_id)
        read = [self.site.log.decode(message) for message in self.site.log.read_range(place, 0, None)]
        ends = control.Released | control.Failed | control.Succeeded | control.Cancelled
        return [record for record in read if isinstance(record, ends) and record.run_id == self.run.run_id]

    def end(self) -> control.Record:
        """The record that ended it."""
        (record,) = wait_until(self.said, "its end is not said", within=20)
        return record


@contextlib.contextmanager
def attended(site: Site, loop: Loop, run: Submission) -> Iterator[Attended]:
    """Its child is gone in the end."""
    made = Attended(site, loop, run)
    try:
        yield made
    finally:
        assert made.attempt is not None
        made.attempt.disown()

        def finished() -> bool:
            made.turn()
            assert made.attempt is not None
            return made.attempt.finished

        wait_until(finished, "its child lives on", within=20)
