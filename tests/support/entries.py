"""A child that trains nothing: the name of its task says what it does. For attempts whose training does not matter."""

from __future__ import annotations

import json
import pathlib
import socket

from kafka_jupyter.protocol import frames

BYTES = 100_000  # more than stands in a record


def train(sock: socket.socket) -> None:
    """`done`: has a result at once. `speaking`: says a line. Whoever is not done waits until it is suspended or killed."""
    splitter = frames.Splitter(from_child=False)
    folder = pathlib.Path()
    while (received := frames.receive(sock, splitter)) is not None:
        for frame in received:
            if isinstance(frame, frames.Job):
                folder, name = pathlib.Path(frame.folder), json.loads(frame.task)["name"]
                sock.sendall(frames.pack(frames.Ready()))
                if name == "speaking":
                    print("a line")
                if name == "done":
                    sock.sendall(frames.pack(frames.Done({"state": _file(folder)}, {}, False, 1, {})))
                    return
            elif isinstance(frame, frames.Suspend):
                sock.sendall(frames.pack(frames.Saved(0, 1, _file(folder), {})) + frames.pack(frames.Suspended()))
                return


def equipment(sock: socket.socket) -> None:
    sock.sendall(frames.pack(frames.Equipment()))


def _file(folder: pathlib.Path) -> str:
    file = folder / "state"
    file.write_bytes(b"x" * BYTES)
    return str(file)
