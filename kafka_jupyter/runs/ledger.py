"""Ledger: many runs, from `run_control` and `training_log`. Pure: it is told what was read, it never reads."""

from __future__ import annotations

import bisect
import collections

from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.rows import Row, RowBatch
from kafka_jupyter.runs import choose, view
from kafka_jupyter.runs import state as fold
from kafka_jupyter.runs.snapshots import Beginning
from kafka_jupyter.runs.state import Placed, RunState

KEPT_ENDED = 200  # ended runs whose rows stay in memory; those of others are read again when somebody asks


class Ledger:
    """States and rows of all runs that were read. Not thread-safe: its owner holds the lock."""

    def __init__(self) -> None:
        self.states: dict[str, RunState] = {}
        self.active: dict[str, RunState] = {}  # those that have not ended and are in the log: few, where `states` may be many
        self._newest: list[tuple[int, str]] = []  # in order of RunState.newness: lists are asked for more often than runs come
        self._logs: dict[str, view.RowLog] = {}
        self._ended: collections.OrderedDict[str, None] = collections.OrderedDict()
        self.forgotten: set[str] = set()  # runs whose rows were dropped from memory
        self.gone: frozenset[str] = frozenset()  # runs that are no longer in the log: shown, never claimed
        self._cut = False

    def control(self, record: control.Record, offset: int, time_ms: int, kid: str = "") -> RunState | None:
        """Folds one record in: the run's new state, or None if it had been folded in before."""
        before = self.states.get(record.run_id)
        after = fold.apply(before, Placed(record, offset, time_ms, kid))
        if self._cut and _speaks_of_more(record, before):
            self.gone |= {record.run_id}
            self.active.pop(record.run_id, None)
        return self._keep(before, after)

    def newer(self, run_id: str, offset: int, time_ms: int) -> RunState | None:
        """A record of this run that only a newer version can read (rule 12)."""
        before = self.states.get(run_id)
        return self._keep(before, fold.mark_newer(before, run_id, offset, time_ms))

    def begin(self, beginning: Beginning) -> None:
        """Starts from snapshots."""
        self.states.update(beginning.states)
        self._newest = sorted(state.newness for state in self.states.values())
        self.gone, self._cut = beginning.gone, beginning.cut
        self.active.update((run_id, s) for run_id, s in beginning.states.items() if not s.terminal and run_id not in self.gone)

    def rows(self, batch: RowBatch, kid: str = "") -> list[Row]:
        """Keeps the rows; the ones that were new."""
        log = self._logs.get(batch.run_id)
        if log is None:
            log = self._logs[batch.run_id] = view.RowLog()
            state = self.states.get(batch.run_id)
            if state is not None and state.terminal:
                self._remember_ended(batch.run_id)
        return log.add(batch, kid)

    def leaves_rows(self, run_id: str) -> bool:
        """For a reader of the past: whether rows of this run are not to be kept, because it has ended. They are forgotten then."""
        state = self.states.get(run_id)
        if state is None or not state.terminal:
            return False
        self._logs.pop(run_id, None)
        self.forgotten.add(run_id)
        return True

    def history(self, run_id: str) -> view.History:
        return view.history(self.states[run_id], self._logs.get(run_id))

    def rows_of(self, run_id: str, attempt: int) -> list[Row]:
        """All rows of an attempt that started, those included that a later one has replaced: what it said before it broke off."""
        log = self._logs.get(run_id)
        return [row for start in self.states[run_id].starts if log is not None and start.n == attempt for row in log.of(start)]

    def newest(self, first: int = 0, count: int | None = None) -> list[RunState]:
        """The runs, the newest first; with `count`, so many of them from the one with the number `first` (0 is the newest)."""
        end = max(0, len(self._newest) - first)
        begin = 0 if count is None else max(0, end - count)
        return [self.states[run_id] for _, run_id in reversed(self._newest[begin:end])]

    def waiting(self) -> list[RunState]:
        """Runs that a free slot may take, in the order in which they are taken."""
        return choose.order(s for s in self.active.values() if s.claimable)

    def _keep(self, before: RunState | None, after: RunState) -> RunState | None:
        if after is before:
            return None
        self.states[after.run_id] = after
        if before is None or before.born_ms != after.born_ms:
            if before is not None:
                del self._newest[bisect.bisect_left(self._newest, before.newness)]
            bisect.insort(self._newest, after.newness)
        if after.terminal:
            self.active.pop(after.run_id, None)
            self._remember_ended(after.run_id)
        elif after.run_id not in self.gone:
            self.active[after.run_id] = after
        return after

    def _remember_ended(self, run_id: str) -> None:
        """Drops the rows of the run that ended first when there are more than KEPT_ENDED."""
        self._ended[run_id] = None
        if len(self._ended) > KEPT_ENDED:
            old, _ = self._ended.popitem(last=False)
            if self._logs.pop(old, None) is not None:
                self.forgotten.add(old)


def _speaks_of_more(record: control.Record, before: RunState | None) -> bool:
    """Whether this record speaks of an attempt that the known ones do not lead to: those before it were in the part of the log that
    retention took, and perhaps the end of the run. What is left must not look like a run that waits (it would be trained again)."""
    if not isinstance(record, control.AttemptRecord | control.Expired):
        return False
    known = before.last_n if before is not None else 0
    return record.n > (known + 1 if isinstance(record, control.Claimed) else known)
