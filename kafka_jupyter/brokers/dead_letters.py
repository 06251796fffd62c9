"""`task_dlq`: which tasks nobody will train any more, the newest first."""

from __future__ import annotations

import dataclasses

import msgspec

from kafka_jupyter.brokers.kafka import Message
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.errors import BadRecord, NewerRecord, RecordError
from kafka_jupyter.protocol import topics
from kafka_jupyter.protocol.letters import TYPE, DeadLetter

VERSION = 1
MORE, LEAST = 4, 200  # records are read for one letter that is shown, and at least: copies and junk lie between them
_decoder = msgspec.json.Decoder(DeadLetter)


@dataclasses.dataclass(frozen=True)
class Buried:
    """A dead letter where the log has it; `time_ms` is its append time."""

    letter: DeadLetter
    time_ms: int
    offset: int


def newest(log: Log, limit: int) -> list[Buried]:
    """At most `limit`, the newest first. Several workers may have buried the same task: the first letter counts. Junk is counted and
    passed over. Raises BrokerError."""
    first: dict[tuple[object, ...], Buried] = {}
    for message in _messages(log, max(LEAST, MORE * limit)):
        buried = _read(log, message)
        if buried is None:
            continue
        key = (buried.letter.run_id, buried.letter.place)
        known = first.get(key)
        if known is None or (buried.time_ms, buried.offset) < (known.time_ms, known.offset):
            first[key] = buried
    return sorted(first.values(), key=lambda buried: (buried.time_ms, buried.offset), reverse=True)[:limit]


def _messages(log: Log, count: int) -> list[Message]:
    """The last `count` of every partition."""
    reader = Reader(log.cluster)
    try:
        bounds = {place: reader.bounds(place) for place in log.topics.all_places(topics.TASK_DLQ)}
    finally:
        reader.close()
    ranges = {place: (max(low, high - count), high) for place, (low, high) in bounds.items()}
    return [message for place, (at, high) in ranges.items() if at < high for message in log.read_range(place, at, high)]


def _read(log: Log, message: Message) -> Buried | None:
    try:
        origin = log.origin(message)
        letter = _decoded(message)
        log.check_type(message, origin, TYPE)
        return Buried(letter, message.time_ms, message.offset)
    except RecordError as error:
        log.note_junk(topics.TASK_DLQ, error)
        return None


def _decoded(message: Message) -> DeadLetter:
    where = {"topic": message.topic, "partition": message.partition, "offset": message.offset}
    try:
        letter = _decoder.decode(message.value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(**where, why=str(error)[:200], value=message.value) from error
    if letter.v > VERSION:
        raise NewerRecord(**where, type="dead_letter", version=letter.v, run_id=letter.run_id)
    return letter
