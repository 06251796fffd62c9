"""Trainings that take their time and no processor: at the end of each epoch Keras' RemoteMonitor waits for an answer that comes late."""

from __future__ import annotations

import http.server
import threading
import time

EPOCH_S = 0.2


class Pace:
    """`callback()` makes every epoch of its training as long as EPOCH_S. Once closed it has no effect any more."""

    def __init__(self) -> None:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Late)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="pace", daemon=True).start()

    def callback(self) -> object:
        import keras

        return keras.callbacks.RemoteMonitor(f"http://127.0.0.1:{self._server.server_port}", "/", send_as_json=True)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Late(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:  # the library's name
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(EPOCH_S)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nobody wants to read that."""
