"""Cursor: how far somebody is in `run_control` and `training_log`, as text that fits into an SSE id and an HTTP header.

    @5d41402a,c.0:12,c.1:5+2,l.0:100+1,l.1:7

`@…` names the cluster and prefix it belongs to (may be left out), `c` is `run_control`, `l` is `training_log`; behind the colon
stands the next offset. `+k`: of what the record at that offset gives, k events have been delivered.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Iterable

from kafka_jupyter.protocol import topics

CONTROL, LOG = "c", "l"
TEXT_LIMIT = 32 << 10  # characters; 1000 partitions need about 20 Ki
_LETTERS = {topics.RUN_CONTROL: CONTROL, topics.TRAINING_LOG: LOG}
_ENTRY = re.compile(r"([cl])\.([0-9]{1,4}):([0-9]{1,18})(?:\+([0-9]{1,6}))?\Z")
_TAG = re.compile(r"@([0-9a-f]{8})\Z")

Place = tuple[str, int]  # letter, partition


class Cursor:
    """Offsets and parts by place. A place that is not in it has not been looked at."""

    __slots__ = ("_parts", "offsets", "tag")

    def __init__(self, tag: str = "") -> None:
        self.tag = tag
        self.offsets: dict[Place, int] = {}
        self._parts: dict[Place, int] = {}

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises ValueError."""
        if len(text) > TEXT_LIMIT:
            raise ValueError("a cursor is not as long as that")
        cursor = cls()
        for entry in filter(None, text.strip().split(",")):
            if tag := _TAG.match(entry):
                cursor.tag = tag[1]
            elif found := _ENTRY.match(entry):
                cursor.set((found[1], int(found[2])), int(found[3]), int(found[4] or 0))
            else:
                raise ValueError("that is no cursor")
        return cursor

    @classmethod
    def at(cls, positions: Iterable[tuple[str, int, int]], tag: str = "") -> Cursor:
        """From (topic without its prefix, partition, next offset); topics that a cursor does not know are passed over."""
        cursor = cls(tag)
        cursor.advance(positions)
        return cursor

    def __str__(self) -> str:
        return _text(self.tag, tuple(self.offsets.items()), tuple(self._parts.items()))

    def part(self, place: Place) -> int:
        return self._parts.get(place, 0)

    def set(self, place: Place, offset: int, part: int = 0) -> None:
        self.offsets[place] = offset
        if part:
            self._parts[place] = part
        else:
            self._parts.pop(place, None)

    def advance(self, positions: Iterable[tuple[str, int, int]]) -> None:
        """Moves to these positions, (topic without its prefix, partition, next offset); never back."""
        for base, partition, offset in positions:
            letter = _LETTERS.get(base)
            if letter and offset > self.offsets.get((letter, partition), -1):
                self.set((letter, partition), offset)


@functools.lru_cache(maxsize=256)  # all streams that are up to date are at the same place
def _text(tag: str, offsets: tuple[tuple[Place, int], ...], parts: tuple[tuple[Place, int], ...]) -> str:
    entries, known = [f"@{tag}"] if tag else [], dict(parts)
    for place, offset in sorted(offsets):
        part = known.get(place, 0)
        entries.append(f"{place[0]}.{place[1]}:{offset}" + (f"+{part}" if part else ""))
    return ",".join(entries)


def tag_of(cluster_id: str, prefix: str) -> str:
    """Tells the cursors of two clusters, or of a cluster and the one that was made anew in its place, apart."""
    return f"{zlib.crc32(f'{cluster_id}/{prefix}'.encode()):08x}"
