"""A store at any fsspec URL: `<root>/data/<sha256>` for data sets, `<root>/runs/<upload id>` for all else.

A reference is resolved against *our* root by its last two path segments: the same share may be mounted at different places, and
no record can make a process read a URL that its owner did not configure. What a URL has before its `@` is in no reference.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import pathlib
import posixpath
import re
import secrets
from collections.abc import Iterator
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import known_implementations

from kafka_jupyter.errors import ArtifactMissing, KafkaJupyterError, StoreUnavailable
from kafka_jupyter.protocol import ids
from kafka_jupyter.protocol.parts import KafkaRef, Ref, UrlRef
from kafka_jupyter.redact import clean
from kafka_jupyter.store.base import Stored
from kafka_jupyter.store.source import Source

BLOCK = 4 << 20  # bytes of one read: few requests on an object store, little memory
WHOLE_OR_NOTHING = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "r2"})  # an object appears when it is complete
_PLACE = re.compile(r"(?:^|/)(data/[0-9a-f]{64}|runs/[0-9a-f]{24})\Z")


class UrlShelf:
    """`url` as in Settings.store. Large data are what it is for: it has no limit."""

    limit: int | None = None

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs, self._root = _opened(url)
        self._local = isinstance(self._fs, LocalFileSystem)
        protocols = (self._fs.protocol,) if isinstance(self._fs.protocol, str) else self._fs.protocol
        self._in_place = not WHOLE_OR_NOTHING.isdisjoint(protocols)

    def write(self, source: Source, data: bool) -> Ref:
        place = f"data/{source.sha256}" if data else f"runs/{ids.new_upload_id(source.owner)}"
        path = self._path(place)
        aside = path if self._in_place else self._path(f"incoming/{secrets.token_hex(12)}")
        with self._named():
            self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
            self._fs.makedirs(posixpath.dirname(aside), exist_ok=True)
        try:
            self._copy(source, aside)
            if aside != path:
                self._move(aside, path)
        except BaseException:
            if aside != path:  # an object that is there was completed, maybe by somebody else
                with contextlib.suppress(KafkaJupyterError, FileNotFoundError), self._named():  # the first error is the one to tell
                    self._fs.rm(aside)
            raise
        with self._named():
            return UrlRef(clean(self._fs.unstrip_protocol(path)), source.size, source.sha256)

    def look_ahead(self) -> None:
        """One question is all that `find` asks."""

    def find(self, sha256: str, size: int) -> Ref | None:
        """Files appear whole, so one of the right size is all there; its hash is checked by whoever reads it."""
        path = self._path(f"data/{sha256}")
        with self._named():
            self._fs.invalidate_cache(posixpath.dirname(path))
            try:
                found = self._fs.info(path)
            except FileNotFoundError:
                return None
            return UrlRef(clean(self._fs.unstrip_protocol(path)), size, sha256) if found["size"] == size else None

    def read(self, ref: Ref) -> Iterator[tuple[int, bytes]]:
        path = self._resolved(ref)
        try:
            with self._named(), self._fs.open(path, "rb", block_size=BLOCK) as file:
                position = 0
                while position <= ref.size and (piece := file.read(BLOCK)):
                    yield position, piece
                    position += len(piece)
        except FileNotFoundError:
            raise ArtifactMissing(name=getattr(ref, "url", path), detail=f"there is no {path} in {self.url}") from None

    def ls(self) -> list[Stored]:
        listed = []
        for folder, kind in (("data", "data"), ("runs", "upload")):
            with self._named():
                self._fs.invalidate_cache(self._path(folder))
                try:
                    found = self._fs.ls(self._path(folder), detail=True)
                except FileNotFoundError:
                    continue
            for info in found:
                name = posixpath.basename(info["name"])
                listed.append(Stored(kind, name, name, int(info["size"] or 0), _stored_ms(info)))
        return listed

    def rm(self, what: Ref | str) -> None:
        if isinstance(what, str):
            named = f"{'data' if len(what) == 64 else 'runs'}/{what}"
            if not _PLACE.fullmatch(named):
                raise ArtifactMissing(name=what[:200], detail="write the sha256 of a data set or the id of an upload")
            place = self._path(named)
        else:
            place = self._resolved(what)
        try:
            with self._named():
                self._fs.rm(place)
        except FileNotFoundError:
            raise ArtifactMissing(name=place, detail=f"nothing of that name is in {self.url}") from None

    def close(self) -> None:
        """fsspec keeps its file systems for the whole process."""

    def _path(self, place: str) -> str:
        """Raises ArtifactMissing where a link, which anybody may have laid who can write to the share, leads out of our root."""
        path = f"{self._root}/{place}"
        if self._local and not pathlib.Path(path).resolve().is_relative_to(pathlib.Path(self._root).resolve()):
            raise ArtifactMissing(name=place, detail=f"{path} is a link, or lies behind one, that leads out of {self._root}")
        return path

    def _resolved(self, ref: Ref) -> str:
        found = None if isinstance(ref, KafkaRef) else _PLACE.search(ref.url)
        if found is None:
            raise ArtifactMissing(name=str(getattr(ref, "url", ref))[:200], detail="its reference names no artifact of kafka_jupyter")
        return self._path(found[1])

    def _copy(self, source: Source, path: str) -> None:
        with self._named():
            file = self._fs.open(path, "wb")
        try:
            for piece in source:  # outside of `_named`: what the source raises is not the store's fault
                with self._named():
                    file.write(piece)
            with self._named():
                if self._local:
                    file.flush()
                    os.fsync(file.fileno())
        except BaseException:
            with contextlib.suppress(KafkaJupyterError, FileNotFoundError), self._named():
                self._abandon(file)
            raise
        with self._named():
            file.close()

    def _abandon(self, file: Any) -> None:
        """Closing the upload of an object completes it with what was sent so far, over one that is whole."""
        if not self._in_place:
            file.close()
            return
        try:
            file.discard()
        finally:
            file.closed = True  # else it would close itself when it is collected

    def _move(self, aside: str, path: str) -> None:
        with self._named():
            if not self._local:
                self._fs.mv(aside, path)
                return
            os.replace(aside, path)
            folder = os.open(posixpath.dirname(path), os.O_RDONLY)
            try:
                os.fsync(folder)  # the name must survive a power cut too
            finally:
                os.close(folder)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Every backend has errors of its own: they leave as StoreUnavailable. FileNotFoundError is for the caller to judge."""
        try:
            yield
        except (KafkaJupyterError, FileNotFoundError):
            raise
        except Exception as error:
            raise StoreUnavailable(store=self.url, detail=f"{type(error).__name__}: {error}") from error


def _opened(url: str) -> tuple[Any, str]:
    try:
        fs, root = url_to_fs(url)  # type: ignore[no-untyped-call]  # fsspec has no types
    except ImportError as error:
        package = str(known_implementations.get(url.partition(":")[0], {}).get("class", "fsspec")).partition(".")[0]
        raise StoreUnavailable(store=url, detail=f"its package is not installed: pip install {package} ({error})") from error
    except Exception as error:
        raise StoreUnavailable(
            store=url, detail=f"{error}. Write kafka: or a URL such as file:///shared/path or s3://bucket/path"
        ) from error
    return fs, str(root).rstrip("/")


def _stored_ms(info: dict[str, Any]) -> int:
    """When it was stored, as far as this backend says."""
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = info.get(key)
        if isinstance(value, int | float):
            return int(value * 1000)
        if isinstance(value, datetime.datetime):
            return int(value.timestamp() * 1000)
    return 0
