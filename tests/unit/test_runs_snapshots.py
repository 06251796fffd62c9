"""Snapshots make a start fast and are never the truth: whoever begins from them ends where a reader of the whole log ends (§2.4)."""

from __future__ import annotations

import dataclasses
import functools
import zlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_jupyter.errors import BadRecord
from kafka_jupyter.protocol import control
from kafka_jupyter.runs import snapshots
from kafka_jupyter.runs.snapshots import Beginning, Mark, Page, Snapshot
from kafka_jupyter.runs.state import Placed, RunState, apply
from tests.support import simulator
from tests.support.log_checker import essence
from tests.support.records import RUN, claimed, fold, of_attempt, request, submitted

PARTITION = 1


@functools.cache
def _log(seed: int) -> tuple[Placed, ...]:
    """One partition's records, of about six runs: some histories of the simulator, one behind the other and interleaved."""
    merged = sorted(
        ((7.0 * i + entry.time_s, entry.offset, i, entry.record) for i in range(4) for entry in simulator.play(seed * 4 + i).log),
        key=lambda found: found[:3],
    )
    offsets = {(i, offset): 3 * place for place, (_, offset, i, _) in enumerate(merged)}
    log = []
    for time_s, offset, i, record in merged:
        record = msgspec.structs.replace(record, run_id=f"{record.run_id}-{i}")
        if isinstance(record, control.Expired):
            record = msgspec.structs.replace(record, after=offsets[i, record.after])
        log.append(Placed(record, offsets[i, offset], int(time_s * 1000)))
    return tuple(log)


def _fold(log: tuple[Placed, ...], beginning: Beginning | None = None) -> dict[str, RunState]:
    """What a reader knows at the end, that begins there and reads what is still in the log."""
    states = dict(beginning.states) if beginning else {}
    for placed in log:
        if beginning is None or placed.offset >= beginning.offsets[PARTITION]:
            states[placed.record.run_id] = apply(states.get(placed.record.run_id), placed)
    return states


def _meaning(states: dict[str, RunState]) -> dict[str, RunState]:
    """Ends are compared without what came after them: their snapshot may be older than a useless late record."""
    return {run_id: essence(state) if state.terminal else state for run_id, state in states.items()}


class Topic:
    """The compacted `run_state`: the last value of each key."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}

    def write(self, record: snapshots.Record) -> None:
        self._values[snapshots.key_of(record).encode()] = msgspec.json.encode(record)

    def read(self) -> list[snapshots.Record]:
        return [snapshots.decode(value, key) for key, value in self._values.items()]

    def begin(self, low: int, high: int) -> Beginning:
        return snapshots.beginning(self.read(), {PARTITION: (low, high)}, lambda run_id: PARTITION)


@dataclasses.dataclass
class Writer:
    """Somebody who had read up to a point and writes what it knows then: everything and the mark, or, a zombie, only some of it."""

    read: int  # records
    runs: float  # the share of runs it gets to
    mark: bool

    def write(self, topic: Topic, log: tuple[Placed, ...]) -> None:
        states = _fold(log[: self.read])
        through = log[self.read - 1].offset if self.read else -1
        for record in snapshots.written(PARTITION, list(states.values())[: int(len(states) * self.runs) + 1], through):
            topic.write(record)
        if self.mark and self.runs == 1.0 and self.read:
            topic.write(Mark(PARTITION, log[self.read - 1].offset))


WRITERS = st.lists(st.builds(Writer, read=st.integers(0, 400), runs=st.sampled_from([1.0, 1.0, 0.5, 0.0]), mark=st.booleans()), max_size=5)


def _written(log: tuple[Placed, ...], writers: list[Writer]) -> Topic:
    topic = Topic()
    for writer in writers:
        dataclasses.replace(writer, read=min(writer.read, len(log))).write(topic, log)
    return topic


@settings(max_examples=60)
@given(st.integers(0, 40), WRITERS)
def test_a_reader_that_begins_with_any_snapshots_ends_with_the_states_of_the_whole_log(seed: int, writers: list[Writer]) -> None:
    log = _log(seed)
    beginning = _written(log, writers).begin(0, log[-1].offset + 1)
    assert beginning.gone == frozenset()
    assert _meaning(_fold(log, beginning)) == _meaning(_fold(log))


@settings(max_examples=80)
@given(st.integers(0, 40), WRITERS, st.floats(0, 1), st.floats(0, 1))
def test_after_retention_every_run_that_may_be_claimed_is_as_in_the_whole_log(
    seed: int, zombies: list[Writer], taken: float, behind: float
) -> None:
    log = _log(seed)
    first = int(taken * (len(log) - 1))
    honest = Writer(first + int(behind * (len(log) - first)), 1.0, True)  # snapshots are written before retention takes records
    low, high = log[first].offset, log[-1].offset + 1
    beginning = _written(log, [honest, *zombies]).begin(low, high)
    assert beginning.offsets[PARTITION] >= low
    begun, whole = _meaning(_fold(log[first:], beginning)), _meaning(_fold(log))
    assert set(begun) == set(whole)
    for run_id, state in whole.items():
        if run_id not in beginning.gone:
            assert begun[run_id] == state
    assert all(not beginning.states[run_id].terminal for run_id in beginning.gone)


@settings(max_examples=40)
@given(st.integers(0, 40), WRITERS, st.floats(0, 1))
def test_a_log_that_lost_its_end_is_read_from_its_start(seed: int, writers: list[Writer], lost: float) -> None:
    log = _log(seed)
    kept = log[: int(lost * len(log))]
    high = kept[-1].offset + 1 if kept else 0
    beginning = _written(log, writers).begin(0, high)
    begun, whole = _meaning(_fold(kept, beginning)), _meaning(_fold(kept))
    for run_id, state in begun.items():
        if not state.terminal and run_id not in beginning.gone:
            assert state == whole[run_id]


def test_without_snapshots_a_reader_begins_at_the_start_of_the_log() -> None:
    assert Topic().begin(17, 40) == Beginning({}, {PARTITION: 17}, frozenset(), cut=True)
    assert Topic().begin(0, 40) == Beginning({}, {PARTITION: 0}, frozenset(), cut=False)


def _state(run_id: str, upto: int, *records: control.Record) -> RunState:
    state = fold(records or [submitted()])
    return msgspec.structs.replace(state, run_id=run_id, upto=upto)


def test_a_reader_begins_behind_the_mark_or_behind_the_oldest_live_snapshot() -> None:
    topic = Topic()
    topic.write(Mark(PARTITION, 30))
    assert topic.begin(0, 50).offsets == {PARTITION: 31}
    topic.write(Snapshot(PARTITION, _state("a", 12)))
    topic.write(Snapshot(PARTITION, _state("b", 40)))
    assert topic.begin(0, 50).offsets == {PARTITION: 13}
    topic.write(Snapshot(PARTITION, _state("a", 20, claimed(), of_attempt(control.Succeeded))))
    assert topic.begin(0, 50).offsets == {PARTITION: 31}, "an end beats what was live"
    assert topic.begin(0, 50).states["a"].terminal


def test_a_run_that_says_nothing_holds_nobody_back_for_longer_than_its_snapshot_is_old() -> None:
    topic = Topic()
    topic.write(Mark(PARTITION, 30))
    topic.write(Snapshot(PARTITION, _state("a", 12), through=25))
    assert topic.begin(0, 50).offsets == {PARTITION: 26}
    assert topic.begin(0, 50).through == {"a": 25}
    assert topic.begin(0, 25).offsets == {PARTITION: 0}, "the log has lost its end: neither that nor the mark is of this log"
    assert topic.begin(14, 50).gone == {"a"}, "retention took its records, whoever speaks of it later"
    topic.write(Snapshot(PARTITION, _state("a", 40), through=25))
    assert topic.begin(0, 50).through == {"a": 40}


def _ended(run_id: str, upto: int = 20, notebook: str = "") -> RunState:
    return _state(run_id, upto, submitted(notebook=notebook), claimed(), of_attempt(control.Succeeded))


def test_runs_that_have_ended_share_pages_of_a_bounded_size() -> None:
    half = "n" * (snapshots.PAGE_BYTES // 2 - 2000)
    states = [_ended("a", notebook=half), _state("l", 7), _ended("b", notebook=half), _ended("c"), _ended("d", notebook=3 * half)]
    records = list(snapshots.written(PARTITION, [*states, _ended("e")], 30, "x"))
    pages = [[state.run_id for state in record.states] for record in records if isinstance(record, Page)]
    assert pages == [["a", "b", "c"], ["d"], ["e"]]
    assert [record for record in records if isinstance(record, Snapshot)] == [Snapshot(PARTITION, states[1], distrust="x", through=30)]
    assert {record.distrust for record in records} == {"x"}
    topic = Topic()
    for record in [*records, Mark(PARTITION, 30)]:
        topic.write(record)
    assert topic.begin(0, 50).offsets == {PARTITION: 31}
    assert set(topic.begin(0, 50).states) == {"a", "b", "c", "d", "e", "l"}
    assert snapshots.beginning(topic.read(), {PARTITION: (0, 50)}, lambda run_id: PARTITION + (run_id == "b")).states.keys() == set("acdel")
    assert list(snapshots.written(PARTITION, [], 30)) == []


def test_pages_of_other_runs_have_other_keys() -> None:
    one, two = Page(0, [_ended("a"), _ended("b")]), Page(0, [_ended("a")])
    assert snapshots.key_of(one) != snapshots.key_of(two)
    assert snapshots.key_of(one) == snapshots.key_of(Page(0, [_ended("a", 29), _ended("b")]))
    assert snapshots.key_of(one).startswith("page/0/")


def test_a_mark_is_not_believed_where_a_page_cannot_be_read() -> None:
    bad = snapshots.unreadable(snapshots.key_of(Page(PARTITION, [_ended("a")])).encode())
    assert bad is not None
    bounds = {PARTITION: (4, 50), 2: (4, 50)}
    assert snapshots.beginning([Mark(PARTITION, 30), Mark(2, 30), bad], bounds, lambda _: PARTITION).offsets == {PARTITION: 4, 2: 31}


@pytest.mark.parametrize(("upto", "gone"), [(8, True), (9, False), (10, False), (49, False), (50, True), (99, True)])
def test_a_live_snapshot_outside_the_log_is_gone(upto: int, gone: bool) -> None:
    topic = Topic()
    topic.write(Snapshot(PARTITION, _state("a", upto)))
    beginning = topic.begin(10, 50)
    assert (beginning.gone == {"a"}) == gone
    assert "a" in beginning.states, "it is shown all the same"
    assert beginning.offsets == {PARTITION: 10}


@pytest.mark.parametrize("kind", ["live", "end"])
def test_a_mark_is_not_believed_where_the_only_snapshot_of_a_run_cannot_be_read(kind: str) -> None:
    """A newer version wrote it over the one that the mark speaks of. Without its records the run would be unknown: as if it waited."""
    bad = snapshots.unreadable(f"{RUN}/{kind}".encode())
    assert bad is not None
    records = [Mark(PARTITION, 30), Mark(2, 30), bad]
    bounds = {PARTITION: (4, 50), 2: (4, 50)}
    assert snapshots.beginning(records, bounds, lambda _: PARTITION).offsets == {PARTITION: 4, 2: 31}
    older = Snapshot(PARTITION, _state(RUN, 12))
    assert snapshots.beginning([*records, older], bounds, lambda _: PARTITION).offsets == {PARTITION: 13, 2: 31}


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"mark/0",
        b"live",
        b"Not A Run/live",
        b"\xff/live",
        f"{RUN}/other".encode(),
        b"page/0",
        b"page/x/1",
        "page/²/1".encode(),
        b"page/99999999999/1",
    ],
)
def test_a_bad_record_under_a_key_of_no_run_stands_for_nothing(key: bytes) -> None:
    assert snapshots.unreadable(key) is None


@pytest.mark.parametrize("upto", [50, 99])
def test_a_mark_beyond_the_log_is_not_believed(upto: int) -> None:
    topic = Topic()
    topic.write(Mark(PARTITION, upto))
    assert topic.begin(10, 50).offsets == {PARTITION: 10}


def test_a_snapshot_for_another_partition_than_its_run_lives_in_is_passed_over() -> None:
    """The topic was made anew with another count of partitions, or somebody wrote nonsense."""
    records: list[snapshots.Record] = [Snapshot(0, _state("a", 5)), Snapshot(1, _state("b", 5)), Mark(0, 7), Mark(1, 9), Mark(4, 9)]
    beginning = snapshots.beginning(records, {0: (0, 50), 1: (0, 50)}, lambda run_id: zlib.crc32(run_id.encode()) % 2)
    expected = {"a", "b"} & {run for run, where in (("a", 0), ("b", 1)) if zlib.crc32(run.encode()) % 2 == where}
    assert set(beginning.states) == expected


def test_a_reader_of_some_partitions_gets_only_their_runs() -> None:
    records: list[snapshots.Record] = [Snapshot(0, _state("a", 5)), Snapshot(1, _state("b", 3)), Mark(0, 7), Mark(1, 9)]
    beginning = snapshots.beginning(records, {1: (0, 50)}, lambda run_id: 0 if run_id == "a" else 1)
    assert (set(beginning.states), beginning.offsets) == ({"b"}, {1: 4})


def test_keys_tell_live_from_end_and_marks_by_partition() -> None:
    assert snapshots.key_of(Snapshot(0, fold([submitted()]))) == f"{RUN}/live"
    assert snapshots.key_of(Snapshot(0, fold([request(control.CancelRequested)]))) == f"{RUN}/end"
    assert snapshots.key_of(Mark(2, 9)) == "mark/2"
    assert [snapshots.type_of(record) for record in (Snapshot(0, fold([submitted()])), Mark(2, 9))] == ["snapshot", "mark"]


LIVE = Snapshot(0, fold([submitted(), claimed(), of_attempt(control.Started)]))


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b"", b"x"), (b"null", b"x"), (b"\xff", b"x"), (b'{"type":"mark"}', b"mark/0"), (b"[" * 5000, b"x"),
        (msgspec.json.encode(LIVE), b"other/live"), (msgspec.json.encode(LIVE), f"{RUN}/end".encode()), (msgspec.json.encode(LIVE), None),
        (msgspec.json.encode(msgspec.structs.replace(LIVE, v=3)), f"{RUN}/live".encode()),
        (msgspec.json.encode(Page(0, [LIVE.state])), snapshots.key_of(Page(0, [LIVE.state])).encode()),
        (msgspec.json.encode(Page(0, [_ended(RUN)])), b"page/1/0"),
        (msgspec.json.encode(Page(0, [_ended("Not A Run")])), snapshots.key_of(Page(0, [_ended("Not A Run")])).encode()),
        (msgspec.json.encode(Snapshot(0, RunState("Not A Run"))), b"Not A Run/live"),
        (msgspec.json.encode(LIVE).replace(b'"RUNNING"', b'"DANCING"'), f"{RUN}/live".encode()),
    ],
)  # fmt: skip
def test_what_is_no_snapshot_is_a_bad_record(value: bytes, key: bytes | None) -> None:
    with pytest.raises(BadRecord):
        snapshots.decode(value, key, topic="run_state", partition=0, offset=3)
    assert snapshots.decode(msgspec.json.encode(LIVE), f"{RUN}/live".encode()) == LIVE
