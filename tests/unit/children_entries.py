"""What the children of test_children_processes.py run: entry points such as `kafka_jupyter.training.child:main`."""

import ctypes
import faulthandler
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading

from kafka_jupyter.protocol import frames


def _tell(sock: socket.socket, **fields: object) -> None:
    sock.sendall(frames.pack(frames.Batch(epoch=0, step=0, steps=None, metrics={})) if not fields else _described(fields))


def _described(fields: dict[str, object]) -> bytes:
    return frames.pack(frames.Error(reason="told", error="", message="", traceback="", fields=fields))


def wait_for_orders(sock: socket.socket) -> None:
    """Obeys `Apply` frames: settings {"do": what}. Ends at a Stop."""
    splitter = frames.Splitter(from_child=False)
    _tell(sock, pid=os.getpid())
    while True:
        for frame in frames.receive(sock, splitter) or [frames.Stop()]:
            if isinstance(frame, frames.Stop):
                return
            _ORDERS[frame.settings["do"]](sock)


def _environment(sock: socket.socket) -> None:
    _tell(sock, environ=dict(os.environ))


def _descriptors(sock: socket.socket) -> None:
    _tell(sock, descriptors={name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _there(name)})


def _there(name: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{name}")


def _grandchild(sock: socket.socket) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    process = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    _tell(sock, grandchild=process.pid)


def _speak(sock: socket.socket) -> None:
    print("from Python")
    print("epoch 1\repoch 2\repoch 3")
    print("and stderr", file=sys.stderr)
    ctypes.CDLL(None).printf(b"from C\n")
    sys.stdout.flush()
    os.write(1, "no newline at the end, ünïcödé".encode())


def _flood(sock: socket.socket) -> None:
    for i in range(20_000):
        print(f"line {i} {'x' * 100}")
    os.write(1, b"y" * 100_000 + b"\n")


def _deaf(sock: socket.socket) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _tell(sock, deaf=True)


def _segfault(sock: socket.socket) -> None:
    faulthandler._sigsegv()


def _raise(sock: socket.socket) -> None:
    raise RuntimeError("an error that nobody catches")


def _leave_words(sock: socket.socket) -> None:
    """Frames and lines at the very end: none may be lost."""
    for _ in range(2000):
        _tell(sock)
    for i in range(500):
        print("last", i)


def _junk(sock: socket.socket) -> None:
    sock.sendall(b"\xff" * 64)


def _threads(sock: socket.socket) -> None:
    _tell(sock, threads=threading.active_count(), group=os.getpgid(0), session=os.getsid(0), pid=os.getpid())


def _modules(sock: socket.socket) -> None:
    loaded = {name: name in sys.modules for name in ("keras", "sklearn", "pandas")}
    import pandas as pd
    from sklearn.metrics import f1_score

    _tell(sock, loaded=loaded, f1=float(f1_score([0, 1], [0, 1])), rows=len(pd.DataFrame({"a": [1, 2]})))


_ORDERS = {
    "environment": _environment,
    "descriptors": _descriptors,
    "grandchild": _grandchild,
    "speak": _speak,
    "flood": _flood,
    "deaf": _deaf,
    "segfault": _segfault,
    "raise": _raise,
    "leave words": _leave_words,
    "junk": _junk,
    "threads": _threads,
    "modules": _modules,
}


def equipment(sock: socket.socket) -> None:
    sock.sendall(frames.pack(frames.Equipment(versions={"python": "3"}, devices=["cpu"])))


def broken_equipment(sock: socket.socket) -> None:
    raise RuntimeError("no such device")


def supervise(note: str) -> None:
    """A small real supervisor for the test that kills one: two children, one with a grandchild; their pids go to the file `note`."""
    from kafka_jupyter.worker.children import Children

    told: list[dict[str, object]] = []
    complete = threading.Event()

    def on_frame(frame: frames.Error) -> None:
        told.append(frame.fields)
        if len(told) == 3:
            complete.set()

    children = Children(train="tests.unit.children_entries:wait_for_orders", equipment="tests.unit.children_entries:equipment")
    running = [children.start(on_frame, lambda *_: None, lambda _: None) for _ in range(2)]
    running[0].send(frames.Apply(request_id="1", settings={"do": "grandchild"}))
    assert complete.wait(60)
    pids = [pid for fields in told for pid in fields.values()] + [children.forkserver_pid]
    temporary = pathlib.Path(note + ".part")
    temporary.write_text(json.dumps(pids))
    temporary.rename(note)
    signal.pause()


if __name__ == "__main__":
    supervise(sys.argv[1])
