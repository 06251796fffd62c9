"""A worker of the simulator: follows the rules of design §2.2 with its own lag, and meets every accident that chaos has for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kafka_jupyter.protocol import control
from kafka_jupyter.runs.lease import SilenceClock
from kafka_jupyter.runs.state import RunState
from tests.support.simulated_attempt import HEARTBEAT_S, RESEND_S, TTL_S, Attempt
from tests.support.simulated_snapshots import position

if TYPE_CHECKING:
    from tests.support.simulator import World


class Worker:
    """One process. `uid` is the truth that no other reader knows; a process started again may have the same `worker_id`."""

    def __init__(self, world: World, uid: int, worker_id: str) -> None:
        self.world, self.uid, self.worker_id = world, uid, worker_id
        self.leaving = False
        self._alive = True
        random = world.random
        beginning = world.topic.begin()
        self.states: dict[str, RunState] = dict(beginning.states)
        self._position = position(world.log, beginning)
        self._changed: dict[str, RunState] = {}  # since it last wrote snapshots
        self._writing_until_s = self._deaf_until_s = 0.0
        self._hasty = not world.calm and random.random() < 0.15  # does not wait for read-back: the log must fence it
        self._skew_s = random.uniform(-1e6, 1e6)
        self._clock = SilenceClock(TTL_S)
        self._asked: tuple[float, int] | None = None  # an end-offset question: when, and the answer
        self._blamed: dict[str, float] = {}
        self._attempt: Attempt | None = None
        self._nonces: dict[str, float] = {}
        self._freeze_s = 0.0
        world.at(world.now + random.uniform(0, HEARTBEAT_S), self.wake)

    def wake(self) -> None:
        """One turn of the supervisor's loop."""
        world, random = self.world, self.world.random
        if not self._alive:
            return
        if world.over:
            self._read()
            if world.snapshots and self._changed and world.now > self._writing_until_s:
                self._snapshot()
            return
        pause_s = (0.3 + 0.65 * random.random()) * HEARTBEAT_S
        if not world.calm and self._meets_chaos():
            return
        self._read()
        self._drop_unwanted()
        self._reap()
        if self._changed and world.snapshots and world.now > self._writing_until_s and random.random() < 0.06:
            self._snapshot()
        if self._attempt is not None:
            if not self._attempt.work(self.states.get(self._attempt.run_id)):
                self._attempt = None
        elif self.leaving:
            self.die()
            return
        else:
            self._claim()
        world.at(world.now + self._freeze_s + pause_s, self.wake)
        self._freeze_s = 0.0

    def die(self) -> None:
        self._alive = False
        self.world.replace(self)

    def send(self, record: control.Record) -> None:
        self.world.write(record, self.uid, after_s=self._freeze_s)

    def delete(self, run_id: str, refs: Iterable[Any]) -> None:
        """Takes its time, at times a very long one."""
        random = self.world.random
        late_s = 0.01 if self.world.calm or random.random() < 0.8 else 3 * TTL_S * random.random()
        self.world.at(self.world.now + self._freeze_s + late_s, lambda: self.world.delete(run_id, refs))

    def _meets_chaos(self) -> bool:
        """Whether the process just died. A frozen one acts on what it knows, but its writes leave only after the freeze."""
        random = self.world.random
        luck = random.random() / self.world.harshness
        if luck < 0.006:
            self.die()
            return True
        if luck < 0.025:
            self._freeze_s = random.uniform(0.3, 2.5) * TTL_S
            if random.random() < 0.5:
                self._deaf_until_s = self.world.now + self._freeze_s + HEARTBEAT_S  # goes on writing before it reads again
            if random.random() < 0.3:
                self.world.replace(self)  # somebody took it for dead: two processes, perhaps of the same name
        elif luck < 0.035:
            self._deaf_until_s = self.world.now + random.uniform(0.3, 2) * TTL_S
        elif luck < 0.04:
            self.leaving = True
        return False

    def _read(self) -> None:
        world = self.world
        log, position = world.log, self._position
        if position < len(log) and world.now >= self._deaf_until_s:
            until_s = world.now - world.lag()
            while position < len(log) and log[position].time_s <= until_s:
                entry = log[position]
                position += 1
                run_id = entry.record.run_id
                self.states[run_id] = self._changed[run_id] = entry.after
                if entry.author == self.uid and self._attempt is not None:
                    if entry.record is self._attempt.claim and self._attempt.won_s is None and not self._attempt.holds(entry.after):
                        self._attempt = None  # lost
                    else:
                        self._attempt.read_back(entry.record, entry.offset, entry.after)
            self._position = position
        if self._asked is not None and self._position >= self._asked[1]:
            self._clock.caught_up(self._asked[0] + self._skew_s)
        self._asked = (world.now, len(world.log)) if world.calm or world.random.random() < 0.9 else None

    def _snapshot(self) -> None:
        """Of all runs that changed since the last time; if one could not be written, it is among those of the next time."""
        stale = {state.run_id: state for state in self.states.values() if not state.terminal and self.world.random.random() < 0.3}
        changed, self._changed = stale | self._changed, {}
        acked, self._writing_until_s = self.world.topic.write(changed, self.world.log[self._position - 1].offset, self._freeze_s)
        if not acked:
            self._changed = changed

    def _drop_unwanted(self) -> None:
        """A winning claim that was given up meanwhile is released at once (rule 5)."""
        now = self.world.now
        for state in self.states.values() if self._nonces else ():
            attempt = state.open
            if attempt is None or attempt.nonce not in self._nonces or (self._attempt and self._attempt.nonce == attempt.nonce):
                continue
            if now - self._nonces[attempt.nonce] > RESEND_S:
                self._nonces[attempt.nonce] = now
                who = {"run_id": state.run_id, "n": attempt.n, "worker": attempt.worker, "nonce": attempt.nonce}
                self.send(control.Released(**who, reason="unwanted"))

    def _reap(self) -> None:
        world = self.world
        mine = self._attempt.run_id if self._attempt else ""
        others = [state for state in self.states.values() if state.open is not None and state.run_id != mine]
        for state in self._clock.expired(others, world.now + self._skew_s) if others else ():
            assert state.open is not None
            if world.now - self._blamed.get(state.run_id, -TTL_S) > HEARTBEAT_S and world.random.random() < 0.5:
                self._blamed[state.run_id] = world.now
                self.send(control.Expired(run_id=state.run_id, n=state.open.n, after=state.open.last, reaper=self.worker_id))
        if world.aging and world.random.random() < 0.05:
            for run_id in world.aging:
                self.send(control.TooOld(run_id=run_id, reaper=self.worker_id))

    def _claim(self) -> None:
        """A free slot takes a waiting run that it knows from its Task or from the log; at times it hesitates, as ranks make it."""
        world = self.world
        if world.random.random() < 0.3:
            return
        for run in world.runs:
            state = self.states.get(run.run_id)
            if run.task_s > world.now or (state is not None and (not state.claimable or self.worker_id in state.unfit)):
                continue
            n = state.last_n + 1 if state else 1
            claim = control.Claimed(run_id=run.run_id, n=n, worker=self.worker_id, nonce=f"{self.uid}.{len(self._nonces)}", task=run.task)
            self._nonces[claim.nonce] = -TTL_S
            self._attempt = Attempt(self, claim, run.epochs)
            if self._hasty:
                self._rush(claim)
            return

    def _rush(self, claim: control.Claimed) -> None:
        """Breaks rule 5: writes a whole attempt without having read that its claim won."""
        who = {"run_id": claim.run_id, "n": claim.n, "worker": claim.worker, "nonce": claim.nonce}
        random = self.world.random
        last = control.Succeeded(**who) if random.random() < 0.5 else control.Failed(**who, retryable=True, reason="signal")
        self.world.rushed.add(claim.run_id)
        checkpoint = control.Checkpointed(**who, epoch=1, step=0, parts={"state": self.world.store.put()})
        for record in (control.Started(**who), control.Heartbeat(**who, beat=1), checkpoint, last):
            if random.random() < 0.7:
                self.world.write(record, self.uid, after_s=self._freeze_s + random.uniform(0, TTL_S))
