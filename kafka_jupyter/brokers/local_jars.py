"""Apache Kafka's jars: fetched once with jgo into the Maven repository of this user, checked against pinned hashes, then offline.

The list is pinned and not resolved anew: it says beforehand how much is to come, it is the same on every machine, and it spares a
trap: resolved in one go with Kafka, log4j's binding pulls kafka-clients down to 3.9.1 and the broker dies with NoSuchMethodError.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from kafka_jupyter.brokers import daemons
from kafka_jupyter.errors import LocalKafkaError, LocalKafkaMissing
from kafka_jupyter.settings import Settings

KAFKA_VERSION = "4.3.1"
Progress = Callable[[str, float | None], None]  # what happens now; the part that is done (0 … 1), where known

_LIST = pathlib.Path(__file__).with_name("local_jars.json")
_PARALLEL = 4  # downloads at once
_TRIES = 3  # a jar; networks hiccup
_TIMEOUT_S = 20  # of one answer of the Maven server


class Jar(msgspec.Struct, frozen=True):
    coordinate: str  # group:artifact:version
    size: int  # bytes
    sha256: str

    @property
    def path(self) -> pathlib.Path:
        """Below a Maven repository."""
        group, artifact, version = self.coordinate.split(":")
        return pathlib.Path(*group.split("."), artifact, version, f"{artifact}-{version}.jar")


def silent(text: str, part: float | None) -> None:
    """The Progress of who shows none."""


def jars() -> list[Jar]:
    return msgspec.json.decode(_LIST.read_bytes(), type=list[Jar])


def repository() -> pathlib.Path:
    """Where Maven, jgo and we keep jars."""
    return pathlib.Path(os.environ.get("M2_REPO") or pathlib.Path.home() / ".m2" / "repository").absolute()


def own_folder() -> pathlib.Path:
    """Of what belongs to the jars and is no jar: a lock, downloads under way, the archive of local_java."""
    return repository() / ".kafka_jupyter"


def missing(base: pathlib.Path | None = None) -> list[Jar]:
    """The jars that are still to be fetched. Whole by size: what we put there was hashed before it was moved in."""
    base = base or repository()
    return [jar for jar in jars() if not _has_size(base / jar.path, jar.size)]


def altered(base: pathlib.Path | None = None) -> list[Jar]:
    """The jars that are there with another content than the pinned one (about 0.1 s for all)."""
    base = base or repository()
    return [jar for jar in jars() if (base / jar.path).exists() and _sha256(base / jar.path) != jar.sha256]


def classpath(settings: Settings, progress: Progress) -> str:
    """Every jar is there; fetches what is missing. Raises LocalKafkaMissing, LocalKafkaError."""
    base = repository()
    if missing(base):
        with daemons.locked(own_folder() / "lock", 600, lambda: progress("Another process is fetching Kafka", None)):
            wanted = missing(base)
            if wanted:
                _fetch(wanted, base, settings.maven_url, progress)
    return ":".join(str(base / jar.path) for jar in jars())


def _fetch(wanted: list[Jar], base: pathlib.Path, url: str, progress: Progress) -> None:
    try:
        from jgo.maven import MavenContext, PythonResolver
    except ImportError as error:
        raise LocalKafkaMissing(detail=str(error)) from error
    total = sum(jar.size for jar in wanted)
    meter = _Meter(f"Fetching Apache Kafka {KAFKA_VERSION} (once, {len(wanted)} files, {total / 1e6:.0f} MB)", total, progress)
    staging = pathlib.Path(tempfile.mkdtemp(prefix="fetching-", dir=own_folder()))
    try:
        context = MavenContext(
            resolver=PythonResolver(progress_callback=meter.file),
            repo_cache=staging,
            local_repos=[],
            remote_repos={"maven": url.rstrip("/")},
            timeout=_TIMEOUT_S,
        )
        with concurrent.futures.ThreadPoolExecutor(_PARALLEL) as pool:
            for done in [pool.submit(_fetch_one, context, jar, staging, base, url) for jar in wanted]:
                done.result()
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    progress(f"Fetched Apache Kafka {KAFKA_VERSION}", 1.0)


def _fetch_one(context: Any, jar: Jar, staging: pathlib.Path, base: pathlib.Path, url: str) -> None:
    """One jar, hashed before it is moved to its place, so that a cut download is never taken for a jar."""
    problem = ""
    for _ in range(_TRIES):
        (staging / jar.path).unlink(missing_ok=True)  # jgo refuses to write over what an earlier try left
        try:
            found = pathlib.Path(context.create_dependency(jar.coordinate).artifact.resolve())
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors, jgo says "not found" with a RuntimeError
            problem = str(error)
            continue
        if _sha256(found) == jar.sha256:
            target = base / jar.path
            target.parent.mkdir(parents=True, exist_ok=True)
            found.replace(target)
            return
        problem = "what arrived is not what was asked for (its sha256 differs)"
    raise LocalKafkaError(
        f"Apache Kafka {KAFKA_VERSION} could not be fetched: {jar.coordinate} from {url}: {problem[:300]}. This is needed once; "
        "KAFKA_JUPYTER_MAVEN_URL names a mirror, M2_REPO a folder with the jars, KAFKA_JUPYTER_BOOTSTRAP_SERVERS another Kafka."
    )


class _Meter:
    """Adds up the bytes of several downloads."""

    def __init__(self, text: str, total: int, progress: Progress) -> None:
        self._text, self._total, self._progress = text, total, progress
        self._lock = threading.Lock()
        self._done = 0

    @contextlib.contextmanager
    def file(self, _name: str, _size: int) -> Iterator[Callable[[int], None]]:
        yield self._add

    def _add(self, count: int) -> None:
        with self._lock:
            before, self._done = self._done, self._done + count
            if before * 100 // self._total != self._done * 100 // self._total:  # a hundred calls are enough
                self._progress(self._text, min(1.0, self._done / self._total))


def _has_size(file: pathlib.Path, size: int) -> bool:
    try:
        return file.stat().st_size == size
    except OSError:
        return False


def _sha256(file: pathlib.Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
