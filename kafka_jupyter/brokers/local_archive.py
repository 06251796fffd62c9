"""`python -m kafka_jupyter.brokers.local_archive CLASSPATH`: makes the archive of Kafka's classes (see local_java) and ends.

Runs in the background after the first start on a machine: a scratch broker loads what a broker loads, and Java writes it down as it ends.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import sys
import tempfile

from kafka_jupyter.brokers import daemons, local_java, local_nodes
from kafka_jupyter.errors import LocalKafkaError
from kafka_jupyter.settings import Settings

_WRITE_S = 120.0  # for Java to write the archive, at the lowest priority on a busy machine


def make_later(settings: Settings, folder: pathlib.Path, classpath: str) -> None:
    """Starts this module at low priority unless the archive is there: nobody waits 10 s for a faster next start."""
    if settings.java or local_java.archive_file().exists():
        return
    command = [sys.executable, "-m", __name__, classpath]
    log = folder / "logs" / "archive.log"
    daemons.rotate(log)
    with contextlib.suppress(LocalKafkaError):  # only the speed of the next start is at stake
        daemons.spawn("archive", command, log, folder, daemons.python_environment())


def make(classpath: str) -> pathlib.Path:
    """Makes the archive unless it is there or being made. Raises LocalKafkaError."""
    settings = Settings()
    target = local_java.archive_file()
    with daemons.locked(target.with_suffix(".lock"), _WRITE_S, lambda: None):
        if target.exists():
            return target
        scratch = pathlib.Path(tempfile.mkdtemp(prefix="archive-", dir=target.parent))
        try:
            _record(settings, classpath, scratch, scratch / "new.aot")
            (scratch / "new.aot").replace(target)
        except FileNotFoundError as error:
            raise LocalKafkaError(detail=f"Java wrote no archive: {daemons.tail(scratch / 'logs' / 'node-1.log')}") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return target


def _record(settings: Settings, classpath: str, scratch: pathlib.Path, file: pathlib.Path) -> None:
    ports = local_nodes.choose_ports(1, [])
    local_nodes.configure(scratch, ports)
    local_nodes.format_new(scratch, local_java.command(settings, classpath), 1)
    node = local_nodes.start(scratch, local_java.command(settings, classpath, record_to=file), 1, ports[0])
    try:
        local_nodes.wait_ready(settings, scratch, [node])
    finally:
        daemons.stop([node.daemon], wait_s=_WRITE_S)


if __name__ == "__main__":
    os.nice(19)
    make(sys.argv[1])
