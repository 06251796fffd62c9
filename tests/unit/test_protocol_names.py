"""Names, places and frames that several processes must agree on."""

from __future__ import annotations

import hashlib
import random
import socket
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_jupyter.protocol import frames, ids, parts, topics
from kafka_jupyter.protocol.task import ArraysData, FitArguments, KerasModel, Task


def test_a_run_lives_in_the_same_partition_for_every_client_and_for_ever() -> None:
    """CRC-32, written down: a changed hash would move all runs."""
    assert [topics.partition_of(key, 3) for key in ("digits-3f2a9c01b7d4", "a", "ü")] == [0, 0, 1]
    assert topics.partition_of("123456789", 1 << 32) == 0xCBF43926


@given(st.text(), st.integers(1, 1000))
def test_every_key_has_a_partition(key: str, partitions: int) -> None:
    assert 0 <= topics.partition_of(key, partitions) == zlib.crc32(key.encode()) % partitions < partitions


def test_the_order_of_claims_is_never_compacted_away() -> None:
    table = {spec.name: spec for spec in topics.table(partitions=5, keep_days=30)}
    assert {name for name, spec in table.items() if spec.cleanup == "delete"} == {"task", "run_control", "training_log", "task_dlq"}
    assert {spec.partitions for name, spec in table.items() if name not in ("worker_state", "artifact_index")} == {5}
    assert table["worker_state"].partitions == table["artifact_index"].partitions == 1
    assert table["run_control"].config(1)["retention.ms"] == str(30 * 86_400_000)
    assert "retention.ms" not in table["artifact"].config(1)


@pytest.mark.parametrize(("replication", "in_sync", "flushed"), [(1, "1", True), (2, "1", False), (3, "2", False)])
def test_one_broker_flushes_what_must_survive_and_three_need_two_in_sync(replication: int, in_sync: str, flushed: bool) -> None:
    for spec in topics.table():
        config = spec.config(replication)
        assert config["min.insync.replicas"] == in_sync
        assert config["message.timestamp.type"] == "LogAppendTime"
        assert ("flush.messages" in config) == (flushed and spec.durable)


@given(st.text(max_size=100))
def test_any_name_makes_a_run_id(name: str) -> None:
    run_id = ids.new_run_id(name)
    assert ids.RUN_ID.match(run_id)
    assert ids.short(run_id) == run_id[-12:-8]


def test_a_run_id_reads_like_its_name_and_is_never_used_twice() -> None:
    assert ids.new_run_id("Digits, wide").startswith("digits-wide-")
    assert ids.new_run_id("数字").startswith("run-")
    for new in (lambda: ids.new_run_id("a"), ids.new_nonce, ids.new_request_id, ids.new_upload_id):
        assert len({new() for _ in range(100)}) == 100


@given(st.text(max_size=100), st.integers(0, 2**62))
def test_the_id_of_a_retry_is_the_same_for_everybody_and_another_one_for_each_end(name: str, offset: int) -> None:
    run_id = ids.new_run_id(name)
    again = ids.retry_id(run_id, offset)
    assert ids.RUN_ID.match(again)
    assert again == ids.retry_id(run_id, offset)
    assert again.rpartition("-")[0] == run_id.rpartition("-")[0]
    assert len({run_id, again, ids.retry_id(run_id, offset + 1), ids.retry_id(again, offset)}) == 4
    assert ids.RUN_ID.match(ids.retry_id(name, offset)), "also of what was no run id, as the key of a dead letter may be"


def test_a_small_part_stands_in_the_record_with_its_size_and_hash() -> None:
    text, data = parts.inline("grün".encode(), text=True), parts.inline(b"\0\xff")
    assert (text.size, text.sha256) == (5, hashlib.sha256("grün".encode()).hexdigest())
    assert (data.size, data.sha256) == (2, hashlib.sha256(b"\0\xff").hexdigest())


def test_a_task_names_all_its_parts() -> None:
    part = parts.inline(b"")
    model = KerasModel(config=parts.inline(b"{}", text=True), state=part)
    task = Task("a", "a", "ada", model, ArraysData({}, [part, parts.inline(b"1")]), FitArguments())
    assert task.parts() == {"model": model.config, "state": part, "data/0": part, "data/1": parts.inline(b"1")}


TALK = [frames.Ready(1, 2, "cpu"), frames.Batch(0, 3, None, {"loss": None}), frames.Done({}, {}, False, 1, {"loss": 0.5})]


def test_frames_arrive_whole_however_the_bytes_are_cut() -> None:
    stream = b"".join(frames.pack(frame) for frame in TALK)
    chance = random.Random(5)
    for _ in range(50):
        splitter, got, rest = frames.Splitter(from_child=True), [], stream
        while rest:
            size = chance.randint(1, 40)
            got += splitter.feed(rest[:size])
            rest = rest[size:]
        assert got == TALK


def test_a_peer_that_talks_nonsense_is_a_broken_peer() -> None:
    for junk in (b"\xff" * 8, b"\0\0\0\x01\xc1", b"\0\0\0\x00", frames.pack(frames.Stop()), frames.pack(TALK[0])[:4] + b"\x90" * 99):
        with pytest.raises((msgspec.MsgspecError, ValueError)):
            frames.Splitter(from_child=True).feed(junk)
    with pytest.raises((msgspec.MsgspecError, ValueError)):
        frames.Splitter(from_child=False).feed(frames.pack(TALK[0]))


def test_the_end_of_a_conversation_is_not_an_empty_one() -> None:
    here, there = socket.socketpair()
    with here, there:
        here.sendall(frames.pack(TALK[0])[:3])
        splitter = frames.Splitter(from_child=True)
        assert frames.receive(there, splitter) == []
        here.close()
        assert frames.receive(there, splitter) is None
