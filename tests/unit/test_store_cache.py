"""The local cache of artifacts. Parts that stand in the record are enough to fill it."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import pathlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from kafka_jupyter.errors import ArtifactAltered, StoreError
from kafka_jupyter.protocol.parts import InlineBytes, InlineText, UrlRef
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import Store, open_store
from kafka_jupyter.store.cache import Cache, Incoming

SIZE = 1000


@contextlib.contextmanager
def opened(settings: Settings, limit: int = 10 * SIZE) -> Iterator[Store]:
    """A store whose references nobody needs, and its cache."""
    store = open_store(settings.replace(store=f"file://{settings.data_dir}/store", cache_limit=limit))
    with contextlib.closing(store):
        yield store


def part(number: int) -> InlineBytes:
    return InlineBytes(number.to_bytes(4, "big") * (SIZE // 4))


class _Lie(InlineBytes, tag="lie"):  # type: ignore[call-arg]
    """A part that is not what its digest says."""

    @property
    def sha256(self) -> str:
        return "0" * 64


def files(settings: Settings) -> list[pathlib.Path]:
    return sorted((settings.cache_dir / "artifacts").iterdir())


def test_a_part_in_the_record_becomes_a_read_only_file(bare_settings: Settings) -> None:
    with opened(bare_settings) as store:
        path = store.fetch(InlineText("Grüße"))
        assert path.read_text("utf-8") == "Grüße"
        assert path.stat().st_mode & 0o777 == 0o444
        assert store.read(InlineText("Grüße")) == "Grüße".encode()
        assert store.fetch(InlineBytes(b"")).read_bytes() == b""


def test_the_least_recently_used_files_go_first(bare_settings: Settings) -> None:
    with opened(bare_settings) as store:
        paths = [store.fetch(part(n)) for n in range(10)]
        store.fetch(part(0))
        store.fetch(part(10))
        assert paths[0].exists()
        assert not paths[1].exists()
        assert sum(path.stat().st_size for path in files(bare_settings)) == 10 * SIZE


def test_the_limit_counts_what_another_process_has_left_behind(bare_settings: Settings) -> None:
    with opened(bare_settings) as store:
        for n in range(10):
            store.fetch(part(n))
    with opened(bare_settings, limit=5 * SIZE) as store:
        newest = store.fetch(part(10))
        assert len(files(bare_settings)) == 5
        assert newest.exists()


def test_an_artifact_larger_than_the_cache_is_still_there_for_whoever_asked(bare_settings: Settings) -> None:
    with opened(bare_settings, limit=SIZE // 2) as store:
        assert store.fetch(part(1)).stat().st_size == SIZE


def test_a_mapped_file_outlives_its_eviction(bare_settings: Settings) -> None:
    with opened(bare_settings, limit=SIZE) as store:
        path = store.fetch(part(1))
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            store.fetch(part(2))
            assert not path.exists()
            assert mapped[:] == part(1).data


def test_a_leased_file_stays_until_the_lease_ends(bare_settings: Settings) -> None:
    with opened(bare_settings, limit=2 * SIZE) as store, opened(bare_settings, limit=2 * SIZE) as other:
        with store.lease() as lease:
            path = lease.fetch(part(0))
            for n in range(1, 5):
                store.fetch(part(n))
                other.fetch(part(n + 10))
            assert path.exists()
        other.fetch(part(20))
        other.fetch(part(21))
        assert not path.exists()


def test_a_leased_file_stays_although_another_process_fetches_the_same_meanwhile(bare_settings: Settings) -> None:
    ours, other = Cache(bare_settings.cache_dir, 2 * SIZE), Cache(bare_settings.cache_dir, 2 * SIZE)

    def fetched(cache: Cache, file: Incoming, wanted: InlineBytes) -> pathlib.Path:
        file.write(0, wanted.data)
        return cache.keep(file, file.sha256())

    with ours.incoming() as first, other.incoming() as second:
        path = fetched(ours, first, part(0))
        held = ours.hold(path)
        assert held is not None
        assert fetched(other, second, part(0)) == path
    for n in range(1, 5):
        with other.incoming() as file:
            fetched(other, file, part(n))
    assert path.read_bytes() == part(0).data
    os.close(held)


def test_the_leases_of_many_attempts_do_not_use_up_descriptors(bare_settings: Settings) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with opened(bare_settings) as store:
        for n in range(300):
            with store.lease() as lease:
                lease.fetch(part(n))
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("damage", [b"x" * SIZE, b"short"])
def test_a_damaged_file_is_replaced(bare_settings: Settings, damage: bytes) -> None:
    with opened(bare_settings) as store:
        path = store.fetch(part(1))
        path.chmod(0o644)
        path.write_bytes(damage)
        assert store.fetch(part(1)).read_bytes() == part(1).data


def test_damage_that_keeps_size_and_time_is_found_by_the_next_process(bare_settings: Settings) -> None:
    with opened(bare_settings) as store:
        path = store.fetch(part(1))
        before = path.stat()
        path.chmod(0o644)
        path.write_bytes(b"x" * SIZE)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with opened(bare_settings) as store:
        assert store.fetch(part(1)).read_bytes() == part(1).data


def test_a_digest_that_is_none_never_becomes_a_file_name(bare_settings: Settings) -> None:
    with opened(bare_settings) as store, pytest.raises(ArtifactAltered):
        store.fetch(UrlRef("file:///etc/passwd", 3, "../../../../tmp/x"))


def test_many_threads_share_one_download(bare_settings: Settings) -> None:
    told: list[int] = []
    lock = threading.Lock()

    def fetch(store: Store) -> bytes:
        def progress(done: int, total: int) -> None:
            with lock:
                told.append(done)

        return store.fetch(part(7), progress=progress).read_bytes()

    with opened(bare_settings) as store, ThreadPoolExecutor(16) as pool:
        assert set(pool.map(fetch, [store] * 64)) == {part(7).data}
    assert told == [SIZE]


def test_unfinished_downloads_of_dead_processes_are_removed_after_a_day(bare_settings: Settings) -> None:
    with opened(bare_settings) as store:
        left = bare_settings.cache_dir / "incoming" / "left"
        fresh = bare_settings.cache_dir / "incoming" / "fresh"
        for path in (left, fresh):
            path.write_bytes(b"half")
        os.utime(left, (time.time() - 90_000,) * 2)
        store.fetch(part(1))
        assert not left.exists()
        assert fresh.exists()


def test_a_failed_download_leaves_nothing_behind(bare_settings: Settings) -> None:
    with opened(bare_settings) as store, pytest.raises(ArtifactAltered):
        store.fetch(_Lie(b"half"))
    assert list((bare_settings.cache_dir / "incoming").iterdir()) == []


def test_pieces_may_come_in_any_order(bare_settings: Settings) -> None:
    cache = Cache(bare_settings.cache_dir, SIZE)
    with cache.incoming() as file:
        file.write(3, b"def")
        file.write(0, b"abc")
        assert file.sha256() == hashlib.sha256(b"abcdef").hexdigest()


def test_a_cache_folder_that_cannot_be_used_is_named_with_its_setting(bare_settings: Settings, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="KAFKA_JUPYTER_CACHE_DIR"), opened(bare_settings.replace(cache_dir=tmp_path / "file")):
        pass
