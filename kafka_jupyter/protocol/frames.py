"""What supervisor and child say to each other over their socket: msgpack structs behind a 4-byte big-endian length."""

from __future__ import annotations

import socket
import struct
from typing import Any

import msgspec

from kafka_jupyter.protocol.rows import Metrics

FRAME_LIMIT = 64 << 20  # bytes; a longer one is a broken peer
_LENGTH = struct.Struct(">I")


class Frame(msgspec.Struct, frozen=True, tag_field="type"):
    pass


# --- supervisor → child


class Job(Frame, frozen=True, tag="job"):
    """One attempt. `task`: the Task as JSON. `inputs`: part name → local file. `folder`: the child's own, outputs go below it."""

    task: bytes
    inputs: dict[str, str]
    folder: str
    progress_period_s: float = 0.25


class Stop(Frame, frozen=True, tag="stop"):
    """End after the current batch, with the weights so far."""


class Apply(Frame, frozen=True, tag="apply"):
    request_id: str
    settings: dict[str, Any]


# --- child → supervisor


class Ready(Frame, frozen=True, tag="ready"):
    """The model is built and training begins at (epoch, step)."""

    epoch: int = 0
    step: int = 0
    device: str = ""
    versions: dict[str, str] = {}


class Epoch(Frame, frozen=True, tag="epoch"):
    epoch: int
    step: int
    metrics: Metrics
    seconds: float
    at_ms: int  # the clock of this machine when the epoch had ended


class Batch(Frame, frozen=True, tag="batch"):
    epoch: int
    step: int
    steps: int | None
    metrics: Metrics


class AppliedFrame(Frame, frozen=True, tag="applied"):
    request_id: str
    settings: dict[str, Any]
    epoch: int
    step: int


class Done(Frame, frozen=True, tag="done"):
    """`files`: part name (`state`, `outcome`) → local file. `outputs`: path as the person gave it → local file."""

    files: dict[str, str]
    outputs: dict[str, str]
    stopped_early: bool
    epochs: int
    metrics: Metrics


class Error(Frame, frozen=True, tag="error"):
    """An exception in training. `reason`: exception, mismatch or refused (the task asks for what is not allowed)."""

    reason: str
    error: str
    message: str
    traceback: str
    fields: dict[str, Any] = {}


class Equipment(Frame, frozen=True, tag="equipment"):
    """What a child finds: `device` is "cpu" or "gpu". `unfit`: why nothing can be trained here, empty where all is well."""

    versions: dict[str, str] = {}
    device: str = "cpu"
    devices: list[str] = []
    unfit: str = ""


ToChild = Job | Stop | Apply
FromChild = Ready | Epoch | Batch | AppliedFrame | Done | Error | Equipment

_encoder = msgspec.msgpack.Encoder()
_to_child = msgspec.msgpack.Decoder(ToChild)
_from_child = msgspec.msgpack.Decoder(FromChild)


def pack(frame: Frame) -> bytes:
    body = _encoder.encode(frame)
    return _LENGTH.pack(len(body)) + body


class Splitter:
    """Collects received bytes and gives back the whole frames in them. Raises msgspec.MsgspecError or ValueError on junk."""

    def __init__(self, from_child: bool) -> None:
        self._decoder: Any = _from_child if from_child else _to_child
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        self._buffer += data
        frames = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > FRAME_LIMIT:
                raise ValueError(f"a frame of {length} bytes")
            if len(self._buffer) < _LENGTH.size + length:
                break
            frames.append(self._decoder.decode(bytes(self._buffer[_LENGTH.size : _LENGTH.size + length])))
            del self._buffer[: _LENGTH.size + length]
        return frames


def receive(peer: socket.socket, splitter: Splitter) -> list[Any] | None:
    """The frames that arrived; None at end of file. Blocks as the socket does."""
    data = peer.recv(1 << 16)
    return splitter.feed(data) if data else None
