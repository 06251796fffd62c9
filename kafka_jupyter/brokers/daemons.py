"""Background processes that outlive whoever started them, told again by pid and start time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec
import psutil

from kafka_jupyter.errors import LocalKafkaError

TERM_WAIT_S = 20.0  # between SIGTERM and SIGKILL: a broker closes its segments, a worker hands its runs back
_SAME_START_S = 2.0  # how far two readings of one start time may lie apart: boot time is known to the second only

# The shell in between ends at once, so the daemon is nobody's child: no zombie stays in a kernel that started it.
_DETACH = 'log=$1; shift; "$@" >>"$log" 2>&1 & echo $!'


class Daemon(msgspec.Struct, frozen=True):
    """A background process as the state files name it."""

    name: str
    pid: int
    started: float  # seconds after boot: unlike the time of day, it never moves for a living process
    log: str

    @property
    def alive(self) -> bool:
        started = _start_time(self.pid)
        return started is not None and abs(started - self.started) < _SAME_START_S


def lives(pid: int) -> bool:
    return _start_time(pid) is not None


def _start_time(pid: int) -> float | None:
    """Seconds from boot to the start of process `pid`; None if there is no such process.

    A zombie is none, once its other threads have ended too: until then a killed Java still holds its ports and file locks.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1:
            return None
        return float(process.create_time() - psutil.boot_time())
    except psutil.Error:
        return None


def spawn(name: str, command: list[str], log: pathlib.Path, cwd: pathlib.Path, env: Mapping[str, str]) -> Daemon:
    """Starts `command` in a session of its own, output appended to `log`. Raises LocalKafkaError if it ends at once."""
    log.parent.mkdir(parents=True, exist_ok=True)
    shell = subprocess.run(
        ["/bin/sh", "-c", _DETACH, "sh", str(log), *command],
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        check=True,
    )
    pid = int(shell.stdout)
    started = _start_time(pid)
    if started is None:
        raise LocalKafkaError(detail=f"{name} ended at once: {tail(log)} (its log is {log})")
    return Daemon(name=name, pid=pid, started=started, log=str(log))


def python_environment() -> dict[str, str]:
    """Of a daemon that runs this package: ours, without what ties a process to a notebook kernel."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JPY_", "MPLBACKEND"))}
    home = str(pathlib.Path(__file__).parents[2])
    if home not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):  # run from a checkout
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [home, env.get("PYTHONPATH")]))
    return env


def strays(cwd: pathlib.Path, word: str) -> list[Daemon]:
    """Processes that run in `cwd` with `word` in their command line: started by somebody who was killed before writing it down."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(cwd) and word in process.cmdline():
                started = _start_time(process.pid)
                if started is not None:
                    found.append(Daemon(name=f"pid {process.pid}", pid=process.pid, started=started, log=""))
    return found


def stop(daemons: Iterable[Daemon], wait_s: float = TERM_WAIT_S) -> list[Daemon]:
    """SIGTERM, then SIGKILL for what is left after `wait_s`. Returns those that lived when it was called."""
    alive = [daemon for daemon in daemons if daemon.alive]
    for number, patience_s in ((signal.SIGTERM, wait_s), (signal.SIGKILL, 5.0)):
        for daemon in alive:
            if daemon.alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(daemon.pid, number)
        deadline = time.monotonic() + patience_s
        # Not psutil's wait: it waits until init has reaped a zombie, which takes seconds in some containers.
        while any(daemon.alive for daemon in alive) and time.monotonic() < deadline:
            time.sleep(0.02)
    return alive


def tail(log: pathlib.Path, lines: int = 5) -> str:
    """The last lines of a log that say something, on one line: a Java stack's frames say where, not what."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 16384))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return "(no log)"
    telling = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("at ", "... "))]
    return " | ".join(telling[-lines:]) or "(the log is empty)"


def rotate(log: pathlib.Path, limit: int = 5 << 20) -> None:
    """Moves a log above `limit` bytes aside before its process starts anew: one older file is kept."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > limit:
            log.replace(log.with_suffix(log.suffix + ".previous"))


@contextlib.contextmanager
def locked(file: pathlib.Path, timeout_s: float, waiting: Callable[[], None]) -> Iterator[None]:
    """Holds an exclusive lock on `file`; the system drops it when this process ends, however it ends.

    `waiting` is called once if somebody else holds it. Raises LocalKafkaError after `timeout_s`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout_s
    with file.open("a") as handle:
        told = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    waiting()
                    told = True
                if time.monotonic() > deadline:
                    raise LocalKafkaError(detail=f"another process has held {file} for {timeout_s:g} s") from None
                time.sleep(0.05)
        yield


def write_atomically(file: pathlib.Path, data: bytes) -> None:
    """Readers see the old content or the new one, never a part."""
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    partial.write_bytes(data)
    partial.replace(file)
