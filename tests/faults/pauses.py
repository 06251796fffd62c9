"""Runs that are paused in the middle of a storm; later they are resumed, or stopped where they rest."""

from __future__ import annotations

import random
from collections.abc import Callable

from kafka_jupyter import errors
from tests.faults.stage import Stage

STOPPED = 0.3  # of those that were paused
RESTS_S = 2.0  # at most, once it is PAUSED


class Pauses:
    """Never waits: `look` is called again and again, `settle` when the storm is over. `stopped` may end as CANCELLED, where no checkpoint
    had been written."""

    def __init__(self, stage: Stage, chance: random.Random) -> None:
        self._stage, self._chance = stage, chance
        self._due: dict[str, float] = {}  # when to ask the next thing of a run
        self.paused: set[str] = set()
        self.resumed: set[str] = set()
        self.stopped: set[str] = set()

    def watch(self, run_id: str) -> None:
        self._due[run_id] = self._stage.clock.now_s + self._chance.uniform(0.0, 4.0)

    def look(self, over: bool = False) -> None:
        for run_id, due_s in list(self._due.items()):
            state = self._stage.state(run_id)
            if state is not None and state.terminal:
                del self._due[run_id]
            elif run_id in self.paused:
                self._go_on(run_id, due_s, over)
            elif due_s <= self._stage.clock.now_s and self._asked(run_id, "pause"):
                self.paused.add(run_id)
                self._due[run_id] = self._stage.clock.now_s + self._chance.uniform(0.0, RESTS_S)

    def settle(self) -> None:
        def settled() -> bool:
            self.look(over=True)
            return not self._due

        self._stage.until(settled, "paused runs could not be asked to go on", 60.0)

    def _go_on(self, run_id: str, due_s: float, over: bool) -> None:
        """Some before they rest, most of them afterwards."""
        if not over and due_s > self._stage.clock.now_s:
            return
        what = "stop" if self._chance.random() < STOPPED else "resume"
        if self._asked(run_id, what):
            (self.stopped if what == "stop" else self.resumed).add(run_id)
            del self._due[run_id]

    def _asked(self, run_id: str, what: str) -> bool:
        """Asked again the next time, where Kafka did not answer."""
        try:
            run = self._stage.client.attach(run_id)
            verbs: dict[str, Callable[[], None]] = {"pause": run.pause, "resume": run.resume, "stop": run.stop}
            verbs[what]()
        except (errors.RunEnded, errors.RunEnding):
            return True
        except (errors.BrokerError, errors.SubmitUnknown) as failure:
            self._stage.note(f"{what} of {run_id} again: {failure}")
            return False
        self._stage.note(f"{what} {run_id}")
        return True
