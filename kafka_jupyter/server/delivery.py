"""What a stream delivers and how its cursor moves: every row of a started attempt exactly once, over any number of cuts.

A row counts only if its attempt started (zombies write rows too), and nobody knows in which order a reader meets a row and the
Started of its attempt, for they stand in two topics. So the rule, which is a function of the log and the cursor alone:

    a row at offset o of `training_log`, of an attempt whose Started stands at offset s of `run_control`,
    has been delivered to a cursor (c, l) iff  s < c  and  o < l.

A stream that reads a row before its Started passes it over (l moves, c does not) and delivers it with the Started: a `Release`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from kafka_jupyter.protocol.cursor import CONTROL, LOG, Cursor
from kafka_jupyter.server.events import Event

Attempt = tuple[str, int, str, str, str]  # run_id, n, worker, nonce, kid


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """A record of `training_log`. `started`: its attempt was known to have started when it was read."""

    partition: int
    offset: int
    attempt: Attempt
    started: bool
    bodies: tuple[bytes, ...]

    @property
    def size(self) -> int:
        return sum(map(len, self.bodies))


@dataclasses.dataclass(frozen=True, slots=True)
class Release:
    """A Started, and the records of its attempt that were read before it, mostly none. `gap`: some of them are no longer in memory.

    There is one for every Started that counts: a cursor is behind it before it is behind a row that was read after it.
    """

    partition: int
    offset: int
    attempt: Attempt
    records: tuple[Rows, ...]
    gap: bool = False

    @property
    def size(self) -> int:
        return sum(record.size for record in self.records)


Entry = Rows | Release


def deliver(entry: Entry, cursor: Cursor) -> Iterator[Event]:
    """The events of an entry that the cursor has not had, moving it along."""
    if isinstance(entry, Rows):
        place, bodies = (LOG, entry.partition), entry.bodies if entry.started else ()
    else:
        place, bodies = (CONTROL, entry.partition), tuple(body for record in entry.records for body in record.bodies)
    had = cursor.part(place) if cursor.offsets.get(place) == entry.offset else 0
    for i, body in enumerate(bodies[had:], had + 1):
        done = i == len(bodies)
        cursor.set(place, entry.offset + 1 if done else entry.offset, 0 if done else i)
        yield Event(body, str(cursor))
    skip(entry, cursor)


def skip(entry: Entry, cursor: Cursor) -> None:
    """Moves the cursor over an entry that is none of its business."""
    place = (LOG if isinstance(entry, Rows) else CONTROL, entry.partition)
    if cursor.offsets.get(place, -1) <= entry.offset:
        cursor.set(place, entry.offset + 1)
