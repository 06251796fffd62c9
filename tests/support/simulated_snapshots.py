"""The compacted `run_state` of a simulated history, and readers that begin with it."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from kafka_jupyter.runs import snapshots
from kafka_jupyter.runs.snapshots import Beginning, Mark, Page
from kafka_jupyter.runs.state import Placed, RunState
from tests.support.log_checker import Entry, essence

if TYPE_CHECKING:
    from tests.support.simulator import World

PARTITION = 0


class RunStateTopic:
    """The last value of each key. `low`: where retention has the log of the records begin, as an index and as an offset."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._values: dict[bytes, bytes] = {}
        self._ended: set[str] = set()  # runs whose end has arrived here
        self.low = 0
        self.marked = -1  # the highest mark that ever was

    def write(self, states: dict[str, RunState], upto: int, after_s: float) -> tuple[bool, float]:
        """Sends snapshots into the network and, once all are acked, the mark. Whether the writer hears of all acks, and until when it
        waits for them: a mark while snapshots of an earlier round are on their way would make readers skip what these hold."""
        world, chance = self._world, self._world.random
        last_s, lost = world.now, False
        through = upto if world.rules.through_is_what_was_read or not world.log else world.log[-1].offset
        for record in snapshots.written(PARTITION, states.values(), through):
            luck = 1.0 if world.calm else chance.random()
            lost = lost or luck < 0.05
            if luck < 0.03:
                continue
            arrives_s = world.now + after_s + (0.05 if luck > 0.2 else chance.uniform(0, 12))
            last_s = max(last_s, arrives_s)
            self._at(arrives_s, record)
            if luck < 0.1:
                self._at(arrives_s + chance.uniform(0, 12), record)
        if not lost or not world.rules.marks_after_acks:
            self._at(last_s + 0.01 if world.rules.marks_after_acks else world.now, Mark(PARTITION, upto))
        return not lost, last_s

    def _at(self, time_s: float, record: snapshots.Record) -> None:
        key, value = snapshots.key_of(record).encode(), msgspec.json.encode(record)

        def arrive() -> None:
            self._values.pop(key, None)  # in the order of the last values, as compaction leaves them
            self._values[key] = value
            if isinstance(record, Mark):
                self.marked = max(self.marked, record.upto)
            elif isinstance(record, Page):
                self._ended.update(state.run_id for state in record.states)

        self._world.at(time_s, arrive)

    def begin(self) -> Beginning:
        log = self._world.log
        records = [snapshots.decode(value, key) for key, value in self._values.items()]
        end = log[-1].offset + 1 if log else 0
        low = log[self.low].offset if self.low < len(log) else end
        return self._world.rules.beginning(records, {PARTITION: (low, end)}, lambda run_id: PARTITION)

    def retain(self) -> None:
        """Retention takes records: never those of a run that has not ended (TooOld ends it two days before), nor any that no snapshot
        has been written of (within these two days)."""
        log, states = self._world.log, self._world.states
        safe = bisect.bisect_right(log, self.marked, key=lambda entry: entry.offset)
        live = next((i for i, entry in enumerate(log) if not states[entry.record.run_id].terminal), len(log))
        self.low = max(self.low, self._world.random.randint(0, min(safe, live)))

    def check(self) -> Iterator[str]:
        """A reader that begins now, with these snapshots and what is left of the log, knows what a reader of the whole log knows. Of a run
        that has ended, is partly cut off, and of whose end there is no snapshot it may know less, if it takes that for gone."""
        world, beginning = self._world, self.begin()
        states = dict(beginning.states)
        cut = {entry.record.run_id for entry in world.log[: self.low]}
        first = position(world.log, beginning)
        world.seen["retention took records"] += self.low > 0
        world.seen["a reader began behind the start"] += first > self.low
        for entry in world.log[first:]:
            run_id = entry.record.run_id
            states[run_id] = world.rules.apply(states.get(run_id), Placed(entry.record, entry.offset, entry.time_ms))
        for run_id, whole in world.states.items():
            if run_id in beginning.gone:
                if not whole.terminal or run_id not in cut or run_id in self._ended:
                    yield f"R2: {run_id} is in the log and taken for gone"
            elif (begun := states.get(run_id)) is None:
                yield f"R1: a reader that began with snapshots has not heard of {run_id}"
            elif begun != whole and not (whole.terminal and essence(begun) == essence(whole)):  # after an end come useless records
                yield f"R1: a reader that began with snapshots takes {run_id} for {begun.state}, it is {whole.state}"


def position(log: list[Entry], beginning: Beginning) -> int:
    """Index of the first record that a reader reads."""
    return bisect.bisect_left(log, beginning.offsets[PARTITION], key=lambda entry: entry.offset)
