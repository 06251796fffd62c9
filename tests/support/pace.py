"""Trainings that take their time and no processor: at the end of each epoch Keras' RemoteMonitor waits for an answer that comes late."""

from __future__ import annotations

import functools
import http.server
import threading
import time

EPOCH_S = 0.2


def paced(epoch_s: float = EPOCH_S) -> object:
    """A callback that makes every epoch of its training longer by this many seconds. Where nobody answers any more it does nothing."""
    import keras

    return keras.callbacks.RemoteMonitor(_root(), _path(epoch_s), send_as_json=True)


def paced_in_a_cell(epoch_s: float = EPOCH_S) -> str:
    """The same for a cell that has imported keras."""
    return f"keras.callbacks.RemoteMonitor({_root()!r}, {_path(epoch_s)!r}, send_as_json=True)"


@functools.cache
def _root() -> str:
    """Of the server that answers late, one for this process and until its end."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Late)
    threading.Thread(target=server.serve_forever, name="pace", daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def _path(epoch_s: float) -> str:
    return f"/{epoch_s}"


class _Late(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:  # the library's name
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(float(self.path.removeprefix("/")))  # to be late is what this server is for: there is no condition to wait for
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nobody wants to read that."""
