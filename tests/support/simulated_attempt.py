"""An attempt in the simulator: trains, writes checkpoints, applies settings, and says how it ends (design §2.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.parts import KafkaRef, Part
from kafka_jupyter.runs.lease import heartbeat_period
from kafka_jupyter.runs.state import RunState, Wish

TTL_S = 6.0
HEARTBEAT_S = heartbeat_period(TTL_S)
RESEND_S = TTL_S / 3  # a record that was not read back for so long is sent again (rule 5)
STEPS = 10  # of an epoch
STEP_S = 0.07


class Process(Protocol):
    """What an attempt needs of its worker."""

    world: Any
    uid: int
    leaving: bool

    def send(self, record: control.Record) -> None: ...
    def delete(self, run_id: str, refs: Iterable[Any]) -> None: ...


class Attempt:
    """From its Claimed to the record that ends it. Its records go out one behind the other, each until it is read back."""

    def __init__(self, process: Process, claim: control.Claimed, epochs: int) -> None:
        self.process, self.world, self.claim = process, process.world, claim
        self.run_id, self.nonce = claim.run_id, claim.nonce
        self.won_s: float | None = None  # when the winning claim was read back: training goes on since
        self._who: dict[str, Any] = {"run_id": claim.run_id, "n": claim.n, "worker": claim.worker, "nonce": claim.nonce}
        self._end = epochs * STEPS
        self._begin = self._checkpointed = 0  # in steps
        self._rate: float | None = 1.0
        self._file: Part | None = None
        self._replays: list[control.Applied] = []
        self._requests: set[str] = set()  # applied by this attempt
        self._accident, self._accident_at = "", 0  # how the child will end, empty: well
        self._over = False  # the record that ends it is on its way
        self._outbox: list[control.Record] = []
        self._sent_s = 0.0
        self._beat_s, self._beat = -TTL_S, 0
        self._beats: list[tuple[float, control.Heartbeat]] = []  # sent (when), not yet read back
        self._saved: list[control.Checkpointed] = []
        self._deleted: set[str] = set()
        self._put(claim)

    def holds(self, state: RunState | None) -> bool:
        attempt, claim = state.open if state else None, self.claim
        return attempt is not None and (attempt.n, attempt.worker, attempt.nonce) == (claim.n, claim.worker, claim.nonce)

    # --- records

    def _put(self, record: control.Record) -> None:
        self._outbox.append(record)
        if len(self._outbox) == 1:
            self._send()

    def _end_with(self, record: control.Record) -> None:
        self._over = True
        self._put(record)

    def _send(self) -> None:
        self._sent_s = self.world.now
        self.process.send(self._outbox[0])

    def read_back(self, record: control.Record, offset: int, after: RunState) -> None:
        if self._outbox and record is self._outbox[0]:
            del self._outbox[0]
            if self._outbox:
                self._send()
        if isinstance(record, control.Heartbeat):
            sent_s = next((sent_s for sent_s, beat in self._beats if beat is record), -1.0)
            self._beats = [beat for beat in self._beats if beat[0] > sent_s]
        elif any(record is own for own in self._saved) and after.open is not None and after.open.last == offset:
            self._delete_superseded(after)  # rule 8: its own one has been accepted

    def _delete_superseded(self, state: RunState) -> None:
        refs = [ref for ref in self.world.rules.disposable(state) if ref.upload not in self._deleted]
        if refs:
            self._deleted.update(ref.upload for ref in refs)
            self.process.delete(self.run_id, refs)

    # --- one turn

    def work(self, state: RunState | None) -> bool:
        """Whether the attempt goes on."""
        if state is None or not self.holds(state):
            over = self.won_s is not None or (state is not None and (state.terminal or state.last_n >= self.claim.n))
            if over or (not self.world.calm and self.world.random.random() < 0.1):
                return False
        elif self.won_s is None:
            self._win(state)
            return True
        elif not self._over:
            self._train(state)
        if self._outbox and self.world.now - self._sent_s > RESEND_S:
            self._send()
        return True

    def _win(self, state: RunState) -> None:
        """The winning claim was read back: start, or end at once what nobody wants any more."""
        world, chance = self.world, self.world.random
        self.won_s = world.now
        checkpoint = self._load(state)
        if state.wish is Wish.CANCEL:
            self._end_with(control.Cancelled(**self._who))
        elif state.wish is Wish.STOP:
            self._publish(checkpoint)
        elif state.wish is Wish.PAUSE or self.process.leaving:
            self._end_with(control.Released(**self._who, reason="unwanted"))
        elif not world.calm and chance.random() < 0.04:
            self._end_with(control.Released(**self._who, reason="unfit"))
        else:
            if self.run_id in world.poison:
                self._accident = "poison"
            elif not world.calm:
                self._accident = chance.choices(("", "signal", "exception"), (6, 3, 0.4))[0]
            self._accident_at = self._begin + chance.randint(0, 6 * STEPS)
            self._replays = world.rules.to_replay(state, checkpoint)
            world.seen["changes applied again"] += len(self._replays)
            self._put(control.Started(**self._who, epoch=self._begin // STEPS, step=self._begin % STEPS))

    def _load(self, state: RunState) -> control.Checkpointed | None:
        """The last checkpoint, or the one before if that cannot be read."""
        world = self.world
        for checkpoint in reversed(state.checkpoints):
            if not world.store.has(checkpoint):
                if self.holds(world.states[self.run_id]):
                    world.violations.append(f"C2: {self.run_id} was to go on from a checkpoint that is deleted")
            elif world.calm or world.random.random() >= world.unreadable:
                part = checkpoint.parts["state"]
                assert isinstance(part, KafkaRef)
                self._rate, self._file = world.store.rates[part.upload], checkpoint.files.get("log.csv")
                which = "the last checkpoint" if checkpoint is state.checkpoints[-1] else "the one before"
                world.seen[f"went on from {which}"] += 1
                self._begin = self._checkpointed = checkpoint.epoch * STEPS + checkpoint.step
                return checkpoint
        return None

    def _publish(self, checkpoint: control.Checkpointed | None) -> None:
        if checkpoint is None:
            self._end_with(control.Failed(**self._who, retryable=True, reason="store"))
        else:
            self.world.seen["a claimer published a checkpoint"] += 1
            self._end_with(control.Succeeded(**self._who, parts=checkpoint.parts, stopped_early=True, epochs=checkpoint.epoch))

    def _train(self, state: RunState) -> None:
        assert self.won_s is not None
        at = min(self._end, self._begin + int((self.world.now - self.won_s) / STEP_S))
        self._apply_settings(state, at)
        if state.wish is Wish.CANCEL:
            self._end_with(control.Cancelled(**self._who))
        elif state.wish is Wish.STOP:
            self._end_with(control.Succeeded(**self._who, stopped_early=True, epochs=at // STEPS))
        elif state.wish is Wish.PAUSE or self.process.leaving:
            self._checkpoint(state, at)
            self._end_with(control.Released(**self._who, reason="shutdown" if self.process.leaving else "pause"))
        elif self._accident == "poison":
            self.process.die()
        elif self._accident and at >= self._accident_at:
            self._end_with(control.Failed(**self._who, retryable=self._accident == "signal", reason=self._accident))
        elif at >= self._end:
            metrics = {} if self._rate is None else {"learning_rate": self._rate}
            self._end_with(control.Succeeded(**self._who, epochs=at // STEPS, metrics=metrics))
        else:
            self._go_on(state, at)

    def _apply_settings(self, state: RunState, at: int) -> None:
        while self._replays and self._replays[0].epoch * STEPS + self._replays[0].step <= at:
            self._rate = self._replays.pop(0).settings["learning_rate"]
        for request in state.settings:
            if request.request_id in state.applied or request.request_id in self._requests:
                continue
            self._requests.add(request.request_id)
            if "learning_rate" in request.settings:
                self._rate = request.settings["learning_rate"]
                self._replays.clear()  # what people ask for now is newer
            self._put(
                control.Applied(**self._who, request_id=request.request_id, settings=request.settings, epoch=at // STEPS, step=at % STEPS)
            )

    def _go_on(self, state: RunState, at: int) -> None:
        world = self.world
        due = at - at % STEPS
        if due >= self._checkpointed + 2 * STEPS and not any(isinstance(record, control.Checkpointed) for record in self._outbox):
            self._checkpoint(state, due if not self._replays and not self._requests else at)
        unheard_s = world.now - self._beats[0][0] if self._beats else 0.0
        if unheard_s <= TTL_S / 2 and world.now - self._beat_s >= HEARTBEAT_S:  # else it may be able to write but not to read
            self._beat += 1
            beat = control.Heartbeat(**self._who, epoch=at // STEPS, step=at % STEPS, beat=self._beat)
            self._beats.append((world.now, beat))
            self._beat_s = world.now
            self.process.send(beat)

    def _checkpoint(self, state: RunState, at: int) -> None:
        """At the end of an epoch it has a value, in the middle of one it has none."""
        world, chance = self.world, self.world.random
        if not world.checkpoints or at <= self._checkpointed:
            return
        self._checkpointed = at
        if world.files and (self._file is None or chance.random() < 0.3):
            self._file = world.store.put()
        epoch, step = divmod(at, STEPS)
        record = control.Checkpointed(
            **self._who,
            epoch=epoch,
            step=step,
            parts={"state": world.store.put(self._rate)},
            files={} if self._file is None else {"log.csv": self._file},
            metric="val_loss",
            value=None if step else chance.random(),
        )
        self._saved.append(record)
        self._put(record)
        if not world.rules.deletes_after_read_back:
            self._delete_superseded(world.rules.apply(state, world.placed_next(record)))
