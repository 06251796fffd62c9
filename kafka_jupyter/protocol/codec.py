"""Bytes ↔ records. Outside bytes are hostile: whatever is wrong becomes BadRecord or NewerRecord, nothing else escapes."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from kafka_jupyter.errors import BadRecord, NewerRecord
from kafka_jupyter.protocol import control, ids
from kafka_jupyter.protocol.rows import RowBatch
from kafka_jupyter.protocol.task import Task
from kafka_jupyter.protocol.workers import WorkerInfo

VERSION = 1  # the newest version of every record type that this package reads
NESTING_LIMIT = 64  # of values without a fixed type; Python gives up at about 1000, wherever such a value is next handled

AnyRecord = control.Record | RowBatch | Task | WorkerInfo


class _Envelope(msgspec.Struct):
    """What every record has; read first, so that a newer one is told from junk."""

    type: str
    v: int = 1
    run_id: str = ""
    worker_id: str = ""


_encoder = msgspec.json.Encoder()
_envelope = msgspec.json.Decoder(_Envelope)
_KINDS: tuple[type[msgspec.Struct], ...] = (*control.CONTROL_RECORDS, RowBatch, Task, WorkerInfo)
_decoders: dict[str, msgspec.json.Decoder[Any]] = {str(kind.__struct_config__.tag): msgspec.json.Decoder(kind) for kind in _KINDS}
CONTROL_TYPES = frozenset(str(kind.__struct_config__.tag) for kind in control.CONTROL_RECORDS)
_WORKER = str(WorkerInfo.__struct_config__.tag)
_FREE_FORM = frozenset({"settings", "applied", "failed", "task"})  # types with fields that hold any JSON
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)  # one step a stretch, not one a character: arrays are long strings
_BRACKET = re.compile(rb"[\[{\]}]")
_WORKER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


def encode(record: AnyRecord) -> bytes:
    """JSON, readable by any Kafka tool. NaN and infinity become null."""
    return _encoder.encode(record)


def decode(
    value: bytes | None,
    *,
    key: bytes | None = None,
    types: frozenset[str] | None = None,
    topic: str = "?",
    partition: int = -1,
    offset: int = -1,
) -> AnyRecord:
    """The record in `value`.

    `key`, where given, must be the record's run or worker id; `types`, where given, are the only types this topic may hold.
    Raises NewerRecord (version above ours, or a type we do not know in a well-formed envelope; `.fields["run_id"]` says whose)
    and BadRecord (anything else), both naming topic, partition and offset.
    """

    def bad(why: str) -> BadRecord:
        return BadRecord(topic=topic, partition=partition, offset=offset, why=why, value=value)

    if value is None:
        raise bad("it has no value")
    try:
        envelope = _envelope.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise bad(str(error)[:200]) from error
    known = envelope.type in _decoders
    owner = envelope.worker_id if envelope.type == _WORKER else envelope.run_id
    if not known:
        owner = owner or envelope.worker_id
    elif not owner:
        raise bad("it does not say whose it is")
    if envelope.run_id and not ids.RUN_ID.match(envelope.run_id):
        raise bad("its run id is malformed")
    if envelope.worker_id and not _WORKER_ID.match(envelope.worker_id):
        raise bad("its worker id is malformed")
    if key is not None and key != owner.encode():
        raise bad(f"its key is not {owner!r}")
    if envelope.v < 1:
        raise bad(f"there is no version {envelope.v}")
    if envelope.v > VERSION or (not known and owner):
        raise NewerRecord(
            topic=topic, partition=partition, offset=offset, type=envelope.type[:40], version=envelope.v, run_id=envelope.run_id
        )
    if not known or (types is not None and envelope.type not in types):
        raise bad(f"type {envelope.type[:40]!r} has no place here")
    if envelope.type in _FREE_FORM and _nesting(value) > NESTING_LIMIT:
        raise bad(f"it is nested deeper than {NESTING_LIMIT}")
    try:
        record: AnyRecord = _decoders[envelope.type].decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise bad(str(error)[:200]) from error
    return record


def _nesting(value: bytes) -> int:
    """How deep the lists and objects of a JSON text are nested."""
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", value)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
