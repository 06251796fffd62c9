"""What only the fsspec store has to say; what both stores do is in tests/kafka/test_store_both.py."""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import io
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile

from kafka_jupyter.errors import ArtifactAltered, ArtifactMissing, ArtifactTruncated, SettingsError, StoreError, StoreUnavailable
from kafka_jupyter.protocol.parts import KafkaRef, UrlRef
from kafka_jupyter.protocol.topics import CHUNK
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import open_store

DATA = b"weights"
SHA256 = hashlib.sha256(DATA).hexdigest()


def listing(folder: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_data_sets_lie_under_their_digest_and_all_else_under_an_id(bare_settings: Settings, tmp_path: pathlib.Path) -> None:
    with contextlib.closing(open_store(bare_settings.replace(store=f"file://{tmp_path}/store"))) as store:
        data = store.put_data("x", len(DATA), lambda: [DATA], SHA256)
        run = store.put("state", len(DATA), [DATA])
        assert isinstance(data, UrlRef)
        assert isinstance(run, UrlRef)
        assert listing(tmp_path / "store") == [f"data/{SHA256}", run.url.partition("/store/")[2]]
        assert data.url == f"file://{tmp_path}/store/data/{SHA256}"


def test_the_same_share_may_be_mounted_at_another_place(bare_settings: Settings, tmp_path: pathlib.Path) -> None:
    with contextlib.closing(open_store(bare_settings.replace(store=f"file://{tmp_path}/here"))) as store:
        ref = store.put_data("x", len(DATA), lambda: [DATA], SHA256)
    shutil.move(tmp_path / "here", tmp_path / "there")
    with contextlib.closing(open_store(bare_settings.replace(store=f"file://{tmp_path}/there"))) as store:
        assert store.read(ref) == DATA


def test_a_reference_never_makes_us_read_a_place_that_was_not_configured(bare_settings: Settings, tmp_path: pathlib.Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(DATA)
    with contextlib.closing(open_store(bare_settings.replace(store=f"file://{tmp_path}/store"))) as store:
        for url in (f"file://{secret}", f"{store.url}/runs/../../secret", f"http://127.0.0.1:1/data/{SHA256}"):
            with pytest.raises(ArtifactMissing):
                store.fetch(UrlRef(url, len(DATA), SHA256))


def test_a_write_that_fails_leaves_nothing_behind(bare_settings: Settings, tmp_path: pathlib.Path) -> None:
    def broken() -> list[bytes]:
        raise ZeroDivisionError

    with contextlib.closing(open_store(bare_settings.replace(store=f"file://{tmp_path}/store"))) as store:
        with pytest.raises(ZeroDivisionError):
            store.put("x", 10, (chunk for _ in range(1) for chunk in broken()))
        assert listing(tmp_path / "store") == []


def test_a_file_of_the_wrong_size_is_stored_again(bare_settings: Settings, tmp_path: pathlib.Path) -> None:
    with contextlib.closing(open_store(bare_settings.replace(store=f"file://{tmp_path}/store"))) as store:
        store.put_data("x", len(DATA), lambda: [DATA], SHA256)
        (tmp_path / "store" / "data" / SHA256).write_bytes(b"half")
        assert store.read(store.put_data("x", len(DATA), lambda: [DATA], SHA256)) == DATA


def test_any_file_system_of_fsspec_will_do(bare_settings: Settings) -> None:
    with contextlib.closing(open_store(bare_settings.replace(store="memory://a-bucket/path"))) as store:
        ref = store.put("x", len(DATA), [DATA])
        assert store.read(ref) == DATA
        assert [found.size for found in store.ls()] == [len(DATA)]
        store.rm(ref)
        with pytest.raises(ArtifactMissing):
            store.fetch(ref)


def test_a_missing_package_is_named_with_the_way_to_install_it(bare_settings: Settings) -> None:
    with pytest.raises(StoreUnavailable, match="pip install s3fs"):
        open_store(bare_settings.replace(store="s3://bucket/path"))


def test_a_url_that_nobody_knows_is_refused_with_examples(bare_settings: Settings) -> None:
    with pytest.raises(StoreUnavailable, match=r"nonsense.*file:///shared/path"):
        open_store(bare_settings.replace(store="nonsense://x"))


def test_a_store_that_cannot_be_written_is_named(bare_settings: Settings, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = open_store(bare_settings.replace(store=f"file://{tmp_path}/file/store"))
    with pytest.raises(StoreUnavailable, match="/file/store"):
        store.put("x", len(DATA), [DATA])


def test_a_reference_of_another_store_names_the_setting(bare_settings: Settings, tmp_path: pathlib.Path) -> None:
    ref = KafkaRef("artifact", 0, 5, 1, "0" * 24, len(DATA), SHA256)
    store = open_store(bare_settings.replace(store=f"file://{tmp_path}/store"))
    with pytest.raises(StoreUnavailable, match=r"artifact\[0\]@5.*KAFKA_JUPYTER_STORE"):
        store.fetch(ref)


def test_the_kafka_store_without_a_cluster_is_a_settings_error(bare_settings: Settings) -> None:
    with pytest.raises(SettingsError, match="needs a Kafka cluster"):
        open_store(bare_settings)


class Bucket(AbstractFileSystem):
    """Objects that appear when their upload is completed, as those of an object store do."""

    protocol = "r2"
    cachable = False
    objects: ClassVar[dict[str, bytes]] = {}

    def _open(self, path: str, mode: str = "rb", **more: Any) -> Any:
        return BucketFile(self, path, mode, block_size=CHUNK)

    def info(self, path: str, **more: Any) -> dict[str, Any]:
        if path not in self.objects:
            raise FileNotFoundError(path)
        return {"name": path, "size": len(self.objects[path]), "type": "file"}

    def rm(self, path: str, **more: Any) -> None:
        del self.objects[path]


class BucketFile(AbstractBufferedFile):
    def _initiate_upload(self) -> None:
        self.parts: list[bytes] = []

    def _upload_chunk(self, final: bool = False) -> None:
        self.parts.append(self.buffer.getvalue())
        if final:
            self.fs.objects[self.path] = b"".join(self.parts)

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs.objects[self.path][start:end])


@pytest.mark.parametrize("data", [DATA, b"x" * (3 * CHUNK)], ids=["one part", "three parts"])
def test_an_interrupted_upload_to_an_object_store_leaves_what_others_have_stored_meanwhile(bare_settings: Settings, data: bytes) -> None:
    fsspec.register_implementation("r2", Bucket, clobber=True)
    sha256 = hashlib.sha256(data).hexdigest()
    settings = bare_settings.replace(store=f"r2://bucket/{len(data)}")
    with contextlib.closing(open_store(settings)) as store, contextlib.closing(open_store(settings)) as other:
        stored = []

        def interrupted() -> Iterator[bytes]:
            yield data[: len(data) // 2]
            stored.append(other.put_data("x", len(data), lambda: [data], sha256))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.put_data("x", len(data), interrupted, sha256)
        with pytest.raises(ZeroDivisionError):
            store.put("state", len(data), (data[: 1 // zero] for zero in (1, 0)))
        gc.collect()  # a file that is thrown away closes itself
        store.verify(stored[0])
        assert [path for path in Bucket.objects if f"/{len(data)}/" in path] == [f"bucket/{len(data)}/data/{sha256}"]


class Spoiling(LocalFileSystem):
    """Files whose bytes are altered on their way as often as a test says."""

    protocol = "spoiling"
    cachable = False
    refusing = False
    left: ClassVar[dict[str, int]] = {}  # name of a file → how many more openings bring wrong bytes

    def _open(self, path: str, mode: str = "rb", **more: Any) -> Any:
        if self.refusing:
            raise OSError(errno.EIO, "503 Service Unavailable", path)
        name = pathlib.Path(path).name
        if mode == "rb" and self.left.get(name, 0) > 0:
            self.left[name] -= 1
            return io.BytesIO(DATA[:-1] if self.left[name] % 2 else b"x" + DATA[1:])
        return super()._open(path, mode, **more)


def test_a_store_that_refuses_to_begin_a_file_is_unavailable_and_not_a_missing_file(
    bare_settings: Settings, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.register_implementation("spoiling", Spoiling, clobber=True)
    monkeypatch.setattr(Spoiling, "refusing", True)
    with (
        contextlib.closing(open_store(bare_settings.replace(store=f"spoiling://{tmp_path}/store"))) as store,
        pytest.raises(StoreUnavailable, match="503"),
    ):
        store.put("state", len(DATA), [DATA])


def test_what_comes_altered_or_cut_short_is_read_again_before_it_counts_as_lost(bare_settings: Settings, tmp_path: pathlib.Path) -> None:
    fsspec.register_implementation("spoiling", Spoiling, clobber=True)
    with contextlib.closing(open_store(bare_settings.replace(store=f"spoiling://{tmp_path}/store"))) as store:
        ref = store.put("state", len(DATA), [DATA])
        assert isinstance(ref, UrlRef)
        name = ref.url.rpartition("/")[2]
        Spoiling.left[name] = 2
        store.verify(ref)
        Spoiling.left[name] = 2
        assert store.read(ref) == DATA
        Spoiling.left[name] = 3
        with pytest.raises((ArtifactAltered, ArtifactTruncated)):
            store.verify(ref)


def test_reading_back_takes_no_room_on_our_own_disk(bare_settings: Settings, tmp_path: pathlib.Path) -> None:
    with contextlib.closing(open_store(bare_settings.replace(store=f"file://{tmp_path}/store"))) as store:
        ref = store.put("state", len(DATA), [DATA])
        shutil.rmtree(bare_settings.cache_dir / "incoming")
        store.verify(ref)
        with pytest.raises(StoreError):
            store.fetch(ref)
        pathlib.Path(ref.url.removeprefix("file://")).write_bytes(b"Weights")
        with pytest.raises(ArtifactAltered):
            store.verify(ref)


class Named(LocalFileSystem):
    """A local file system whose addresses carry who is asking, as those of a web server do."""

    protocol = "named"

    def unstrip_protocol(self, name: str) -> str:
        return f"named://ada:kept-to-ourselves@host{self._strip_protocol(name)}"


def test_a_reference_does_not_hold_the_user_and_password_of_a_url(bare_settings: Settings, tmp_path: pathlib.Path) -> None:
    fsspec.register_implementation("named", Named, clobber=True)
    with contextlib.closing(open_store(bare_settings.replace(store=f"named://{tmp_path}/store"))) as store:
        written = store.put_data("x", len(DATA), lambda: [DATA], SHA256)
        found = store.put_data("x", len(DATA), lambda: [DATA], SHA256)
        for ref in (written, found, store.put("state", len(DATA), [DATA])):
            assert isinstance(ref, UrlRef)
            assert "kept-to-ourselves" not in ref.url
            assert store.read(ref) == DATA
