"""Hub: what the follower reads is kept once, in one ring of rows, for all streams; a stream is a place in it.

So a slow client costs no memory: whoever falls out of the ring is closed and resumes. Folded states are not kept at all: a stream
remembers *which* runs changed and gets their latest state. The follower's thread appends, the event loop takes, both while the
log stands still (`Follower.still`), so that ring, states and positions always belong together.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterable
from concurrent.futures import Executor
from typing import Any

from kafka_jupyter.brokers.change import Change
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.protocol import control, topics
from kafka_jupyter.protocol.cursor import CONTROL, Cursor
from kafka_jupyter.runs.state import RunState, Start
from kafka_jupyter.server import events
from kafka_jupyter.server.cards import cards, queue
from kafka_jupyter.server.delivery import Attempt, Entry, Release, Rows, deliver, skip
from kafka_jupyter.server.limits import Limits
from kafka_jupyter.server.replay import Missed, Started
from kafka_jupyter.server.tallies import Tallies

SHOWN_S = 0.1  # a state is made once for all who are told of one change; it says what time it is, and may be as old as this
SHOWN = 1000  # states that are kept for that
NEVER = (-math.inf, b"")
GONE_WORKERS = 1000  # workers that are remembered as gone, for streams that come back


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a stream asks for: `runs`, batches and log lines of `detail`; None is all of them."""

    runs: frozenset[str] | None = None
    detail: frozenset[str] | None = None

    def run(self, run_id: str) -> bool:
        return self.runs is None or run_id in self.runs

    def event(self, run_id: str, event: events.Event) -> bool:
        return self.detail is None or run_id in self.detail or not event.body.startswith(events.DETAIL)


class Subscriber:
    """One stream: what it wants, where it is, and what it has not been told yet."""

    def __init__(self, index: int, cursor: Cursor, wanted: Wanted) -> None:
        self.index, self.cursor, self.wanted = index, cursor, wanted
        self.runs: dict[str, None] = {}
        self.workers: dict[str, None] = {}
        self.health: bytes | None = None  # as it was told last
        self.wake = asyncio.Event()


class Hub:
    """Made and used on the event loop; only `_observe` runs on the follower's thread."""

    def __init__(self, follower: Follower, loop: asyncio.AbstractEventLoop, executor: Executor, limits: Limits, tag: str) -> None:
        self.tag = tag
        self.closed = False
        self.over = False  # closed for good: streams say `bye`; otherwise they come back to the next hub
        self.health = events.body("health", {"reachable": True, "message": ""})
        self._follower, self._loop, self._limits = follower, loop, limits
        self._subscribers: set[Subscriber] = set()
        self._ring: list[Entry] = []
        self._base = 0  # index of the ring's first entry
        self._bytes = 0
        self._held: dict[Attempt, list[Rows]] = {}  # rows in the ring whose attempt has not started
        self._workers: dict[str, bytes] = {}
        self._waiting: dict[str, tuple[int, str]] = {}
        self._shown: dict[str, tuple[float, bytes]] = {}  # run → when its state was told last, and how
        self._waking = False
        self._tallies = Tallies(follower, loop, executor, self._tell)
        with follower.still():
            self._floors = {p: at for (base, p), at in self._positions().items() if base == topics.TRAINING_LOG}
            self._leave = follower.observe(self._observe)
            for info in follower.workers():
                self._workers[info.worker_id] = events.body("worker", info)

    def close(self, over: bool) -> None:
        self._leave()
        self._tallies.close()
        self.closed, self.over = True, over
        self._wake()

    @property
    def streams(self) -> int:
        return len(self._subscribers)

    @property
    def size(self) -> int:
        """Bytes that are kept for all streams together."""
        return self._bytes

    def here(self) -> Cursor:
        with self._follower.still():
            return Cursor.at(((base, p, at) for (base, p), at in self._positions().items()), self.tag)

    def cards(self, states: Iterable[RunState]) -> list[dict[str, Any]]:
        with self._follower.still():
            return cards(self._follower, self._tallies, states)

    # --- streams

    def join(self, wanted: Wanted, cursor: Cursor | None) -> tuple[Subscriber, Missed | None]:
        """A new stream, from `cursor` (which must not be ahead of us) or from now on. `Missed` comes before what `take` gives."""
        with self._follower.still():
            here = self.here()
            subscriber = Subscriber(self._base + len(self._ring), here, wanted)
            states = self._wanted(wanted.runs)
            missed = None
            if cursor is None:
                subscriber.runs.update((state.run_id, None) for state in states if wanted.runs is not None)
            else:
                missed = self._missed(cursor, here, states)
                subscriber.cursor = cursor
                for state in states:
                    if state.claimable or state.upto >= cursor.offsets[(CONTROL, self._partition(state.run_id))]:
                        subscriber.runs[state.run_id] = None
            if wanted.runs is None:
                subscriber.workers.update(dict.fromkeys(self._workers))
            self._subscribers.add(subscriber)
        return subscriber, missed

    def leave(self, subscriber: Subscriber) -> None:
        with self._follower.still():
            self._subscribers.discard(subscriber)

    def states_for(self, subscriber: Subscriber) -> list[events.Event]:
        """What has changed but for rows. It bears no ids: who is cut off here is told again."""
        with self._follower.still():
            told = self._states(subscriber)
            told += [self._workers[worker] for worker in subscriber.workers if worker in self._workers]
            subscriber.workers.clear()
            if subscriber.health != self.health:
                subscriber.health = self.health
                told.append(self.health)
        return [events.Event(body) for body in told]

    def _states(self, subscriber: Subscriber) -> list[bytes]:
        """No more than one turn takes. The others stay in `runs`."""
        chosen = list(itertools.islice(subscriber.runs, self._limits.batch_runs))
        shown = self._show(chosen)
        told: list[bytes] = []
        size = 0
        for run_id in chosen:
            if size >= self._limits.batch_bytes:
                break
            del subscriber.runs[run_id]
            if run_id in shown:
                told.append(shown[run_id])
                size += len(told[-1])
        return told

    def _show(self, run_ids: list[str]) -> dict[str, bytes]:
        """The states of these runs as events, but for those of runs that nobody knows; shared by all streams that are told at once."""
        now_s = self._loop.time()
        shown = {run_id: body for run_id in run_ids for made_s, body in [self._shown.get(run_id, NEVER)] if now_s - made_s <= SHOWN_S}
        states = [state for run_id in run_ids if run_id not in shown and (state := self._follower.state(run_id)) is not None]
        made = {card["run_id"]: events.body("run", card) for card in self.cards(states)}
        if len(self._shown) + len(made) > SHOWN:
            self._shown.clear()
        self._shown.update((run_id, (now_s, body)) for run_id, body in made.items())
        return shown | made

    def take(self, subscriber: Subscriber) -> list[events.Event] | None:
        """What is new for this stream, empty if nothing is; None if it has fallen out of the ring."""
        with self._follower.still():
            found = self.states_for(subscriber)
            if subscriber.index < self._base:
                return None
            if subscriber.runs:
                return found
            size, cursor = 0, subscriber.cursor
            for entry in self._ring[subscriber.index - self._base :]:
                if size > self._limits.batch_bytes:
                    return found
                subscriber.index += 1
                run_id, wanted = entry.attempt[0], subscriber.wanted
                if not wanted.run(run_id):
                    skip(entry, cursor)
                    continue
                if isinstance(entry, Release) and entry.gap:
                    return None
                found += (event for event in deliver(entry, cursor) if wanted.event(run_id, event))
                size += entry.size
            cursor.advance((base, p, at) for (base, p), at in self._positions().items())
        if found:
            found[-1].id = str(cursor)
        return found

    # --- what changes without a record

    def look_at_queue(self) -> None:
        """Waiting runs whose place or reason changed are told again; workers that fell silent are told as gone."""
        with self._follower.still():
            waiting, alive = queue(self._follower), {info.worker_id for info in self._follower.workers()}
            changed = [run_id for run_id, seen in waiting.items() if self._waiting.get(run_id) != seen]
            self._waiting = waiting
            for run_id in changed:
                self._changed_run(run_id)
            for worker_id in [w for w, body in self._workers.items() if w not in alive and body != _gone(w)]:
                self._changed_worker(worker_id, _gone(worker_id))
        self._wake()

    def set_health(self, reachable: bool, message: str) -> None:
        self.health = events.body("health", {"reachable": reachable, "message": message})
        self._wake()

    # --- the follower's thread

    def _observe(self, change: Change) -> None:
        if change.batch is not None:
            self._rows(change)
        elif change.state is not None:
            self._changed_run(change.run_id)
            if isinstance(change.record, control.Started):
                self._started(change.state, change.offset)
        elif change.worker is not None:
            self._changed_worker(change.worker.worker_id, events.body("worker", change.worker))
        elif change.gone:
            self._changed_worker(change.gone, _gone(change.gone))
        if self._subscribers and not self._waking:
            self._waking = True
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to be woken
                self._loop.call_soon_threadsafe(self._wake)

    def _rows(self, change: Change) -> None:
        batch = change.batch
        assert batch is not None
        attempt = (batch.run_id, batch.n, batch.worker, batch.nonce, change.kid)
        self._shown.pop(batch.run_id, None)  # its tally is another one
        state = self._follower.state(batch.run_id)
        started = state is not None and any(_attempt(state, start) == attempt for start in state.starts)
        entry = Rows(change.partition, change.offset, attempt, started, events.bodies(batch, change.rows))
        if not started:
            self._held.setdefault(attempt, []).append(entry)
        self._append(entry)

    def _started(self, state: RunState, offset: int) -> None:
        """Only if this very record started the attempt; a copy of it, or a loser's, means nothing."""
        start = state.starts[-1] if state.starts else None
        if start is not None and start.offset == offset:
            attempt = _attempt(state, start)
            partition = self._partition(state.run_id)
            # Without any records too: the cursor must be behind the Started before it is behind a row of the attempt (see delivery).
            gap = start.log_offset < self._floors[partition]
            self._append(Release(partition, offset, attempt, tuple(self._held.pop(attempt, ())), gap))

    def _append(self, entry: Entry) -> None:
        self._ring.append(entry)
        self._bytes += entry.size
        if len(self._ring) > self._limits.ring_records or self._bytes > self._limits.ring_bytes:
            self._forget(max(1, len(self._ring) // 4))

    def _forget(self, count: int) -> None:
        """The oldest quarter at once, so that an entry costs little on average."""
        for entry in self._ring[:count]:
            self._bytes -= entry.size
            if isinstance(entry, Rows):
                self._floors[entry.partition] = entry.offset + 1
                if not entry.started:
                    self._held.pop(entry.attempt, None)  # if it starts after all, its Release has a gap
        del self._ring[:count]
        self._base += count

    def _changed_run(self, run_id: str) -> None:
        self._shown.pop(run_id, None)
        for subscriber in self._subscribers:
            if subscriber.wanted.run(run_id):
                subscriber.runs[run_id] = None

    def _changed_worker(self, worker_id: str, body: bytes) -> None:
        self._workers.pop(worker_id, None)
        self._workers[worker_id] = body
        if len(self._workers) > GONE_WORKERS:
            del self._workers[next(iter(self._workers))]
        for subscriber in self._subscribers:
            if subscriber.wanted.runs is None:
                subscriber.workers[worker_id] = None

    def _tell(self, run_id: str) -> None:
        """Something of this run is known that no record says."""
        with self._follower.still():
            self._changed_run(run_id)
        self._wake()

    def _wake(self) -> None:
        self._waking = False
        for subscriber in list(self._subscribers):
            subscriber.wake.set()

    # --- helpers

    def _positions(self) -> dict[tuple[str, int], int]:
        """By (topic without its prefix, partition)."""
        return {(self._follower.log.topics.base(topic), partition): at for (topic, partition), at in self._follower.positions().items()}

    def _partition(self, run_id: str) -> int:
        return self._follower.log.topics.place(topics.RUN_CONTROL, run_id)[1]

    def _wanted(self, only: frozenset[str] | None) -> list[RunState]:
        if only is None:
            return self._follower.states()
        return [state for state in map(self._follower.state, sorted(only)) if state is not None]

    def _missed(self, cursor: Cursor, here: Cursor, states: Iterable[RunState]) -> Missed:
        for place, at in here.offsets.items():
            cursor.offsets.setdefault(place, at)
        cursor.tag = self.tag
        recent = [entry for entry in self._ring if isinstance(entry, Rows)]
        return Missed(cursor, here.offsets, dict(self._floors), recent, [each for state in states for each in self._starts(state)])

    def _starts(self, state: RunState) -> list[Started]:
        partition = self._partition(state.run_id)
        return [
            Started(_attempt(state, start), partition, start.offset, start.log_offset, state.log_end if start is state.starts[-1] else None)
            for start in state.starts
        ]


def _attempt(state: RunState, start: Start) -> Attempt:
    return (state.run_id, start.n, start.worker, start.nonce, start.kid)


def _gone(worker_id: str) -> bytes:
    return events.body("worker", {"worker_id": worker_id, "gone": True})
