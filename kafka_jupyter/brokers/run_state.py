"""What `run_state` holds, as a reader begins with it."""

from __future__ import annotations

from kafka_jupyter import errors
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.brokers.relay import Relay
from kafka_jupyter.protocol import topics
from kafka_jupyter.protocol.signing import tombstone
from kafka_jupyter.runs import snapshots


def read_snapshots(log: Log, reader: Reader | Relay, distrust: str) -> list[snapshots.Snapshot | snapshots.Mark | snapshots.Unreadable]:
    """The newest snapshot under each key of `run_state`, for who reads the log under `distrust` (Gate.distrust). Junk is counted; a run
    that has nothing else is named all the same."""
    latest: dict[bytes, snapshots.Snapshot | snapshots.Mark | snapshots.Unreadable | None] = {}
    for place in log.topics.all_places(topics.RUN_STATE):
        low, high = reader.bounds(place)
        if low >= high:
            continue
        for message in log.read_range(place, low, high):
            key = message.key or b""
            try:
                origin = log.origin(message)
                if message.value is None:
                    log.check_type(message, origin, tombstone("mark" if key.startswith(b"mark/") else "snapshot"))
                    latest.pop(key, None)
                    continue
                record = snapshots.decode(message.value, key, topic=place[0], partition=place[1], offset=message.offset)
                log.check_type(message, origin, snapshots.type_of(record))
            except errors.BadRecord as bad:
                log.note_junk(topics.RUN_STATE, bad)
                latest.setdefault(key, snapshots.unreadable(key))
            else:  # one that was folded by somebody who believes others than we do is no beginning for us
                latest[key] = record if distrust in ("", record.distrust) else snapshots.unreadable(key)
    return [record for record in latest.values() if record is not None]
