"""A worker of the simulator: follows the rules of design §2.2 with its own lag, and meets every accident that chaos has for it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from kafka_jupyter.protocol import control
from kafka_jupyter.runs.lease import SilenceClock, heartbeat_period
from kafka_jupyter.runs.state import RunState, Wish
from tests.support.log_checker import Entry

if TYPE_CHECKING:
    from tests.support.simulator import World

TTL_S = 6.0
HEARTBEAT_S = heartbeat_period(TTL_S)
RESEND_S = TTL_S / 3  # a record that was not read back for so long is sent again (rule 5)
EPOCH_S = 0.7


@dataclasses.dataclass(slots=True)
class Duty:
    """What the worker is busy with: an attempt from its Claimed to the record that ends it."""

    claim: control.Claimed
    won_s: float | None = None  # when the winning claim was read back: training goes on since
    resume_epoch: int = 0
    epochs: int = 0
    accident: str = ""  # how the child will end, empty: well
    accident_epoch: int = 0
    checkpointed: int = 0
    pending: control.Record | None = None  # sent until it is read back
    sent_s: float = 0.0
    beat_s: float = -TTL_S
    beats: list[tuple[float, control.Heartbeat]] = dataclasses.field(default_factory=list)  # sent (when), not yet read back


class Worker:
    """One process. `uid` is the truth that no other reader knows; a process started again may have the same `worker_id`."""

    def __init__(self, world: World, uid: int, worker_id: str) -> None:
        self.world, self.uid, self.worker_id = world, uid, worker_id
        self.states: dict[str, RunState] = {}
        self._alive = True
        self._leaving = False
        random = world.random
        self._position = 0
        self._deaf_until_s = 0.0
        self._hasty = not world.calm and random.random() < 0.15  # does not wait for read-back: the log must fence it
        self._skew_s = random.uniform(-1e6, 1e6)
        self._clock = SilenceClock(TTL_S)
        self._asked: tuple[float, int] | None = None  # an end-offset question: when, and the answer
        self._blamed: dict[str, float] = {}
        self._duty: Duty | None = None
        self._nonces: dict[str, float] = {}
        self._freeze_s = 0.0
        world.at(world.now + random.uniform(0, HEARTBEAT_S), self.wake)

    def wake(self) -> None:
        """One turn of the supervisor's loop."""
        world, random = self.world, self.world.random
        if not self._alive or world.over:
            return
        pause_s = random.uniform(0.2, 0.8) * HEARTBEAT_S
        if not world.calm and self._meets_chaos():
            return
        self._read()
        self._drop_unwanted()
        self._reap()
        if self._duty is not None:
            self._work(self._duty)
        elif self._leaving:
            self.die()
            return
        else:
            self._claim()
        world.at(world.now + self._freeze_s + pause_s, self.wake)
        self._freeze_s = 0.0

    def die(self) -> None:
        self._alive = False
        self.world.replace(self)

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
            self._leaving = True
        return False

    def _write(self, record: control.Record) -> None:
        self.world.write(record, self.uid, after_s=self._freeze_s)

    def _read(self) -> None:
        world = self.world
        lag_s = world.lag()
        if world.now >= self._deaf_until_s:
            log, position = world.log, self._position
            while position < len(log) and log[position].time_s + lag_s <= world.now:
                entry = log[position]
                position += 1
                self.states[entry.record.run_id] = entry.after
                if entry.author == self.uid:
                    self._read_back(entry)
            self._position = position
        if self._asked is not None and self._position >= self._asked[1]:
            self._clock.caught_up(self._asked[0] + self._skew_s)
        self._asked = (world.now, len(world.log)) if world.calm or world.random.random() < 0.9 else None

    def _read_back(self, entry: Entry) -> None:
        duty = self._duty
        if duty is None:
            return
        record = entry.record
        if record is duty.claim and duty.won_s is None and not self._holds(duty, entry.after):
            self._duty = None  # lost
        elif isinstance(record, control.Heartbeat):
            sent_s = next((sent_s for sent_s, beat in duty.beats if beat is record), -1.0)
            duty.beats = [beat for beat in duty.beats if beat[0] > sent_s]

    def _holds(self, duty: Duty, state: RunState | None) -> bool:
        attempt, claim = state.open if state else None, duty.claim
        return attempt is not None and (attempt.n, attempt.worker, attempt.nonce) == (claim.n, claim.worker, claim.nonce)

    def _drop_unwanted(self) -> None:
        """A winning claim that was given up meanwhile is released at once (rule 5)."""
        now = self.world.now
        for state in self.states.values():
            attempt = state.open
            if attempt is None or attempt.nonce not in self._nonces or (self._duty and self._duty.claim.nonce == attempt.nonce):
                continue
            if now - self._nonces[attempt.nonce] > RESEND_S:
                self._nonces[attempt.nonce] = now
                record = control.Released(run_id=state.run_id, n=attempt.n, worker=attempt.worker, nonce=attempt.nonce, reason="unwanted")
                self._write(record)

    def _reap(self) -> None:
        world = self.world
        mine = self._duty.claim.run_id if self._duty else ""
        others = [state for state in self.states.values() if state.run_id != mine]
        for state in self._clock.expired(others, world.now + self._skew_s):
            assert state.open is not None
            if world.now - self._blamed.get(state.run_id, -TTL_S) > HEARTBEAT_S and world.random.random() < 0.5:
                self._blamed[state.run_id] = world.now
                self._write(control.Expired(run_id=state.run_id, n=state.open.n, after=state.open.last, reaper=self.worker_id))
        if world.aging and world.random.random() < 0.05:
            for run_id in world.aging:
                self._write(control.TooOld(run_id=run_id, reaper=self.worker_id))

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
            self._duty = Duty(claim, epochs=run.epochs)
            self._send(self._duty, claim)
            if self._hasty:
                self._rush(claim)
            return

    def _rush(self, claim: control.Claimed) -> None:
        """Breaks rule 5: writes a whole attempt without having read that its claim won."""
        who = self._who(claim)
        random = self.world.random
        last = control.Succeeded(**who) if random.random() < 0.5 else control.Failed(**who, retryable=True, reason="signal")
        for record in (control.Started(**who), control.Heartbeat(**who), control.Checkpointed(**who, epoch=1, step=0), last):
            if random.random() < 0.7:
                self.world.write(record, self.uid, after_s=self._freeze_s + random.uniform(0, TTL_S))

    def _send(self, duty: Duty, record: control.Record) -> None:
        """Sends and remembers: the same record goes out again until it is read back."""
        duty.pending, duty.sent_s = record, self.world.now
        self._write(record)

    def _work(self, duty: Duty) -> None:
        state = self.states.get(duty.claim.run_id)
        if state is None or not self._holds(duty, state):
            over = duty.won_s is not None or (state is not None and (state.terminal or state.last_n >= duty.claim.n))
            given_up = not self.world.calm and self.world.random.random() < 0.1
            if over or given_up:
                self._duty = None
            else:
                self._resend(duty)
            return
        if duty.won_s is None:
            self._win(duty, state)
        elif duty.pending is not None and not (isinstance(duty.pending, control.Started) and state.open and state.open.started):
            self._resend(duty)
        else:
            duty.pending = None
            self._train(duty, state)

    def _resend(self, duty: Duty) -> None:
        if duty.pending is not None and self.world.now - duty.sent_s > RESEND_S:
            self._send(duty, duty.pending)

    def _win(self, duty: Duty, state: RunState) -> None:
        """The winning claim was read back: start, or end at once what nobody wants any more."""
        world, who = self.world, self._who(duty.claim)
        duty.won_s = world.now
        duty.resume_epoch = state.checkpoints[-1].epoch if state.checkpoints else 0
        duty.checkpointed = duty.resume_epoch
        if state.wish is Wish.CANCEL:
            self._send(duty, control.Cancelled(**who))
        elif state.wish is Wish.STOP:
            self._send(duty, control.Succeeded(**who, stopped_early=True))
        elif state.wish is Wish.PAUSE or self._leaving:
            self._send(duty, control.Released(**who, reason="unwanted"))
        elif not world.calm and world.random.random() < 0.04:
            self._send(duty, control.Released(**who, reason="unfit"))
        else:
            if duty.claim.run_id in world.poison:
                duty.accident = "poison"
            elif not world.calm:
                duty.accident = world.random.choices(("", "signal", "exception"), (6, 3, 0.4))[0]
            duty.accident_epoch = duty.resume_epoch + world.random.randint(0, 6)
            self._send(duty, control.Started(**who, epoch=duty.resume_epoch))

    def _who(self, claim: control.Claimed) -> dict[str, Any]:
        return {"run_id": claim.run_id, "n": claim.n, "worker": claim.worker, "nonce": claim.nonce}

    def _train(self, duty: Duty, state: RunState) -> None:
        world, who = self.world, self._who(duty.claim)
        assert duty.won_s is not None
        epoch = min(duty.epochs, duty.resume_epoch + int((world.now - duty.won_s) / EPOCH_S))
        if state.wish is Wish.CANCEL:
            self._send(duty, control.Cancelled(**who))
        elif state.wish is Wish.STOP:
            self._send(duty, control.Succeeded(**who, stopped_early=True, epochs=epoch))
        elif state.wish is Wish.PAUSE or self._leaving:
            self._checkpoint(duty, epoch)
            self._send(duty, control.Released(**who, reason="shutdown" if self._leaving else "pause"))
        elif duty.accident == "poison":
            self.die()
        elif duty.accident and epoch >= duty.accident_epoch:
            self._send(duty, control.Failed(**who, retryable=duty.accident == "signal", reason=duty.accident))
        elif epoch >= duty.epochs:
            self._send(duty, control.Succeeded(**who, epochs=epoch))
        else:
            self._go_on(duty, state, epoch)

    def _go_on(self, duty: Duty, state: RunState, epoch: int) -> None:
        world = self.world
        if epoch >= duty.checkpointed + 3:
            self._checkpoint(duty, epoch)
        for request in state.settings:
            if request.request_id not in state.applied:
                self._write(control.Applied(**self._who(duty.claim), request_id=request.request_id))
        unheard_s = world.now - duty.beats[0][0] if duty.beats else 0.0
        if unheard_s <= TTL_S / 2 and world.now - duty.beat_s >= HEARTBEAT_S:  # else it may be able to write but not to read
            beat = control.Heartbeat(**self._who(duty.claim), epoch=epoch)
            duty.beats.append((world.now, beat))
            duty.beat_s = world.now
            self._write(beat)

    def _checkpoint(self, duty: Duty, epoch: int) -> None:
        if self.world.checkpoints and epoch > duty.checkpointed:
            duty.checkpointed = epoch
            self._write(control.Checkpointed(**self._who(duty.claim), epoch=epoch, step=0))
