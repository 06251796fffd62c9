"""What `run_state` holds, and where a reader may start (design §2.4). Snapshots make a start fast; they are never the truth.

Keys: `<run>/end` (terminal states only, beats live), `<run>/live`, `mark/<partition>` = W, written after the snapshots of all
runs up to W are acked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import msgspec

from kafka_jupyter.errors import BadRecord
from kafka_jupyter.protocol import ids
from kafka_jupyter.runs.state import RunState


class Snapshot(msgspec.Struct, frozen=True, tag_field="type", tag="snapshot"):
    """A RunState after `state.upto`, of a run in `partition`. `distrust`: what its writer believed (trust.Gate.distrust)."""

    partition: int
    state: RunState
    v: int = 1
    distrust: str = ""


class Mark(msgspec.Struct, frozen=True, tag_field="type", tag="mark"):
    """All runs of `partition` up to offset `upto` have snapshots."""

    partition: int
    upto: int
    v: int = 1
    distrust: str = ""


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """In the place of the only snapshot of a run that is there, and that this version cannot read."""

    run_id: str


_decoder: msgspec.json.Decoder[Snapshot | Mark] = msgspec.json.Decoder(Snapshot | Mark)
VERSION = 1


def type_of(record: Snapshot | Mark) -> str:
    return str(record.__struct_config__.tag)


def key_of(record: Snapshot | Mark) -> str:
    if isinstance(record, Mark):
        return f"mark/{record.partition}"
    return f"{record.state.run_id}/{'end' if record.state.terminal else 'live'}"


def decode(value: bytes, key: bytes | None, *, topic: str = "?", partition: int = -1, offset: int = -1) -> Snapshot | Mark:
    """Raises BadRecord. A snapshot that a newer version wrote is no use to us and is bad as well: the log holds the truth."""
    try:
        record = _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(topic=topic, partition=partition, offset=offset, why=str(error)[:200]) from error
    well_named = isinstance(record, Mark) or ids.RUN_ID.match(record.state.run_id)
    if record.v > VERSION or not well_named or key != key_of(record).encode():
        raise BadRecord(topic=topic, partition=partition, offset=offset, why="its key or version does not fit")
    return record


def unreadable(key: bytes) -> Unreadable | None:
    """What stands in for a bad record under this key; None where it can be no snapshot."""
    run_id, _, kind = key.decode("utf-8", "replace").rpartition("/")
    return Unreadable(run_id) if kind in ("live", "end") and ids.RUN_ID.match(run_id) else None


@dataclasses.dataclass(frozen=True)
class Beginning:
    """Where a reader starts: states to begin with, first offset to read by partition, runs that are no longer in the log."""

    states: dict[str, RunState]
    offsets: dict[int, int]
    gone: frozenset[str]
    cut: bool = False  # retention has taken the log's first records


def beginning(
    records: Iterable[Snapshot | Mark | Unreadable], bounds: dict[int, tuple[int, int]], partition_of: Callable[[str], int]
) -> Beginning:
    """Per partition the lowest of W + 1 and `upto` + 1 of every live snapshot; without a mark, the log's start.

    `bounds`: partition → (first offset, offset behind the last). A live snapshot whose `upto` lies below the log's start or at
    or beyond its end never permits a claim or an expiry (its run is in `gone`); it does not hold the start back either, because
    the records that would advance it are not there. A mark promises that every run before it has a snapshot: where one of them cannot be
    read (a newer version may have written it over ours) the partition is read from its start, else that run would be unknown.
    """
    live: dict[str, RunState] = {}
    ended: dict[str, RunState] = {}
    marks: dict[int, int] = {}
    lost: set[str] = set()
    for record in records:
        if isinstance(record, Unreadable):
            lost.add(record.run_id)
        elif isinstance(record, Mark):
            marks[record.partition] = record.upto
        elif record.partition == partition_of(record.state.run_id):
            (ended if record.state.terminal else live)[record.state.run_id] = record.state
    broken = {partition_of(run_id) for run_id in lost - live.keys() - ended.keys()}
    offsets, gone = {}, set()
    for partition, (low, high) in bounds.items():
        mark = marks.get(partition)
        start = mark + 1 if mark is not None and mark < high and partition not in broken else low
        for run_id, state in live.items():
            if run_id in ended or partition_of(run_id) != partition:
                continue
            if not low - 1 <= state.upto < high:
                gone.add(run_id)
            else:
                start = min(start, state.upto + 1)
        offsets[partition] = max(start, low)
    # A reader that begins at the log's start folds everything anew, but for the runs whose records retention took.
    states = {run_id: state for run_id, state in {**live, **ended}.items() if partition_of(run_id) in bounds}
    return Beginning(states, offsets, frozenset(gone), cut=any(low > 0 for low, _ in bounds.values()))
