"""When a worker claims: one with a trouble of its own rests, so that it does not go through the queue."""

from __future__ import annotations

from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.worker.claims import LONGEST_REST_S, REST_S, Claims
from tests.support.records import TASK, fold, submitted

ME = WorkerInfo("cpu-1", "cpu", free=1)
WAITING = fold([submitted()])
OWNED = {(TASK.topic, TASK.partition)}


def test_who_has_a_trouble_of_its_own_rests_twice_as_long_each_time_until_it_is_over() -> None:
    claims = Claims(0.05)

    def claimed_at(now_s: float) -> float | None:
        """When it claims the waiting run, if not now."""
        choice = claims.choose([WAITING], ME, [ME], OWNED, 1, now_s)
        assert bool(choice.runs) is (choice.next_s is None)
        return choice.next_s

    now_s, rests = 100.0, []
    assert claimed_at(now_s) is None
    for _ in range(8):
        claims.saw_end(False, now_s)
        claims.saw_end(None, now_s)
        until_s = claimed_at(now_s)
        assert until_s is not None
        rests.append(until_s - now_s)
        now_s = until_s
        assert claimed_at(now_s) is None
    assert rests == [min(REST_S * 2**time, LONGEST_REST_S) for time in range(8)]
    claims.saw_end(True, now_s)
    assert claimed_at(now_s) is None
    claims.saw_end(False, now_s)
    assert claimed_at(now_s) == now_s + REST_S
