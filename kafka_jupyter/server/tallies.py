"""Tallies: what lists show of each run's history. Kept as rows come; of runs that ended before we came they are read in the background."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from kafka_jupyter.brokers.change import Change
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.errors import BrokerError, OffsetGone
from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.rows import EpochEnded, RowBatch
from kafka_jupyter.runs import view
from kafka_jupyter.runs.state import RunState, Start
from kafka_jupyter.runs.tally import Tally

KEPT = 5000  # tallies; one takes about 2 KB


class Tallies:
    """`told(run_id)` is called on the loop when a tally that `of` could not give is there."""

    def __init__(self, follower: Follower, loop: asyncio.AbstractEventLoop, executor: Executor, told: Callable[[str], None]) -> None:
        self._follower, self._loop, self._executor, self._told = follower, loop, executor, told
        self._known: collections.OrderedDict[str, Tally] = collections.OrderedDict()
        self._missing: dict[str, None] = {}
        self._reading: asyncio.Task[None] | None = None
        self._leave = follower.observe(self._observe)

    def close(self) -> None:
        self._leave()
        self._missing.clear()

    def of(self, state: RunState) -> dict[str, Any] | None:
        """The run's tally as JSON, without waiting; None where its rows have to be read first."""
        with self._follower.still():
            tally = self._known.get(state.run_id)
            if tally is None:
                if self._follower.lacks_rows(state.run_id):
                    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to be told
                        self._loop.call_soon_threadsafe(self._read_soon, state.run_id)
                    return None
                history = self._follower.history_here(state.run_id)
                tally = self._keep(state.run_id, Tally(history.epochs if history else ()))
            return tally.as_json()

    def _keep(self, run_id: str, tally: Tally) -> Tally:
        self._known[run_id] = tally
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return tally

    def _observe(self, change: Change) -> None:
        """On the follower's thread, while the log stands still."""
        tally = self._known.get(change.run_id)
        if tally is None:
            return
        if isinstance(change.record, control.Started):
            del self._known[change.run_id]  # it may have taken back epochs: made anew when somebody asks
        elif change.batch is not None:
            state, batch = self._follower.state(change.run_id), change.batch
            starts = state.starts if state is not None else ()
            if starts and _is(starts[-1], batch, change.kid):
                for row in change.rows:
                    if isinstance(row, EpochEnded):
                        tally.add(row)
            elif any(_is(start, batch, change.kid) for start in starts):
                del self._known[change.run_id]  # a late row of an earlier attempt may count or not

    # --- runs whose rows are not in memory

    def _read_soon(self, run_id: str) -> None:
        self._missing[run_id] = None
        if self._reading is None:
            self._reading = self._loop.create_task(self._read_missing(), name="kafka_jupyter-tallies")

    async def _read_missing(self) -> None:
        try:
            while self._missing:
                run_id = next(iter(self._missing))
                try:
                    await self._loop.run_in_executor(self._executor, self._read, run_id)
                except BrokerError:
                    self._missing.clear()  # Kafka is away: whoever asks again asks anew
                    return
                except RuntimeError:  # the executor has been shut down
                    return
                self._missing.pop(run_id, None)
                self._told(run_id)
        finally:
            self._reading = None

    def _read(self, run_id: str) -> None:
        state = self._follower.state(run_id)
        if state is None:
            return
        if not state.terminal:
            self._follower.history(run_id)  # its rows stay in memory, and more of them may come
            return
        log = view.RowLog()
        with contextlib.suppress(OffsetGone):  # of rows that have left the log there is no tally
            for batch, kid in self._follower.log.read_rows(state):
                log.add(batch, kid)
        with self._follower.still():
            self._keep(run_id, Tally(view.history(state, log).epochs))


def _is(start: Start, batch: RowBatch, kid: str) -> bool:
    return (start.n, start.worker, start.nonce, start.kid) == (batch.n, batch.worker, batch.nonce, kid)
