"""What a follower that begins reads of the past, and what of that it judges: to judge a record costs ten times as much as to read it.

So a start costs what there is to know, and not all that has ever been said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from kafka_jupyter.brokers.kafka import Message, Partition
from kafka_jupyter.runs.state import RunState

# Announcements that are older than so many seconds are of nobody who is alive: a worker makes one every five. Not by the reader's clock
# alone: so long the broker's may be behind.
ANNOUNCED_S = 600.0
LOOK_BACK = 20_000  # rows' records of a partition; those of a run that is older than that are read when somebody asks for it


def tails(
    active: Iterable[RunState], bounds: Mapping[Partition, tuple[int, int]], place_of: Callable[[str], Partition]
) -> dict[Partition, int]:
    """Where a follower begins to read rows: where those of the runs begin that have not ended. `bounds`: of each partition of rows, its
    first offset and that behind its last."""
    found = {place: high for place, (_, high) in bounds.items()}
    for state in active:
        place = place_of(state.run_id)
        low, high = bounds[place]
        first = max(low, min((start.log_offset for start in state.starts), default=high))
        if first >= high - LOOK_BACK:
            found[place] = min(found[place], first)
    return found


class Announcements:
    """Those of the past: of each worker the newest that can be believed is enough."""

    def __init__(self) -> None:
        self._kept: dict[bytes, list[tuple[int, int, Message]]] = {}

    def keep(self, message: Message, said_ms: int) -> None:
        """`said_ms`: when its worker says to have signed it. A copy is appended late, and is no news all the same."""
        self._kept.setdefault(message.key or b"", []).append((said_ms, message.offset, message))

    def take(self, believed: Callable[[Message], bool]) -> None:
        """Hands over the newest of each worker, and older ones until one is `believed`."""
        for messages in self._kept.values():
            messages.sort(key=lambda kept: kept[:2], reverse=True)
            any(believed(message) for _, _, message in messages)
        self._kept.clear()
