"""Folded states as a page gets them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.runs import choose, view
from kafka_jupyter.runs.state import RunState
from kafka_jupyter.server.tallies import Tallies


def cards(follower: Follower, tallies: Tallies, states: Iterable[RunState]) -> list[dict[str, Any]]:
    """The card state of each, with its tally. One queue is made for all of them: each state asking for its own place would sort it
    again and again."""
    states = list(states)
    waiting = queue(follower) if any(state.claimable for state in states) else {}
    now_ms = int(time.time() * 1000)
    shown = []
    for state in states:
        place, why = waiting.get(state.run_id, (None, ""))
        card = view.card_state(state, queue=place, waiting=why, now_ms=now_ms)
        shown.append({**card, "tally": tallies.of(state)})
    return shown


def queue(follower: Follower) -> dict[str, tuple[int, str]]:
    """Waiting runs → (1-based place, what it waits for)."""
    with follower.still():
        waiting, workers = follower.waiting(), follower.workers()
    return {state.run_id: (i, choose.waiting_reason(state, workers)) for i, state in enumerate(waiting, 1)}
