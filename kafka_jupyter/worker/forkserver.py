"""The process that children are forked from: it imports Keras once, runs no operation of it, and has one thread.

It speaks with its supervisor over one stream socket: requests are fixed structs (with the child's descriptors as ancillary
data), answers are lines of JSON. End of file means that the supervisor is gone or wants an end: every child dies, then this one.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import dataclasses
import faulthandler
import gc
import importlib
import json
import os
import pathlib
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from kafka_jupyter.training.cage import Cage, enter

REQUEST = struct.Struct(">cQd")  # kind, id of the child, grace in seconds
TRAIN, EQUIPMENT, TERMINATE = b"t", b"e", b"k"
_DESCRIPTORS = 3  # frames, stdout, stderr

# Keras imports these where they are installed, for its scikit-learn wrappers and for `fit(DataFrame)`, which no child is given: a third of
# the time that a worker needs to be ready. A training that wants them imports them itself.
_NOT_FOR_CHILDREN = ("sklearn", "pandas")
# What Keras and TensorFlow import at the first `fit` only; here it is paid once.
_LATE_IMPORTS = tuple(f"tensorflow.python.data.ops.{name}_op" for name in ("concatenate", "flat_map", "from_tensors", "range", "zip"))


@dataclasses.dataclass
class _Running:
    id: int
    pid: int
    oom_kills: int  # of the machine when it was forked
    kill_at: float | None = None


def main(control_fd: int, entries: dict[str, str], cage: dict[str, Any]) -> None:
    """`entries`: request kind → "module:function"; the function takes the child's socket. `cage`: the fields of a Cage."""
    control = socket.socket(fileno=control_fd)
    functions, unfit = _preload({kind.encode(): target for kind, target in entries.items()})
    _Forkserver(control, functions, unfit, Cage(**cage)).serve()


def _preload(entries: dict[bytes, str]) -> tuple[dict[bytes, Callable[[socket.socket], None]], str]:
    functions = {}
    gc.disable()  # nothing that an import makes is garbage: looking for some is a fifth of its time
    hidden = [name for name in _NOT_FOR_CHILDREN if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: an import raises ModuleNotFoundError
    try:
        for kind, target in entries.items():
            module, _, name = target.partition(":")
            functions[kind] = getattr(importlib.import_module(module), name)
        if "tensorflow" in sys.modules:
            for late in _LATE_IMPORTS:
                importlib.import_module(late)
    except Exception as error:  # noqa: BLE001 - whatever an import raises makes this worker unfit, it must say so and live
        return {}, f"{type(error).__name__}: {error}"[:2000]
    finally:
        gc.enable()
        for name in hidden:
            del sys.modules[name]
    gc.collect()
    gc.freeze()  # collections in children then leave the shared pages alone
    return functions, ""


class _Forkserver:
    def __init__(self, control: socket.socket, functions: dict[bytes, Callable[[socket.socket], None]], unfit: str, cage: Cage) -> None:
        self._control = control
        self._cage = cage
        self._functions = functions
        self._unfit = unfit
        self._running: dict[int, _Running] = {}
        self._waker, self._woken = socket.socketpair()
        for end in (self._waker, self._woken):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)

    def serve(self) -> None:
        self._tell(event="ready", unfit=self._unfit)
        open_ = True
        while open_ or self._running:
            due = [c.kill_at - time.monotonic() for c in self._running.values() if c.kill_at is not None]
            watched = [self._woken, self._control] if open_ else [self._woken]
            readable, _, _ = select.select(watched, [], [], max(0.0, min(due)) if due else None)
            if self._woken in readable:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
            if self._control in readable and not self._request():
                open_ = False
                for child in self._running.values():
                    _signal_group(child.pid, signal.SIGKILL)
            self._kill_overdue()
            self._reap()

    def _tell(self, **fields: Any) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a dead supervisor shows as end of file
            self._control.sendall(json.dumps(fields).encode() + b"\n")

    def _request(self) -> bool:
        """Serves one request; False at end of file."""
        try:
            data, ancillary, _, _ = self._control.recvmsg(REQUEST.size, socket.CMSG_SPACE(4 * _DESCRIPTORS))
        except ConnectionResetError:
            return False
        if not data:
            return False
        while len(data) < REQUEST.size:
            more = self._control.recv(REQUEST.size - len(data))
            if not more:
                return False
            data += more
        descriptors = array.array("i")
        for _, _, raw in ancillary:
            descriptors.frombytes(raw[: len(raw) - len(raw) % descriptors.itemsize])
        kind, child_id, grace_s = REQUEST.unpack(data)
        if kind == TERMINATE:
            self._terminate(child_id, grace_s)
        elif self._unfit:
            self._tell(event="exited", id=child_id, detail=f"this worker is unfit: {self._unfit}")
        else:
            self._fork(kind, child_id, list(descriptors))
            return True
        for descriptor in descriptors:
            os.close(descriptor)
        return True

    def _fork(self, kind: bytes, child_id: int, descriptors: list[int]) -> None:
        me = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            pid = -1
            self._tell(event="exited", id=child_id, detail=f"no child could be forked: {error}")
        if pid == 0:
            self._become_child(self._functions[kind], descriptors, me)
        for descriptor in descriptors:
            os.close(descriptor)
        if pid > 0:
            self._running[child_id] = _Running(child_id, pid, _oom_kills())
            self._tell(event="forked", id=child_id, pid=pid)

    def _become_child(self, function: Callable[[socket.socket], None], descriptors: list[int], parent: int) -> NoReturn:
        code = 1
        try:
            os.setsid()  # its own process group: a cancel reaches grandchildren and nobody else
            _volunteer_for_the_oom_killer()
            enter(self._cage)
            _die_with(parent)  # behind the cage: who it is in a namespace of its own counts as a change, which takes this back
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (self._control, self._waker, self._woken):
                end.close()
            frames, out, err = descriptors
            _take_output(out, err)
            with socket.socket(fileno=frames) as sock:
                function(sock)
            code = 0
        except BaseException:  # noqa: BLE001 - nothing may unwind into the forkserver's loop
            sys.excepthook(*sys.exc_info())
        finally:
            # No atexit handlers: they belong to the forkserver, and TensorFlow's teardown after a fork may hang.
            _flush()
            os._exit(code)

    def _terminate(self, child_id: int, grace_s: float) -> None:
        child = self._running.get(child_id)
        if child is None:
            return
        if grace_s > 0:
            _signal_group(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        child.kill_at = min(deadline, child.kill_at or deadline)

    def _kill_overdue(self) -> None:
        for child in self._running.values():
            if child.kill_at is not None and child.kill_at <= time.monotonic():
                _signal_group(child.pid, signal.SIGKILL)
                child.kill_at = None

    def _reap(self) -> None:
        for child in list(self._running.values()):
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if not pid:
                continue
            # What the child started goes with it. The number cannot mean anybody else yet: this is microseconds after the wait.
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
            del self._running[child.id]
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            self._tell(
                event="exited",
                id=child.id,
                code=os.WEXITSTATUS(status) if not number else 0,
                signal=number,
                memory=usage.ru_maxrss * (1024 if sys.platform == "linux" else 1),
                out_of_memory=number == signal.SIGKILL and _oom_kills() > child.oom_kills,
            )


def _signal_group(pid: int, number: int) -> None:
    """To the whole process group; before `setsid` has run in the child, to the child. It has not been waited for: the number is its own."""
    try:
        os.killpg(pid, number)
    except OSError:
        with contextlib.suppress(OSError):  # and not only if it leads no group: it may have become a leader in this moment
            os.kill(pid, number)


def _die_with(parent: int) -> None:
    """SIGKILL for this process when the forkserver dies: nobody else could reap or report it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died before the call
        os._exit(1)


def _take_output(out: int, err: int) -> None:
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    faulthandler.enable(sys.stderr)  # a segfault leaves its Python stack in the log


def _volunteer_for_the_oom_killer() -> None:
    """One training should die for its memory, not the supervisor or the forkserver with all their other runs."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/oom_score_adj").write_text("500")


def _oom_kills() -> int:
    """How many processes the kernel has killed for memory so far; 0 where it does not say."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    ctypes.CDLL(None).fflush(None)  # what C code has printed and not flushed
