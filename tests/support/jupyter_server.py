"""A real Jupyter server in a process of its own, with the extension and nothing else."""

from __future__ import annotations

import contextlib
import http.client
import json
import pathlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kafka_jupyter.brokers.local_nodes import free_port
from tests.support.waiting import wait_until

TOKEN = "a-token-of-the-tests"


class JupyterServer:
    def __init__(self, folder: pathlib.Path, env: Mapping[str, str], options: Sequence[str] = ()) -> None:
        self.port = free_port()
        self._log = folder / "server.log"
        command = [
            sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}",
            "--ServerApp.jpserver_extensions={'kafka_jupyter': True}", f"--ServerApp.root_dir={folder}", *options,
        ]  # fmt: skip
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=folder, env=dict(env), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a route of the extension; (0, None) while nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", f"/kafka-jupyter/{path}", headers={"Authorization": f"token {TOKEN}"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except ConnectionError:
            assert self._process.poll() is None, self.log
            return 0, None
        finally:
            connection.close()

    def post(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a request to the extension, with an empty body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", f"/kafka-jupyter/{path}", headers={"Authorization": f"token {TOKEN}"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    @contextlib.contextmanager
    def events(self) -> Iterator[list[dict[str, Any]]]:
        """The data of what one stream has brought so far, in order."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("GET", "/kafka-jupyter/events", headers={"Authorization": f"token {TOKEN}"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        seen: list[dict[str, Any]] = []
        thread = threading.Thread(target=_read, args=(answer, seen), name="events")
        thread.start()
        try:
            yield seen
        finally:
            assert connection.sock is not None
            connection.sock.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            connection.close()

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)


@contextlib.contextmanager
def jupyter_server(folder: pathlib.Path, env: Mapping[str, str], *options: str) -> Iterator[JupyterServer]:
    """`options`: of its command line."""
    folder.mkdir(parents=True, exist_ok=True)
    server = JupyterServer(folder, env, options)
    try:
        wait_until(lambda: server.get("health")[0] == 200, "the server never answered", within=60)
        yield server
    finally:
        server.close()


def _read(answer: http.client.HTTPResponse, seen: list[dict[str, Any]]) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        while line := answer.readline():
            if line.startswith(b"data: "):
                seen.append(json.loads(line[6:]))
