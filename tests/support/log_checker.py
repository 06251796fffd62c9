"""Judges a simulated `run_control` log: what must hold of every log, whoever wrote it and in whatever order.

It keeps its own books from the raw records (who asked for what, who holds the attempt, who counts as failed) and looks at the
fold only through what changed: an attempt opened, spoke or closed, a run ended. The author of a record is the process that truly
wrote it: the log of a real Kafka does not have it, so the fold cannot lean on it.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator

import msgspec

from kafka_jupyter.protocol import control
from kafka_jupyter.runs.state import TERMINAL, WAITING, Attempt, RunState, State

BEGIN_MS = 1_700_000_000_000  # append time of second 0


@dataclasses.dataclass(slots=True)
class Entry:
    """A record where the simulated log has it, with the state of its run before and after it."""

    record: control.Record
    offset: int
    time_s: float
    author: int
    before: RunState | None
    after: RunState

    @property
    def time_ms(self) -> int:
        return BEGIN_MS + int(self.time_s * 1000)


def essence(state: RunState) -> RunState:
    """What a record that means nothing must leave as it is: all but the counters of the fold, when the attempt spoke last, and which
    claims lost. (A copy of a lost claim does not win. Here it may, as a later claim of the same process: whoever claims again draws a
    new nonce, and the searches need only a few.)"""
    attempt = state.open
    if attempt is not None:
        attempt = msgspec.structs.replace(attempt, last=-1, last_ms=0)
    return msgspec.structs.replace(state, upto=-1, dropped=0, lost_claims=(), open=attempt)


def _same(one: Attempt, other: Attempt) -> bool:
    return (one.n, one.worker, one.nonce) == (other.n, other.worker, other.nonce)


class RunChecker:
    """The books of one run. `ttl_s`: silence that an Expired needs; None for logs that no honest reaper wrote."""

    def __init__(self, ttl_s: float | None = None) -> None:
        self._ttl_s = ttl_s
        self._wish = "run"
        self._requests: set[str] = set()
        self._n = 0
        self._holder: Entry | None = None  # the Claimed that won and is not closed
        self._last: Entry | None = None  # the last accepted record of the open attempt
        self._failures = self._expiries = self._counted = 0
        self._progress: tuple[int, int] | None = None
        self.checkpoints: list[control.Checkpointed] = []  # all that counted
        self._applied: set[str] = set()
        self._rate: float = 1.0  # what people asked for last
        self._ended = False
        self._meant: dict[int, control.Record] = {}  # records that changed something, by identity: a copy of one means nothing

    def copy(self) -> RunChecker:
        """For a log that goes on in several ways."""
        other = copy.copy(self)
        other._requests, other._meant, other._applied = self._requests.copy(), self._meant.copy(), self._applied.copy()
        other.checkpoints = self.checkpoints.copy()
        return other

    def books(self) -> tuple[object, ...]:
        """All that later judgements depend on, but for what was copied already."""
        holder, last = self._holder, self._last
        counts = (self._failures, self._expiries, self._counted, self._progress, len(self.checkpoints))
        return self._wish, self._n, holder and holder.author, last and last.offset, *counts

    def check(self, entry: Entry) -> Iterator[str]:
        """What is wrong with this entry, in words."""
        before = entry.before or RunState(entry.record.run_id, first_ms=entry.after.first_ms)
        if self._ended:
            if essence(before) != essence(entry.after):
                yield "I1: a run changed after its end"
            return
        if id(entry.record) in self._meant and essence(before) != essence(entry.after):
            yield f"D1: a copy of {type(entry.record).__name__} meant something"
        asked = self._note_request(entry.record)
        was, now = before.open, entry.after.open
        if id(entry.record) in self._meant and was is not None and now is not None and was.last != now.last:
            yield f"D2: a copy of {type(entry.record).__name__} kept an attempt alive"
        opened = now is not None and (was is None or not _same(was, now))
        counted = True
        if was is not None and (now is None or opened):
            yield from self._closed(entry)
        elif opened:
            yield from self._opened(entry)
        elif now is not None and now.last == entry.offset:
            yield from self._spoke(entry)
        else:
            counted = asked or isinstance(entry.record, control.Submitted)
        yield from self._state(entry)
        if counted:
            self._meant[id(entry.record)] = entry.record
        self._ended = entry.after.state in TERMINAL

    def _note_request(self, record: control.Record) -> bool:
        """Whether this is a request that was not known."""
        if not isinstance(record, control.Request) or record.request_id in self._requests:
            return False
        self._requests.add(record.request_id)
        if isinstance(record, control.CancelRequested):
            self._wish = "cancel"
        elif isinstance(record, control.StopRequested) and self._wish != "cancel":
            self._wish = "stop"
        elif isinstance(record, control.PauseRequested) and self._wish in ("run", "pause"):
            self._wish = "pause"
        elif isinstance(record, control.ResumeRequested) and self._wish in ("run", "pause"):
            self._wish = "run"
        return True

    def _opened(self, entry: Entry) -> Iterator[str]:
        record = entry.record
        if self._holder is not None:
            yield "I2: an attempt was opened while another was open"
        if not isinstance(record, control.Claimed):
            yield f"I2: {type(record).__name__} opened an attempt"
            return
        if record.n != self._n + 1:
            yield f"I2: attempt {record.n} was opened after attempt {self._n}"
        if self._wish not in ("run", "stop"):
            yield f"W1: a claim won under the wish {self._wish}"
        if self._wish == "stop" and not self.checkpoints:
            yield "W2: a claim won a stopped run that has nothing to publish"
        self._n = record.n
        self._holder = self._last = entry

    def _by_holder(self, entry: Entry) -> Iterator[str]:
        record, holder = entry.record, self._holder
        if holder is None or not isinstance(record, control.AttemptRecord):
            yield f"I5: {type(record).__name__} counted without an open attempt"
        elif entry.author != holder.author:
            yield f"I2: {type(record).__name__} counted, written by another process than the one that won attempt {record.n}"
        elif record.n != self._n:
            yield f"I5: {type(record).__name__} of attempt {record.n} counted during attempt {self._n}"

    def _spoke(self, entry: Entry) -> Iterator[str]:
        yield from self._by_holder(entry)
        self._last = entry
        if isinstance(entry.record, control.Checkpointed):
            self.checkpoints.append(entry.record)
            place = (entry.record.epoch, entry.record.step)
            if self._progress is None or place > self._progress:
                self._progress, self._failures, self._expiries = place, 0, 0
        elif isinstance(entry.record, control.Applied) and entry.record.request_id not in self._applied:
            self._applied.add(entry.record.request_id)
            self._rate = entry.record.settings.get("learning_rate", self._rate)

    def _closed(self, entry: Entry) -> Iterator[str]:
        record = entry.record
        if isinstance(record, control.Expired):
            yield from self._expired(entry, record)
        elif not isinstance(record, control.TooOld):
            yield from self._by_holder(entry)
        if isinstance(record, control.Failed) and record.retryable:
            self._failures += 1
            self._counted += 1
        elif isinstance(record, control.Released) and record.reason == "unfit":
            self._counted += 1
        elif isinstance(record, control.Succeeded) and record.metrics.get("learning_rate", self._rate) != self._rate:
            yield f"S1: trained to the end with the learning rate {record.metrics}, people asked for {self._rate}"
        self._holder = None

    def _expired(self, entry: Entry, record: control.Expired) -> Iterator[str]:
        self._expiries += 1
        self._counted += 1
        last = self._last
        if last is None or record.n != self._n:
            yield "I5: Expired counted without its attempt being open"
        elif record.after != last.offset:
            yield "L1: Expired counted though the attempt had spoken since"
        elif self._ttl_s is not None and entry.time_s - last.time_s < self._ttl_s:
            yield f"L1: an attempt was expired {entry.time_s - last.time_s:.2f} s after it spoke"

    def _state(self, entry: Entry) -> Iterator[str]:
        """The state that everybody shows fits the books."""
        state, record = entry.after, entry.record
        if str(state.wish) != self._wish:
            yield f"W3: the wish is {state.wish}, people asked for {self._wish}"
        poisoned = self._failures >= 3 or self._expiries >= 6 or self._counted >= 20
        if (state.state is State.DEAD) != poisoned and not (state.terminal and isinstance(record, control.TooOld)):
            yield f"P1: {state.state} after {self._failures} failures, {self._expiries} expiries, {self._counted} attempts"
        if state.terminal:
            if state.open is not None:
                yield "I1: a run ended with an open attempt"
            if isinstance(record, control.Succeeded) != (state.state is State.SUCCEEDED):
                yield f"I1: {type(record).__name__} made the run {state.state}"
            if state.state is State.CANCELLED and self._wish == "stop" and self.checkpoints and not isinstance(record, control.Cancelled):
                yield "W6: a stopped run was cancelled, though its last checkpoint could be published"
            return
        if state.open is None and self._wish == "cancel":
            yield "W4: a cancelled run has no attempt and no end"
        if state.open is None and (state.state is State.PAUSED) != (self._wish == "pause"):
            yield f"W5: {state.state} without an attempt under the wish {self._wish}"
        if state.open is None and state.state not in WAITING | {State.PAUSED}:
            yield f"W5: {state.state} without an attempt"
