"""What `run_state` holds, as a reader begins with it."""

from __future__ import annotations

import collections
from collections.abc import Iterable

from kafka_jupyter import errors
from kafka_jupyter.brokers.kafka import Message
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.brokers.relay import Relay
from kafka_jupyter.protocol import topics
from kafka_jupyter.protocol.signing import tombstone
from kafka_jupyter.runs import snapshots

# Of one key, that are kept until one of them can be read: compaction leaves one, but not at once, and strangers may write more.
KEPT = 8


def read_snapshots(log: Log, reader: Reader | Relay, distrust: str) -> list[snapshots.Record | snapshots.Unreadable]:
    """The newest snapshot under each key of `run_state`, for who reads the log under `distrust` (Gate.distrust). Junk is counted; a run
    that has nothing else is named all the same.

    Only what is needed is judged and decoded, which costs more than to read it: of each key the newest, and none of a run in a page.
    """
    found: dict[bytes, collections.deque[Message]] = {}
    pages: dict[bytes, snapshots.Record | snapshots.Unreadable] = {}
    for place in log.topics.all_places(topics.RUN_STATE):
        low, high = reader.bounds(place)
        for message in log.read_range(place, low, high) if low < high else ():
            key = message.key or b""
            if not key.startswith(b"page/"):
                found.setdefault(key, collections.deque(maxlen=KEPT)).append(message)
            elif not isinstance(pages.get(key), snapshots.Page):  # else the same runs once more: they have ended
                # Taken at once: pages are most of what is in the topic, and need not be in memory twice.
                record = _newest(log, key, [message], distrust)
                if record is not None:
                    pages[key] = record
    whole = [page for page in pages.values() if isinstance(page, snapshots.Page)]
    ended = {state.run_id.encode() for page in whole for state in page.states if _lives_in(log, state.run_id) == page.partition}
    others = [_newest(log, key, reversed(kept), distrust) for key, kept in found.items() if key.rpartition(b"/")[0] not in ended]
    return [*pages.values(), *(record for record in others if record is not None)]


def _newest(log: Log, key: bytes, messages: Iterable[Message], distrust: str) -> snapshots.Record | snapshots.Unreadable | None:
    """`messages`: those under this key, the newest first."""
    standing_in = None
    for message in messages:
        try:
            origin = log.origin(message)
            if message.value is None:
                log.check_type(message, origin, tombstone("mark" if key.startswith(b"mark/") else "snapshot"))
                break
            place = {"partition": message.partition, "offset": message.offset}
            record = snapshots.decode(message.value, key, topic=message.topic, **place)
            log.check_type(message, origin, snapshots.type_of(record))
        except errors.BadRecord as bad:
            log.note_junk(topics.RUN_STATE, bad)
            standing_in = snapshots.unreadable(key)
        else:  # one that was folded by somebody who believes others than we do is no beginning for us
            return record if distrust in ("", record.distrust) else snapshots.unreadable(key)
    return standing_in


def _lives_in(log: Log, run_id: str) -> int:
    return log.topics.place(topics.RUN_CONTROL, run_id)[1]
