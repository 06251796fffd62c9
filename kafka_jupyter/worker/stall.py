"""How long a child has made no step. Pure.

A heartbeat proves only the supervisor: a training that hangs would keep its run for ever.
"""

from __future__ import annotations

TICK_LIMIT_S = 1.0  # of silence that one tick may count: a supervisor that was asleep does not blame its child


class StallClock:
    """Counts between `step`s, in ticks."""

    def __init__(self, timeout_s: float, now_s: float) -> None:
        self.timeout_s = timeout_s
        self._quiet_s = 0.0
        self._ticked_s = now_s

    def step(self) -> None:
        self._quiet_s = 0.0

    def stalled(self, now_s: float) -> bool:
        """To be asked at every tick."""
        self._quiet_s += min(max(0.0, now_s - self._ticked_s), TICK_LIMIT_S)
        self._ticked_s = now_s
        return self._quiet_s > self.timeout_s
