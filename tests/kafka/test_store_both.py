"""What both stores do, on a real broker and on a real folder."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.errors import ArtifactAltered, ArtifactMissing, StoreError
from kafka_jupyter.protocol.topics import CHUNK
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import Store, digest, open_store, upload_id

Open = Callable[[], Store]
BIG = os.urandom(20 << 20)


@pytest.fixture(params=["kafka:", "file"])
def another(request: pytest.FixtureRequest, settings: Settings, tmp_path: pathlib.Path) -> Iterator[Open]:
    """Opens the same store again and again, each time with an empty cache, as another machine would."""
    url = f"file://{tmp_path}/store" if request.param == "file" else request.param
    log = Log.open(Cluster(settings), create=True)
    opened: list[Store] = []

    def open_another() -> Store:
        opened.append(open_store(settings.replace(store=url, cache_dir=tmp_path / f"cache-{len(opened)}"), log))
        return opened[-1]

    yield open_another
    for store in opened:
        store.close()
    log.close()


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 20 << 20])
def test_what_was_put_is_fetched_elsewhere(another: Open, size: int) -> None:
    ref = another().put("state", size, [memoryview(BIG)[:size]])
    assert (ref.size, ref.sha256) == (size, hashlib.sha256(BIG[:size]).hexdigest())
    store = another()
    path = store.fetch(ref)
    assert path.read_bytes() == BIG[:size]
    assert path.stat().st_mode & 0o222 == 0
    assert store.fetch(ref) == path
    assert store.read(ref) == BIG[:size]


def test_a_fetched_array_can_be_memory_mapped(another: Open) -> None:
    array = np.arange(500_000, dtype=np.float64)
    path = another().fetch(another().put("x", array.nbytes, [memoryview(array)]))
    assert np.array_equal(np.memmap(path, np.float64, "r"), array)


def test_a_data_set_gets_one_reference_however_often_and_from_wherever_it_is_put(another: Open) -> None:
    size, data = 3 * CHUNK, BIG[: 3 * CHUNK]
    sha256, _ = digest([data])
    first, second = another(), another()
    refs = [store.put_data("x", size, lambda: [data], sha256) for store in (first, second, first, second)]
    assert len(set(refs)) == 1
    assert another().read(refs[0]) == data


def test_runs_get_references_of_their_own(another: Open) -> None:
    store = another()
    refs = [store.put("state", 3, [b"abc"]) for _ in range(3)]
    assert len(set(refs)) == 3


def test_progress_is_told_both_ways(another: Open) -> None:
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    size = 2 * CHUNK + 1
    ref = another().put("state", size, [BIG[:size]], progress=progress)
    assert told[-1] == (size, size)
    told.clear()
    another().fetch(ref, progress=progress)
    assert told[-1] == (size, size)


def test_bytes_that_are_not_those_of_the_digest_are_not_stored(another: Open) -> None:
    store = another()
    sha256, _ = digest([b"before"])
    with pytest.raises(ArtifactAltered, match="x_train"):
        store.put_data("x_train", 5, lambda: [b"after"], sha256)
    with pytest.raises(StoreError, match="gave only 3"):
        store.put("state", 6, [b"abc"])
    assert store.ls() == []


def test_a_list_names_data_sets_by_digest_and_all_else_by_id(another: Open) -> None:
    store = another()
    sha256, size = digest([b"data"])
    store.put_data("x_train", size, lambda: [b"data"], sha256)
    store.put("weights", 7, [b"weights"])
    data, upload = sorted(another().ls(), key=lambda stored: stored.kind)
    assert (data.kind, data.id, data.size) == ("data", sha256, 4)
    assert (upload.kind, upload.size) == ("upload", 7)
    assert data.stored_ms > 1_600_000_000_000


def test_what_is_removed_is_gone_and_can_be_put_again(another: Open) -> None:
    store = another()
    sha256, size = digest([b"data"])
    ref = store.put_data("x_train", size, lambda: [b"data"], sha256)
    run = store.put("weights", 7, [b"weights"])
    assert store.read(ref) == b"data"
    store.rm(sha256)
    store.rm(run)
    assert another().ls() == []
    for gone in (ref, run):
        with pytest.raises(ArtifactMissing):
            store.fetch(gone)
    for never in (sha256, "0" * 24, "nonsense"):
        with pytest.raises(ArtifactMissing):
            store.rm(never)
    again = another().put_data("x_train", size, lambda: [b"data"], sha256)
    assert another().read(again) == b"data"


def test_an_upload_can_be_removed_by_the_id_that_the_list_gives(another: Open) -> None:
    store = another()
    store.put("weights", 7, [b"weights"])
    store.rm(another().ls()[0].id)
    assert another().ls() == []


def test_what_was_put_for_an_owner_is_found_by_any_other_process(another: Open) -> None:
    refs = [another().put(name, 3, [b"abc"], owner="digits-3f2a/1") for name in ("state", "outcome")]
    another().put("state", 3, [b"abc"], owner="digits-3f2a/11")
    another().put("state", 3, [b"abc"])
    assert sorted(another().uploads_of("digits-3f2a/1")) == sorted(map(upload_id, refs))
    another().rm(refs[0])
    assert another().uploads_of("digits-3f2a/1") == [upload_id(refs[1])]


def test_many_threads_put_and_fetch_at_once(another: Open) -> None:
    source, target = another(), another()

    def there_and_back(number: int) -> bool:
        data = number.to_bytes(2, "big") + BIG[: number * 100_000]
        ref = source.put(f"state-{number}", len(data), [data])
        return target.fetch(ref).read_bytes() == data

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, range(40)))
