"""The store in Kafka: what lies in the topics, and what happens when something there is missing, broken or foreign."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from kafka_jupyter.brokers.admin import Admin
from kafka_jupyter.brokers.kafka import Cluster, Message, Partition
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.errors import (
    ArtifactAltered,
    ArtifactMissing,
    ArtifactTooLarge,
    ArtifactTruncated,
    BrokerUnreachable,
    SettingsError,
    StoreUnavailable,
)
from kafka_jupyter.protocol.ids import new_upload_id
from kafka_jupyter.protocol.parts import KafkaRef, UrlRef
from kafka_jupyter.protocol.topics import ARTIFACT, ARTIFACT_INDEX, CHUNK
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import Store, digest, open_store
from kafka_jupyter.store.kafka_scan import Scanner
from kafka_jupyter.store.kafka_store import AFTERMATH
from tests.support import raw
from tests.support.waiting import wait_until

Open = Callable[..., Store]
PROMPT_S = 5.0  # an error about what is missing comes from what the log says, not from a timeout (10 s)
DATA = os.urandom(4 * CHUNK + 5)
PARTS = [DATA[i : i + CHUNK] for i in range(0, len(DATA), CHUNK)]
SHA256, SIZE = digest([DATA])


@pytest.fixture
def log(settings: Settings) -> Iterator[Log]:
    with contextlib.closing(Log.open(Cluster(settings), create=True)) as log:
        yield log


@pytest.fixture
def another(settings: Settings, log: Log) -> Iterator[Open]:
    """Opens the same store again, each time with an empty cache."""
    opened: list[Store] = []

    def open_another(**changes: object) -> Store:
        opened.append(open_store(settings.replace(cache_dir=settings.cache_dir / str(len(opened)), **changes), log))
        return opened[-1]

    yield open_another
    for store in opened:
        store.close()


def records(log: Log, topic: str = ARTIFACT) -> list[Message]:
    return [message for place in log.topics.all_places(topic) for message in log.read_range(place, 0, None)]


def written(log: Log, chunks: list[tuple[int, bytes | None]], **changes: object) -> KafkaRef:
    """An upload of DATA as somebody else may have left it: (number, bytes) in this order; its reference."""
    upload = new_upload_id()
    topic, partition = log.topics.place(ARTIFACT, upload)
    offsets = [raw.write(log, (topic, partition), f"{upload}/{number}".encode(), value) for number, value in chunks]
    ref = KafkaRef(topic, partition, min(offsets), len(PARTS), upload, SIZE, SHA256, max(offsets))
    return msgspec.structs.replace(ref, **changes)


@contextlib.contextmanager
def promptly() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < PROMPT_S


def test_an_upload_is_chunks_of_one_partition_and_its_reference_says_where(log: Log, another: Open) -> None:
    ref = another().put("state", SIZE, [DATA])
    assert isinstance(ref, KafkaRef)
    found = records(log)  # mostly in this order; where the leader has just come up, the first ones are sent again behind the others
    assert sorted((message.key, message.value) for message in found) == [
        (f"{ref.upload}/{i}".encode(), part) for i, part in enumerate(PARTS)
    ]
    assert {(message.topic, message.partition) for message in found} == {(ref.topic, ref.partition)}
    assert (ref.offset, ref.last, ref.chunks) == (found[0].offset, found[-1].offset, 5)


def test_the_index_is_readable_by_any_kafka_tool(log: Log, another: Open) -> None:
    ref = another().put_data("x_train", SIZE, lambda: [DATA], SHA256)
    (begun, done) = records(log, ARTIFACT_INDEX)
    assert (begun.key, done.key) == (f"upload/{ref.upload}".encode(), f"data/{SHA256}".encode())
    assert json.loads(done.value) == {"type": "artifact", "v": 1, "name": "x_train", "ref": msgspec.to_builtins(ref)}


def test_a_data_set_that_ten_runs_use_is_uploaded_once(log: Log, another: Open) -> None:
    stores = [another(), another()]
    stores[0].put_data("x", SIZE, lambda: [DATA], SHA256)
    with ThreadPoolExecutor(10) as pool:
        refs = list(pool.map(lambda n: stores[n % 2].put_data("x", SIZE, lambda: [DATA], SHA256), range(10)))
    assert len(set(refs)) == 1
    assert len(records(log)) == len(PARTS)


def test_a_store_that_has_looked_ahead_is_content_with_that_and_still_sees_what_is_deleted_or_new(
    log: Log, another: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = another(), another()
    first = store.put_data("x", SIZE, lambda: [DATA], SHA256)
    scanned: list[str] = []
    scan = Scanner.scan

    def noting(scanner: Scanner, place: Partition, *rest: int | None) -> Iterator[Message]:
        scanned.append(log.topics.base(place[0]) or "")
        return scan(scanner, place, *rest)

    monkeypatch.setattr(Scanner, "scan", noting)
    store.look_ahead()
    assert scanned == [ARTIFACT_INDEX]
    assert store.put_data("x", SIZE, lambda: [DATA], SHA256) == first
    assert scanned == [ARTIFACT_INDEX, ARTIFACT], "what is behind the chunks is looked at each time"
    other.rm(SHA256)
    second = store.put_data("x", SIZE, lambda: [DATA], SHA256)
    assert second != first
    store.look_ahead()
    store.rm(SHA256)
    assert store.put_data("x", SIZE, lambda: [DATA], SHA256) not in (first, second)
    store.look_ahead()
    more = DATA + b"more"
    theirs = other.put_data("y", len(more), lambda: [more], digest([more])[0])
    assert store.put_data("y", len(more), lambda: [more], digest([more])[0]) == theirs


def test_threads_that_put_the_same_data_set_at_once_send_it_once(log: Log, another: Open) -> None:
    store = another()
    with ThreadPoolExecutor(10) as pool:
        refs = list(pool.map(lambda _: store.put_data("x", SIZE, lambda: [DATA], SHA256), range(10)))
    assert len(set(refs)) == 1
    assert len(records(log)) == len(PARTS)


def test_uploads_that_interleave_in_one_partition_do_not_mix(log: Log, another: Open) -> None:
    other = new_upload_id()
    upload = new_upload_id()
    topic, partition = log.topics.place(ARTIFACT, upload)
    offsets = []
    for number, chunk in enumerate(PARTS):
        raw.write(log, (topic, partition), f"{other}/{number}".encode(), b"foreign")
        offsets.append(raw.write(log, (topic, partition), f"{upload}/{number}".encode(), chunk))
        raw.write(log, (topic, partition), b"\xff/junk", b"junk")
        raw.write(log, (topic, partition), f"{upload}/{10**12}".encode(), b"junk")
    ref = KafkaRef(topic, partition, offsets[0], len(PARTS), upload, SIZE, SHA256, offsets[-1])
    assert another().read(ref) == DATA


@pytest.mark.parametrize("order", [[0, 1, 1, 2, 0, 3, 4, 4], [0, 2, 1, 4, 3]])
def test_duplicates_and_another_order_mean_nothing(log: Log, another: Open, order: list[int]) -> None:
    assert another().read(written(log, [(n, PARTS[n]) for n in order])) == DATA
    assert another().read(written(log, [(n, PARTS[n]) for n in order], last=-1)) == DATA
    another().verify(written(log, [(n, PARTS[n]) for n in order]))
    with pytest.raises(ArtifactAltered):
        another().verify(written(log, [(n, PARTS[n][::-1]) for n in order]))


@pytest.mark.parametrize("missing", range(len(PARTS)))
def test_an_upload_without_one_of_its_chunks_is_truncated(log: Log, another: Open, missing: int) -> None:
    for changes in ({}, {"last": -1}):
        ref = written(log, [(n, PARTS[n]) for n in range(len(PARTS)) if n != missing], **changes)
        raw.write(log, (ref.topic, ref.partition), b"somebody/0", b"else")
        with promptly(), pytest.raises(ArtifactTruncated, match=f"{SIZE - len(PARTS[missing])} bytes are there, {SIZE} were written"):
            another().fetch(ref)


def test_a_chunk_that_lost_bytes_is_truncated(log: Log, another: Open) -> None:
    with promptly(), pytest.raises(ArtifactTruncated, match="incomplete"):
        another().fetch(written(log, [(n, part[:-1]) for n, part in enumerate(PARTS)]))


@pytest.mark.parametrize("damaged", [b"x" * CHUNK, b"x" * (CHUNK + 1)])
def test_altered_bytes_are_found_and_nothing_of_them_is_kept(log: Log, another: Open, damaged: bytes) -> None:
    store = another()
    ref = written(log, [*enumerate(PARTS[:-2]), (3, damaged), (4, PARTS[4])])
    for _ in range(2):
        with promptly(), pytest.raises(ArtifactAltered, match=SHA256):
            store.fetch(ref, "x_train")


def test_a_chunk_beyond_the_end_is_refused(log: Log, another: Open) -> None:
    ref = msgspec.structs.replace(written(log, [*enumerate(PARTS), (10**8, b"x")]), chunks=10**9)
    with promptly(), pytest.raises(ArtifactAltered, match="more bytes"):
        another().fetch(ref)


def test_a_reference_without_chunks_is_missing(log: Log, another: Open, settings: Settings) -> None:
    there = written(log, list(enumerate(PARTS)))
    replace = msgspec.structs.replace
    for nowhere in (
        replace(there, upload=new_upload_id(), partition=there.partition),
        replace(there, offset=10_000, last=10_005),
        replace(there, offset=-5),
        replace(there, topic=f"{settings.topic_prefix}task"),
        replace(there, partition=99),
        replace(there, topic="another.artifact"),
    ):
        with promptly(), pytest.raises(ArtifactMissing):
            another().fetch(nowhere)


def test_a_deleted_upload_is_missing(log: Log, another: Open) -> None:
    deleted = written(log, [(0, PARTS[0]), *((n, None) for n in range(5))], last=-1)
    with promptly(), pytest.raises(ArtifactMissing, match="deleted"):
        another().fetch(deleted)


def test_a_stored_data_set_whose_chunk_was_deleted_is_uploaded_again(log: Log, another: Open) -> None:
    store = another()
    first = store.put_data("x", SIZE, lambda: [DATA], SHA256)
    raw.write(log, (first.topic, first.partition), f"{first.upload}/2".encode(), None)
    for fresh in (store, another()):
        second = fresh.put_data("x", SIZE, lambda: [DATA], SHA256)
        assert second.upload != first.upload
        assert another().read(second) == DATA


def test_a_stored_data_set_stays_in_use_however_much_comes_after_it(log: Log, another: Open) -> None:
    store = another()
    ref = store.put_data("x", SIZE, lambda: [DATA], SHA256)
    for n in range(3 * AFTERMATH):
        log.producer.send(ref.topic, ref.partition, f"other/{n}".encode(), b"x", ())
    log.producer.flush(10)
    refs = [fresh.put_data("x", SIZE, lambda: [DATA], SHA256) for fresh in (store, store, another())]
    assert set(refs) == {ref}


def test_an_index_that_points_into_a_topic_made_anew_is_not_believed(log: Log, another: Open) -> None:
    ref = another().put_data("x", SIZE, lambda: [DATA], SHA256)
    admin = Admin(log.cluster)
    admin.delete([ref.topic])
    wait_until(lambda: ref.topic not in admin.info().partitions, "the old topic never went")
    with (
        contextlib.closing(Log.open(Cluster(log.cluster.settings), create=True)) as fresh,
        contextlib.closing(open_store(log.cluster.settings, fresh)) as store,
    ):
        again = store.put_data("x", SIZE, lambda: [DATA], SHA256)
        assert again.upload != ref.upload
        assert store.read(again) == DATA


def test_an_upload_that_failed_half_way_is_deleted_again(log: Log, another: Open) -> None:
    def broken() -> Iterator[bytes]:
        yield PARTS[0]
        yield PARTS[1]
        raise ZeroDivisionError

    store = another()
    with pytest.raises(ZeroDivisionError):
        store.put("state", SIZE, broken())
    latest = {message.key: message.value for message in records(log)}
    assert set(latest.values()) <= {None}
    assert another().ls() == []


def test_an_upload_of_a_process_that_died_is_listed_and_can_be_removed(log: Log, another: Open) -> None:
    ref = another().put("state", SIZE, [DATA])
    begun = records(log, ARTIFACT_INDEX)[0]
    assert json.loads(begun.value)["ref"]["sha256"] == ""
    store = another()
    assert [stored.id for stored in store.ls()] == [ref.upload]
    store.rm(ref.upload)
    latest = {message.key: message.value for message in records(log)}
    assert latest == {f"{ref.upload}/{n}".encode(): None for n in range(5)}


def test_too_large_a_data_set_is_refused_before_anything_is_sent(log: Log, another: Open) -> None:
    store = another(store_limit=SIZE - 1)
    for put in (lambda: store.put("x_train", SIZE, [DATA]), lambda: store.put_data("x_train", SIZE, lambda: [DATA], SHA256)):
        with pytest.raises(
            ArtifactTooLarge, match=r"x_train has 2\.0 MiB; the store kafka: takes at most 2\.0 MiB\. .*KAFKA_JUPYTER_STORE_LIMIT"
        ):
            put()
    assert records(log) == records(log, ARTIFACT_INDEX) == []


def test_junk_in_the_index_is_counted_and_passed_over(log: Log, another: Open) -> None:
    topic, partition = log.topics.place(ARTIFACT_INDEX, "")
    ref = another().put_data("x", SIZE, lambda: [DATA], SHA256)
    entry = json.loads(records(log, ARTIFACT_INDEX)[-1].value)
    junk = [
        (b"\xff\xfe", os.urandom(50)),
        (f"data/{'0' * 64}".encode(), json.dumps(entry).encode()),
        (f"data/{'1' * 64}".encode(), json.dumps(entry | {"v": 99}).encode()),
        (b"", b'{"foreign": "json"}'),
        (b"data/", b"[" * 10_000),
    ]
    for key, value in junk:
        raw.write(log, (topic, partition), key, value)
    store = another()
    assert store.put_data("x", SIZE, lambda: [DATA], SHA256) == ref
    assert [stored.id for stored in store.ls()] == [SHA256]
    assert log.junk[ARTIFACT_INDEX] == len(junk)


def test_a_reference_to_a_url_names_the_setting_that_is_missing(another: Open) -> None:
    with pytest.raises(StoreUnavailable, match=r"s3://bucket/data/.*KAFKA_JUPYTER_STORE"):
        another().fetch(UrlRef(f"s3://bucket/data/{SHA256}", SIZE, SHA256))


def test_a_store_at_a_url_still_reads_what_lies_in_kafka(another: Open, tmp_path: object) -> None:
    ref = another().put("state", SIZE, [DATA])
    assert another(store=f"file://{tmp_path}/store").read(ref) == DATA


def test_a_broker_that_is_not_there_is_named_within_five_seconds(settings: Settings, log: Log) -> None:
    nowhere = Log(Cluster(settings.replace(bootstrap_servers="127.0.0.1:1", connect_timeout_s=1.0, delivery_timeout_s=1.0)), log.topics)
    with contextlib.closing(open_store(nowhere.cluster.settings, nowhere)) as store:
        started = time.monotonic()
        with pytest.raises(BrokerUnreachable, match=r"127\.0\.0\.1:1"):
            store.put_data("x", SIZE, lambda: [DATA], SHA256)
        with pytest.raises(BrokerUnreachable, match=r"127\.0\.0\.1:1"):
            store.fetch(KafkaRef(log.topics.name(ARTIFACT), 0, 0, 1, "0" * 24, 1, hashlib.sha256(b"").hexdigest()))
        assert time.monotonic() - started < 5


def test_the_kafka_store_needs_a_cluster(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="needs a Kafka cluster"):
        open_store(settings)
