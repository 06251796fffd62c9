"""What `run_state` holds, and where a reader may start (design §2.4). Snapshots make a start fast; they are never the truth.

Keys: `<run>/live`, `page/<partition>/<digest of its runs>` (runs that have ended, many in one record: they beat live), `mark/<partition>`
= W, written after the snapshots of all runs up to W are acked. (`<run>/end`, one ended run in a record, is what older versions wrote.)
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator

import msgspec

from kafka_jupyter.errors import BadRecord
from kafka_jupyter.protocol import ids
from kafka_jupyter.runs.state import RunState

PAGE_BYTES = 256 << 10  # of the states in a page; one that is larger has a page of its own
VERSION = 2  # a version that knows no pages must not believe a mark that speaks of runs in them: it reads the log from its start


class Snapshot(msgspec.Struct, frozen=True, tag_field="type", tag="snapshot"):
    """A RunState after `state.upto`, of a run in `partition`; no record of the run stands behind that up to `through`, which a run that
    waits for weeks needs: its own last record is old. `distrust`: what its writer believed (trust.Gate.distrust)."""

    partition: int
    state: RunState
    v: int = 1
    distrust: str = ""
    through: int = -1


class Page(msgspec.Struct, frozen=True, tag_field="type", tag="page"):
    """Runs of `partition` that have ended: ten thousand records with a signature each would take seconds to judge."""

    partition: int
    states: list[RunState]
    v: int = VERSION
    distrust: str = ""


class Mark(msgspec.Struct, frozen=True, tag_field="type", tag="mark"):
    """All runs of `partition` up to offset `upto` have snapshots."""

    partition: int
    upto: int
    v: int = VERSION
    distrust: str = ""


Record = Snapshot | Page | Mark


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """In the place of the only snapshot of a run that is there (or of a page of `partition`), and that this version cannot read."""

    run_id: str = ""
    partition: int | None = None


_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


def written(partition: int, states: Iterable[RunState], through: int, distrust: str = "") -> Iterator[Snapshot | Page]:
    """What is to be written of these runs by somebody who has folded the partition up to `through`."""
    ended: list[RunState] = []
    size = 0
    for state in states:
        if not state.terminal:
            yield Snapshot(partition, state, distrust=distrust, through=through)
            continue
        taken = len(msgspec.json.encode(state))
        if ended and size + taken > PAGE_BYTES:
            yield Page(partition, ended, distrust=distrust)
            ended, size = [], 0
        ended.append(state)
        size += taken
    if ended:
        yield Page(partition, ended, distrust=distrust)


def type_of(record: Record) -> str:
    return str(record.__struct_config__.tag)


def key_of(record: Record) -> str:
    if isinstance(record, Mark):
        return f"mark/{record.partition}"
    if isinstance(record, Page):  # by its runs: another writer's page of other runs is not lost under it, the same one again is no second
        named = hashlib.blake2b("/".join(state.run_id for state in record.states).encode(), digest_size=12)
        return f"page/{record.partition}/{named.hexdigest()}"
    return f"{record.state.run_id}/{'end' if record.state.terminal else 'live'}"


def decode(value: bytes, key: bytes | None, *, topic: str = "?", partition: int = -1, offset: int = -1) -> Record:
    """Raises BadRecord. A snapshot that a newer version wrote is no use to us and is bad as well: the log holds the truth."""
    try:
        record = _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(topic=topic, partition=partition, offset=offset, why=str(error)[:200]) from error
    states = record.states if isinstance(record, Page) else [record.state] if isinstance(record, Snapshot) else []
    well_named = all(ids.RUN_ID.match(state.run_id) for state in states)
    ended = not isinstance(record, Page) or all(state.terminal for state in states)
    if record.v > VERSION or not well_named or not ended or key != key_of(record).encode():
        raise BadRecord(topic=topic, partition=partition, offset=offset, why="its key or version does not fit")
    return record


def unreadable(key: bytes) -> Unreadable | None:
    """What stands in for a bad record under this key; None where it can be no snapshot."""
    parts = key.decode("utf-8", "replace").split("/")
    if len(parts) == 3 and parts[0] == "page" and parts[1].isascii() and parts[1].isdigit() and len(parts[1]) < 10:
        return Unreadable(partition=int(parts[1]))
    if len(parts) == 2 and parts[1] in ("live", "end") and ids.RUN_ID.match(parts[0]):
        return Unreadable(parts[0])
    return None


@dataclasses.dataclass(frozen=True)
class Beginning:
    """Where a reader starts: states to begin with, first offset to read by partition, runs that are no longer in the log."""

    states: dict[str, RunState]
    offsets: dict[int, int]
    gone: frozenset[str]
    cut: bool = False  # retention has taken the log's first records
    through: dict[str, int] = dataclasses.field(default_factory=dict)  # run that lives → up to where its snapshot speaks of it


def beginning(records: Iterable[Record | Unreadable], bounds: dict[int, tuple[int, int]], partition_of: Callable[[str], int]) -> Beginning:
    """Per partition the lowest of W + 1 and `through` + 1 of every live snapshot; without a mark, the log's start.

    `bounds`: partition → (first offset, offset behind the last). A live snapshot whose `upto` lies below the log's start or at
    or beyond its end never permits a claim or an expiry (its run is in `gone`); it does not hold the start back either, because
    the records that would advance it are not there. A mark promises that every run before it has a snapshot: where one of them cannot be
    read (a newer version may have written it over ours) the partition is read from its start, else that run would be unknown.
    """
    live: dict[str, Snapshot] = {}
    ended: dict[str, RunState] = {}
    marks: dict[int, int] = {}
    lost: set[str] = set()
    broken: set[int] = set()
    for record in records:
        if isinstance(record, Unreadable):
            if record.partition is None:
                lost.add(record.run_id)
            else:
                broken.add(record.partition)
        elif isinstance(record, Mark):
            marks[record.partition] = record.upto
        elif isinstance(record, Page):
            ended.update((state.run_id, state) for state in record.states if partition_of(state.run_id) == record.partition)
        elif record.partition == partition_of(record.state.run_id):
            if record.state.terminal:
                ended[record.state.run_id] = record.state
            else:
                live[record.state.run_id] = record
    broken |= {partition_of(run_id) for run_id in lost - live.keys() - ended.keys()}
    live = {run_id: snapshot for run_id, snapshot in live.items() if run_id not in ended and snapshot.partition in bounds}
    starts = {}
    for partition, (low, high) in bounds.items():
        mark = marks.get(partition)
        starts[partition] = mark + 1 if mark is not None and mark < high and partition not in broken else low
    gone, through = set(), {}
    for run_id, snapshot in live.items():
        (low, high), upto = bounds[snapshot.partition], snapshot.state.upto
        if not low - 1 <= upto < high:
            gone.add(run_id)
            continue
        through[run_id] = max(upto, snapshot.through) if snapshot.through < high else upto
        starts[snapshot.partition] = min(starts[snapshot.partition], through[run_id] + 1)
    # A reader that begins at the log's start folds everything anew, but for the runs whose records retention took.
    states = {run_id: snapshot.state for run_id, snapshot in live.items()}
    states |= {run_id: state for run_id, state in ended.items() if partition_of(run_id) in bounds}
    offsets = {partition: max(start, bounds[partition][0]) for partition, start in starts.items()}
    return Beginning(states, offsets, frozenset(gone), cut=any(low > 0 for low, _ in bounds.values()), through=through)
