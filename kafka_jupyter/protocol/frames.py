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


class Cadence(msgspec.Struct, frozen=True):
    """When a child writes checkpoints: at the end of an epoch, and in the middle of one that has lasted for `every_s` since the last; but
    not within `gap_s` of the last one, nor more than `share` of the time is spent on them."""

    every_s: float = 30.0
    gap_s: float = 1.0
    share: float = 0.05


class Change(msgspec.Struct, frozen=True):
    """A setting that was applied at (epoch, step) of this run before, and must be again."""

    epoch: int
    step: int
    settings: dict[str, Any]


class Job(Frame, frozen=True, tag="job"):
    """One attempt. `task`: the Task as JSON. `inputs`: part name → local file; a part `checkpoint` is where to go on, with the `files`
    that callbacks had written, by their place below `folder`, the child's own. `publish`: train no more, give what the checkpoint has."""

    task: bytes
    inputs: dict[str, str]
    folder: str
    files: dict[str, str] = {}
    changes: list[Change] = []
    publish: bool = False
    code: bool = False  # the supervisor knows who has signed the task, and that its code may run here
    cadence: Cadence = Cadence()
    progress_period_s: float = 0.25


class Stop(Frame, frozen=True, tag="stop"):
    """End after the current batch, with the weights so far."""


class Suspend(Frame, frozen=True, tag="suspend"):
    """Write a checkpoint after the current batch (or the validation that is going on) and end."""


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


class Alive(Frame, frozen=True, tag="alive"):
    """A step was done that no other frame tells of."""


class Saved(Frame, frozen=True, tag="saved"):
    """A checkpoint lies in `file`, to be deleted by whoever has taken it. `outputs`: what callbacks have written so far, place below the
    child's folder → a copy that does not change. `value` of `metric` as in control.Checkpointed."""

    epoch: int
    step: int
    file: str
    outputs: dict[str, str]
    metric: str = ""
    value: float | None = None
    mode: str = "min"


class Suspended(Frame, frozen=True, tag="suspended"):
    """The last frame of a child that ended because it was told to suspend; its last Saved is where to go on."""


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
    cage: list[str] = []  # what a child may not do here (training/cage.py)


ToChild = Job | Stop | Suspend | Apply
FromChild = Ready | Epoch | Batch | Alive | Saved | Suspended | AppliedFrame | Done | Error | Equipment

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
