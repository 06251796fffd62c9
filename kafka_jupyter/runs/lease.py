"""When silence means that a worker is gone (rule 6). A function of the reader's own monotonic clock; clocks are never compared."""

from __future__ import annotations

from kafka_jupyter.runs.state import RunState

HEARTBEATS_PER_TTL = 6


def heartbeat_period(ttl_s: float) -> float:
    """Seconds between two heartbeats; also the age up to which an end-offset answer counts as fresh."""
    return ttl_s / HEARTBEATS_PER_TTL


class SilenceClock:
    """How long each open attempt of one partition has been silent, as this reader can honestly say.

    It runs only while the reader holds an end-offset answer for the partition younger than ttl/6 and has consumed up to it;
    any gap restarts it. So a reader that was asleep or cut off never blames the others.
    """

    def __init__(self, ttl_s: float) -> None:
        self.ttl_s = ttl_s
        self._fresh_s: float | None = None  # when we last knew that we had read everything
        self._since: dict[str, tuple[int, float]] = {}  # run id → (offset of its last accepted record, since when it is silent)

    def caught_up(self, now_s: float) -> None:
        """The end-offset answer of `now_s` has been consumed. A gap longer than ttl/6 restarts all clocks."""
        if self._fresh_s is None or now_s - self._fresh_s > heartbeat_period(self.ttl_s):
            self._since.clear()
        self._fresh_s = now_s

    def expired(self, states: list[RunState], now_s: float) -> list[RunState]:
        """The runs whose open attempt has been silent for longer than ttl. `states`: all runs of this partition."""
        if self._fresh_s is None or now_s - self._fresh_s > heartbeat_period(self.ttl_s):
            return []
        silent = []
        open_runs = {}
        for state in states:
            if state.open is None or state.newer:
                continue
            last = state.open.last
            seen, since = self._since.get(state.run_id, (-1, now_s))
            if seen != last:
                since = now_s
            open_runs[state.run_id] = (last, since)
            if now_s - since > self.ttl_s:
                silent.append(state)
        self._since = open_runs
        return silent
