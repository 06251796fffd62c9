"""Children of a supervisor: processes with Keras loaded that run one attempt each (design §2.5).

One thread owns all descriptors: the control socket of the forkserver, and socket, stdout and stderr of every child. It calls
`on_frame`, `on_line` and `on_exit`, which must only enqueue; `on_exit` is the last call for a child, exactly one, whatever happens.

A forkserver that dies takes its children with it (nobody else could reap or report them): each exits with signal 9 and
a `detail` that says so, and a new forkserver starts.

A *spare* child has been forked ahead of the attempt that will use it and has warmed up meanwhile: it still runs one attempt only.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import os
import selectors
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from kafka_jupyter.protocol import frames
from kafka_jupyter.training.cage import Cage
from kafka_jupyter.worker import environment, forkserver
from kafka_jupyter.worker.forkserver_process import ForkserverProcess
from kafka_jupyter.worker.lines import Lines

TRAIN_ENTRY = "kafka_jupyter.training.child:main"
EQUIPMENT_ENTRY = "kafka_jupyter.training.equipment:main"

_READ = 1 << 16  # bytes a turn, so that one chatty child does not silence the others
_LEFTOVERS = 4 << 20  # bytes read of a stream after the child's end: a descendant that fled its group may write for ever
_LAST_WORDS = 30  # lines of an equipment child that are kept to explain its failure


@dataclasses.dataclass(frozen=True)
class Exit:
    """How a child ended. `code` is 0 after a regular end, also after an `Error` frame."""

    code: int = 0
    signal: int = 0
    memory: int = 0  # bytes, the most that was resident; 0 where unknown
    terminated: bool = False  # `terminate` had been called
    out_of_memory: bool = False  # the kernel killed it for memory
    detail: str = ""  # why there was no child, or none to wait for
    forked: bool = True  # there was a process


class Child:
    """One process. `pid` is None until it is forked."""

    def __init__(
        self,
        children: Children,
        id: int,
        kind: bytes,
        on_frame: Callable[[Any], None],
        on_line: Callable[[str, str], None],
        on_exit: Callable[[Exit], None],
    ) -> None:
        self.id = id
        self._kind = kind
        self._children = children
        self._tell(on_frame, on_line, on_exit)
        self._begin()

    def _begin(self) -> None:
        """As a child is whose process is still to be forked."""
        self.pid: int | None = None
        self._frames = frames.Splitter(from_child=True)
        self._lines = {"stdout": Lines(), "stderr": Lines()}
        self._ends: dict[str, socket.socket | int] = {}
        self._outbox = bytearray()
        self._terminated = False
        self._broken = ""

    def _tell(self, on_frame: Callable[[Any], None], on_line: Callable[[str, str], None], on_exit: Callable[[Exit], None]) -> None:
        self._on_frame, self._on_line, self._on_exit = on_frame, on_line, on_exit

    def send(self, frame: frames.Frame) -> None:
        """Never blocks; a frame to a child that has ended is dropped."""
        self._children._ask(lambda: self._children._send(self, frames.pack(frame)))

    def terminate(self, grace_s: float) -> None:
        """SIGTERM to the process group, SIGKILL after `grace_s` (at once if 0). A second call can only make it sooner."""
        self._children._ask(lambda: self._children._terminate(self, grace_s))


class Children:
    """Starts the forkserver at once: Keras takes seconds to import, and a first child should not wait for it."""

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        train: str = TRAIN_ENTRY,
        equipment: str = EQUIPMENT_ENTRY,
        name: str = "children",
        cage: Cage | None = None,
    ) -> None:
        self._cage = cage or Cage(network=True)
        self._environ = environment.for_child(os.environ if environ is None else environ)
        self._entries = {forkserver.TRAIN.decode(): train, forkserver.EQUIPMENT.decode(): equipment}
        self._ids = itertools.count(1)
        self._asked: collections.deque[Callable[[], None]] = collections.deque()
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ, self._wake)
        self._forkserver: ForkserverProcess | None = None
        self._no_forkserver = ""  # why there is none
        self._live: dict[int, Child] = {}
        self._spare: Child | None = None  # of the thread that calls `start` and `keep_spare`
        self._closing = False
        self.failure: Exception | None = None  # what has ended the thread
        self._ask(self._spawn)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def unfit(self) -> str:
        """Why nothing can be forked, as the forkserver says that is there now: it may have found another environment than the first."""
        running = self._forkserver
        return running.unfit if running else ""

    @property
    def forkserver_pid(self) -> int | None:
        running = self._forkserver
        return running.process.pid if running else None

    def start(self, on_frame: Callable[[Any], None], on_line: Callable[[str, str], None], on_exit: Callable[[Exit], None]) -> Child:
        """A child that has run nothing yet and waits for a Job frame. `on_line` gets (text, "stdout" | "stderr")."""
        spare, self._spare = self._spare, None
        if spare is None:
            return self._start(forkserver.TRAIN, on_frame, on_line, on_exit)
        self._ask(lambda: self._employ(spare, on_frame, on_line, on_exit))
        return spare

    def keep_spare(self) -> None:
        """Has a child ready for the next `start`; does nothing if there is one. To be called on the thread that calls `start`."""
        if self._spare is None:
            self._spare = self._start(forkserver.TRAIN, lambda _: None, lambda _, __: None, lambda _: None)

    def equipment(self, timeout_s: float = 120.0) -> frames.Equipment:
        """Versions and devices, found by a throw-away child so that the forkserver stays clean. Blocks."""
        found: list[frames.Equipment] = []
        ended = threading.Event()
        words: collections.deque[str] = collections.deque(maxlen=_LAST_WORDS)
        ends: list[Exit] = []

        def on_exit(exit: Exit) -> None:
            ends.append(exit)
            ended.set()

        child = self._start(forkserver.EQUIPMENT, found.append, lambda text, _: words.append(text), on_exit)
        if not ended.wait(timeout_s):
            child.terminate(0)
            return frames.Equipment(unfit=f"Keras and its devices did not answer within {timeout_s:g} s")
        if found:
            return found[0]
        said = "\n".join(words)
        return frames.Equipment(unfit=ends[0].detail or f"the backend could not be looked at ({ends[0]}): {said}")

    def close(self) -> None:
        """Ends every child at once and the forkserver; all `on_exit` have been called when this returns."""
        self._ask(self._begin_close)
        self._thread.join()

    # --- everything below runs in the one thread

    def _ask(self, command: Callable[[], None]) -> None:
        self._asked.append(command)
        with contextlib.suppress(BlockingIOError, OSError):  # full: it is awake; closed: nobody is there to be asked
            self._waker.send(b"\0")

    def _start(
        self, kind: bytes, on_frame: Callable[[Any], None], on_line: Callable[[str, str], None], on_exit: Callable[[Exit], None]
    ) -> Child:
        child = Child(self, next(self._ids), kind, on_frame, on_line, on_exit)
        self._ask(lambda: self._launch(child))
        return child

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as failure:  # noqa: BLE001  # the supervisor asks for it: a thread has no caller
            self.failure, self._closing = failure, True
            for child in self._live.values():
                self._drop(child, "frames")  # nobody can be told any more
            if self._forkserver is not None:
                self._forkserver.process.kill()
                self._forkserver_died()
        finally:
            self._selector.close()
            self._waker.close()
            self._woken.close()

    def _serve(self) -> None:
        while not (self._closing and self._forkserver is None):
            for key, events in self._selector.select():
                # A call earlier in this turn may have closed it, and its number may already mean something else.
                if self._selector.get_map().get(key.fd) is key:
                    key.data(events)
        while self._asked:  # what was asked for while the last child ended
            self._asked.popleft()()

    def _wake(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        while self._asked:
            self._asked.popleft()()

    def _spawn(self) -> None:
        """Where no process can be started now, the next child asks for one again."""
        try:
            self._forkserver = ForkserverProcess(self._environ, self._entries, self._cage)
        except OSError as error:
            self._no_forkserver = f"no child could be started: {error}"
            return
        self._selector.register(self._forkserver.control, selectors.EVENT_READ, lambda _: self._hear())
        self._selector.register(self._forkserver.stderr, selectors.EVENT_READ, lambda _: self._hear_last_words())

    def _employ(
        self, spare: Child, on_frame: Callable[[Any], None], on_line: Callable[[str, str], None], on_exit: Callable[[Exit], None]
    ) -> None:
        spare._tell(on_frame, on_line, on_exit)
        if spare.id not in self._live:  # it has ended unused
            spare._begin()
            self._launch(spare)

    def _launch(self, child: Child) -> None:
        if self._closing:
            child._on_exit(Exit(detail="this worker is closing", forked=False))
            return
        self._live[child.id] = child
        if self._forkserver is None:
            self._spawn()
        if self._forkserver is None:
            self._finish(child, Exit(detail=self._no_forkserver))
            return
        theirs: list[int] = []
        try:
            self._open_ends(child, theirs)
            request = forkserver.REQUEST.pack(child._kind, child.id, 0.0)
            socket.send_fds(self._forkserver.control, [request], theirs)
        except OSError as error:
            self._finish(child, Exit(detail=f"no child could be started: {error}"))
        finally:
            for descriptor in theirs:
                os.close(descriptor)

    def _open_ends(self, child: Child, theirs: list[int]) -> None:
        ours, its = socket.socketpair()
        theirs.append(its.detach())
        ours.setblocking(False)
        child._ends["frames"] = ours
        self._selector.register(ours, selectors.EVENT_READ, lambda events: self._exchange(child, events))
        for stream in ("stdout", "stderr"):
            read, write = os.pipe()
            theirs.append(write)
            os.set_blocking(read, False)
            child._ends[stream] = read
            self._selector.register(read, selectors.EVENT_READ, lambda _, stream=stream: self._read_lines(child, stream))

    def _send(self, child: Child, data: bytes) -> None:
        if "frames" in child._ends:
            child._outbox += data
            self._selector.modify(
                child._ends["frames"], selectors.EVENT_READ | selectors.EVENT_WRITE, lambda events: self._exchange(child, events)
            )

    def _exchange(self, child: Child, events: int) -> None:
        sock = child._ends["frames"]
        assert isinstance(sock, socket.socket)
        if events & selectors.EVENT_WRITE:
            try:
                del child._outbox[: sock.send(child._outbox)]
            except BlockingIOError:
                pass
            except OSError:  # it is ending; reading finds that out
                child._outbox.clear()
            if not child._outbox:
                self._selector.modify(sock, selectors.EVENT_READ, lambda events: self._exchange(child, events))
        if events & selectors.EVENT_READ:
            self._read_frames(child)

    def _read_frames(self, child: Child) -> int:
        """The number of bytes that came."""
        sock = child._ends["frames"]
        assert isinstance(sock, socket.socket)
        try:
            data = sock.recv(_READ)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if not data:
            self._drop(child, "frames")
            return 0
        try:
            for frame in child._frames.feed(data):
                child._on_frame(frame)
        except (msgspec.MsgspecError, ValueError) as error:
            child._broken = f"the child did not speak our language: {error}"
            self._drop(child, "frames")
            self._terminate(child, 0)
        return len(data)

    def _read_lines(self, child: Child, stream: str) -> int:
        descriptor = child._ends[stream]
        assert isinstance(descriptor, int)
        try:
            data = os.read(descriptor, _READ)
        except BlockingIOError:
            return 0
        for line in child._lines[stream].feed(data):
            child._on_line(line, stream)
        if not data:
            self._drop(child, stream)
        return len(data)

    def _drop(self, child: Child, end: str) -> None:
        ours = child._ends.pop(end, None)
        if ours is None:
            return
        self._selector.unregister(ours)
        if isinstance(ours, socket.socket):
            ours.close()
        else:
            os.close(ours)
            for line in child._lines[end].end():
                child._on_line(line, end)

    def _terminate(self, child: Child, grace_s: float) -> None:
        if child.id in self._live and self._forkserver is not None:
            child._terminated = True
            with contextlib.suppress(OSError):  # a dead forkserver has taken the child with it
                self._forkserver.control.sendall(forkserver.REQUEST.pack(forkserver.TERMINATE, child.id, grace_s))

    def _hear(self) -> None:
        assert self._forkserver is not None
        heard = self._forkserver.hear()
        if heard is None:
            self._forkserver_died()
            return
        for event in heard:
            child = self._live.get(event.pop("id", 0))
            match event.pop("event"):
                case "forked" if child is not None:
                    child.pid = event["pid"]
                case "exited" if child is not None:
                    self._finish(child, Exit(**event))

    def _hear_last_words(self) -> None:
        assert self._forkserver is not None
        if not self._forkserver.hear_last_words():
            self._selector.unregister(self._forkserver.stderr)

    def _forkserver_died(self) -> None:
        dead, self._forkserver = self._forkserver, None
        assert dead is not None
        self._selector.unregister(dead.control)
        with contextlib.suppress(KeyError):
            self._selector.unregister(dead.stderr)
        detail = dead.bury()
        for child in list(self._live.values()):
            if child.pid is not None and not self._closing:
                # The children themselves die by PR_SET_PDEATHSIG; this is for what they started, and for other systems.
                with contextlib.suppress(OSError):
                    os.killpg(child.pid, signal.SIGKILL)
            self._finish(child, Exit(signal=signal.SIGKILL if child.pid else 0, detail=detail))
        if dead.was_ready and not self._closing:
            self._spawn()

    def _finish(self, child: Child, exit: Exit) -> None:
        """Reads what the child has left behind, then tells of its end."""
        for end in list(child._ends):
            left = _LEFTOVERS
            while left > 0 and end in child._ends:
                count = self._read_frames(child) if end == "frames" else self._read_lines(child, end)
                left = left - count if count else 0
            self._drop(child, end)
        del self._live[child.id]
        terminated, detail, forked = child._terminated or self._closing, exit.detail or child._broken, child.pid is not None
        child._on_exit(dataclasses.replace(exit, terminated=terminated, detail=detail, forked=forked))

    def _begin_close(self) -> None:
        self._closing = True
        if self._forkserver is not None:
            self._forkserver.say_goodbye()
