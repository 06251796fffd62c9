"""One attempt at a run, from its Claimed to the record that ends it. Lives on the supervisor's loop; nothing here blocks.

    CLAIMING → PREPARING → TRAINING → STORING → ENDING → OVER
                                    ↘ LEAVING ↗

What the log says (`on_state`) always wins: an attempt that is not the open one any more is cut off, its child killed.
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable
from typing import Any

from kafka_jupyter import errors, redact
from kafka_jupyter.brokers.log import SignedTask
from kafka_jupyter.protocol import control, frames, ids
from kafka_jupyter.runs import changes, checkpoints
from kafka_jupyter.runs.lease import heartbeat_period
from kafka_jupyter.runs.state import RunState, Wish
from kafka_jupyter.store import Progress
from kafka_jupyter.worker import endings
from kafka_jupyter.worker.checkpoints import Checkpoints
from kafka_jupyter.worker.children import Child, Exit
from kafka_jupyter.worker.endings import Ending
from kafka_jupyter.worker.farewell import Farewell
from kafka_jupyter.worker.reporter import Reporter
from kafka_jupyter.worker.site import Site
from kafka_jupyter.worker.stall import StallClock
from kafka_jupyter.worker.transfer import Kept, Prepared, Results, keep, owner_of, prepare

logger = redact.logger(__name__)

SETTLED_S = 5.0
LEAVE_S = 2.0  # a worker that shuts down waits so long for a checkpoint
HAND_OVER_S = 7.0  # … and so long for what is on its way to the store: the record that follows has to be read back as well
DEATH_S = 10.0  # after SIGKILL: a child that is still there waits in the kernel, for a disk or a device that does not answer
AGAIN_S = 1.0  # between two tries to bring in a task or to store results while Kafka or the store is away


class Phase(enum.Enum):
    CLAIMING = enum.auto()
    PREPARING = enum.auto()
    TRAINING = enum.auto()
    STORING = enum.auto()
    LEAVING = enum.auto()  # suspended: its last checkpoint is on its way
    ENDING = enum.auto()
    OVER = enum.auto()


class Attempt:
    def __init__(self, site: Site, state: RunState, now_s: float, task: SignedTask | None = None) -> None:
        """`task`: what stands at the task's place, where that has been read already."""
        assert state.task is not None
        self.run_id, self.n, self.nonce = state.run_id, state.last_n + 1, ids.new_nonce()
        self.phase = Phase.CLAIMING
        self.healthy: bool | None = None  # whether its worker can do what any run asks of it, as far as this one has shown that
        self._site, self._place, self._task = site, state.task, task
        self._reporter = Reporter(site.log, self.run_id, self.n, site.worker_id, self.nonce, site.post, site.slots)
        self._prepared: Prepared | None = None
        self._child: Child | None = None
        self._done: frames.Done | None = None
        self._error: frames.Error | None = None
        self._suspended = self._stop = False
        self._stalled_s: float | None = None  # since when the child that makes no step should be dead
        self._leaving: tuple[Ending, float] | None = None  # what to say once its last checkpoint is safe, and when at the latest
        self._interrupted: Ending | None = None  # cancelled, or the worker shuts down: what to say when the child is gone
        self._kept = Kept()  # results that are stored already
        self._outage_since_s: float | None = None
        self._again: tuple[float, Callable[[], None]] | None = None  # when to try once more, and what
        self._training_since_s = now_s
        self._stall = StallClock(site.settings.stall_timeout_s, now_s)
        self._moved: Progress = lambda *_: site.post(self._stall.step)  # bytes came from the store, or went there
        self._forwarded: set[str] = set()
        self._own: dict[str, Any] = {"run_id": self.run_id, "n": self.n, "worker": site.worker_id, "nonce": self.nonce}
        self._checkpoints = Checkpoints(site, self._own, self._reporter)
        self._farewell = Farewell(site, self._own, self._reporter)
        self._state = state
        self._heartbeat_due_s = now_s + heartbeat_period(site.settings.lease_ttl_s)
        self._beats = 0
        self._read_back_s = now_s  # up to when we surely know what the log says
        site.outbox.put(control.Claimed(**self._own, task=self._place))

    @property
    def won(self) -> bool:
        return self.phase not in (Phase.CLAIMING, Phase.OVER)

    def settled(self, now_s: float) -> bool:
        """It has trained for a while: what its worker does beside does not matter much any more."""
        return self.phase is Phase.TRAINING and now_s - self._training_since_s > SETTLED_S

    # --- what the log says

    def on_state(self, state: RunState, shutting_down: bool) -> None:
        mine = state.open is not None and (state.open.n, state.open.nonce) == (self.n, self.nonce)
        if self.phase is Phase.CLAIMING:
            if mine:
                self._state = state
                self._checkpoints.sweep(state)
                self._won(shutting_down)
            elif state.terminal or state.open is not None or state.last_n >= self.n or not state.claimable:
                self._over()  # somebody else was first, or nobody may claim it any more
                return
        elif not mine:
            if self.phase not in (Phase.ENDING, Phase.OVER):
                logger.warning("attempt %d of %s is not ours any more: its child is ended", self.n, self.run_id)
            self._over()
            self._checkpoints.over(state)
            return
        if not mine or self.phase is Phase.ENDING:
            return
        self._read_back_s, self._state = time.monotonic(), state
        self._checkpoints.on_state(state)
        self._leave_when_safe()
        if state.wish is Wish.CANCEL:
            self._interrupt(lambda end: control.Cancelled(**self._own, log_end=end))
        elif state.wish is Wish.PAUSE:
            self._suspend(endings.released(self._own, "pause"), self._site.settings.outage_grace_s)
        elif state.wish is Wish.STOP and not self._stop:
            self._stop = True
            self._send(frames.Stop())
        for request in state.settings:
            if request.request_id not in state.applied and request.request_id not in self._forwarded:
                self._forwarded.add(request.request_id)
                self._send(frames.Apply(request.request_id, request.settings))

    def caught_up(self, asked_s: float) -> None:
        """All that stood in the log at `asked_s` has been read: whoever fell silent while Kafka was away may speak again."""
        self._read_back_s = max(self._read_back_s, asked_s)

    def tick(self, now_s: float) -> None:
        """Heartbeats, and the end once all rows are in the log."""
        self._reporter.flush(now_s)
        if self.won and now_s >= self._heartbeat_due_s:
            self._heartbeat_due_s = now_s + heartbeat_period(self._site.settings.lease_ttl_s)
            self._beat(now_s)
        if self._again is not None and now_s >= self._again[0]:
            (_, step), self._again = self._again, None
            step()
        if self._stall.stalled(now_s):
            self._end_stalled(now_s)
        self._checkpoints.tick(now_s)
        self._leave_when_safe()
        if self._leaving is not None and now_s > self._leaving[1]:
            self._leave_without()
        self._farewell.tick(now_s, self._read_back_s)
        if self._farewell.hopeless:
            self._over()

    def shut_down(self) -> None:
        if self.phase is Phase.CLAIMING:
            return  # if the claim wins, `on_state` releases it
        released = endings.released(self._own, "shutdown")
        if self.phase in (Phase.STORING, Phase.LEAVING):
            ending, by_s = self._leaving or (released, math.inf)
            self._leaving = (ending, min(by_s, time.monotonic() + HAND_OVER_S))
        else:
            self._suspend(released, LEAVE_S)

    def disown(self) -> None:
        """Kafka has been away for longer than the grace: nobody can know what this child does."""
        self._over()

    def _beat(self, now_s: float) -> None:
        """A supervisor whose own records do not come back may be able to write but not to read: it falls silent (rule 6)."""
        if now_s - self._read_back_s > self._site.settings.lease_ttl_s / 2:
            return
        epoch, step = self._reporter.place
        try:
            self._beats += 1
            self._site.log.send_control(control.Heartbeat(**self._own, epoch=epoch, step=step, beat=self._beats))
        except errors.BrokerError as failure:
            logger.debug("heartbeat of %s not sent: %s", self.run_id, failure)

    # --- the way of the attempt

    def _won(self, shutting_down: bool) -> None:
        assert self._state.open is not None
        self._site.log.gate.signer.bind(self.nonce, self._state.open.kid)
        if shutting_down:
            self._say(endings.released(self._own, "shutdown"))
            return
        self.phase = Phase.PREPARING
        self._prepare()

    def _prepare(self) -> None:
        self._stall.step()
        folder, kept = self._site.folder / f"{self.run_id}-{self.n}-{self.nonce}", checkpoints.kept(self._state)
        self._site.aside(lambda: prepare(self._site, self._place, self.run_id, folder, self._task, kept, self._moved), self._on_prepared)

    def _on_prepared(self, outcome: Prepared | Exception) -> None:
        if isinstance(outcome, Prepared) and self.phase is not Phase.PREPARING:
            outcome.discard()
        if self.phase is not Phase.PREPARING:
            return
        if isinstance(outcome, Exception):
            if not self._tried_again(outcome, self._prepare):
                self.healthy = False if endings.ails_us(outcome) else None
                self._say(endings.refusal(self._own, outcome, trained=False))
            return
        self._prepared, self._task, self._outage_since_s = outcome, None, None
        state = self._state
        if state.wish is Wish.STOP and state.checkpoints and outcome.point is None:
            lost = errors.ArtifactMissing(name="of the last checkpoint", detail="; ".join(outcome.notes))
            self._say(endings.refusal(self._own, lost, trained=True))
            return
        for note in outcome.notes:
            self._reporter.line(note, "stderr")
        self._train(outcome)

    def _train(self, prepared: Prepared) -> None:
        self.phase, self._training_since_s = Phase.TRAINING, time.monotonic()
        self._stall.step()
        post, settings, state = self._site.post, self._site.settings, self._state
        self._reporter.place = prepared.place
        self._child = self._site.children.start(
            lambda frame: post(lambda: self._on_frame(frame)),
            lambda text, stream: post(lambda: self._reporter.line(text, stream)),
            lambda exit: post(lambda: self._on_exit(exit)),
        )
        again = [frames.Change(a.epoch, a.step, a.settings) for a in changes.to_replay(state, prepared.checkpoint)]
        cadence = frames.Cadence(settings.checkpoint_every_s, settings.checkpoint_gap_s, settings.checkpoint_share)
        publish = state.wish is Wish.STOP and prepared.point is not None
        brought = (prepared.task_json, prepared.inputs, str(prepared.folder))
        self._child.send(frames.Job(*brought, prepared.files, again, publish, prepared.task.code is not None, cadence))
        if self._stop and not publish:
            self._child.send(frames.Stop())

    def _send(self, frame: frames.Frame) -> None:
        if self._child is not None:
            self._child.send(frame)
        elif isinstance(frame, frames.Apply):
            self._forwarded.discard(frame.request_id)  # the next state change offers it again

    def _on_frame(self, frame: Any) -> None:
        if self.phase is not Phase.TRAINING:
            return
        self._stall.step()
        match frame:
            case frames.Ready():
                assert self._prepared is not None
                assert self._child is not None
                self.healthy = True
                self._site.outbox.put(self._prepared.started(self._own, frame, self._site.host, self._child.pid or 0))
            case frames.Epoch():
                self._reporter.epoch(frame.epoch, frame.step, frame.metrics, frame.seconds, frame.at_ms)
            case frames.Batch():
                self._reporter.batch(frame.epoch, frame.step, frame.steps, frame.metrics)
            case frames.AppliedFrame():
                self._site.outbox.put(
                    control.Applied(**self._own, request_id=frame.request_id, settings=frame.settings, epoch=frame.epoch, step=frame.step)
                )
            case frames.Saved():
                self._checkpoints.saved(frame)
            case frames.Suspended():
                self._suspended = True
            case frames.Done():
                self._done = frame
            case frames.Error():
                self._error = frame

    def _on_exit(self, exit: Exit) -> None:
        self._child = None
        self.healthy = self.healthy if exit.forked else False
        if self.phase is not Phase.TRAINING:
            if self.phase is Phase.OVER:
                self._clean()
            return
        if self._error is not None and self._interrupted is None:
            self._say(endings.exception(self._own, self._error, self._reporter.place[0]))
        elif self._done is not None and exit.code == 0 and not exit.signal:  # a result that stands beats a cancel that came too late
            self.phase = Phase.STORING
            self._keep()
        elif self._suspended and self._leaving is not None and self._interrupted is None:
            self.phase = Phase.LEAVING
            self._leave_when_safe()
        elif self._stalled_s is not None and self._interrupted is None:
            self._say(endings.stall(self._own, exit, self._reporter.place, self._site.settings.stall_timeout_s))
        else:
            self._say(self._interrupted or endings.death(self._own, exit, self._reporter.place[0]))

    def _keep(self) -> None:
        self._stall.step()
        done, owner, store = self._done, owner_of(self.run_id, self.n), self._site.store
        assert done is not None
        self._site.aside(lambda: keep(store, self.run_id, owner, done.files, done.outputs, self._kept, self._moved), self._on_kept)

    def _on_kept(self, outcome: Results | Exception) -> None:
        if self.phase is not Phase.STORING:
            return
        if isinstance(outcome, Exception):
            if not self._tried_again(outcome, self._keep):
                self._say(self._interrupted or endings.refusal(self._own, outcome, trained=True))
            return
        done = self._done
        assert done is not None
        self._say(
            lambda end: control.Succeeded(
                **self._own,
                parts=outcome.parts,
                files=outcome.files,
                stopped_early=done.stopped_early,
                epochs=done.epochs,
                metrics=done.metrics,
                log_end=end,
            )
        )

    def _tried_again(self, failure: Exception, step: Callable[[], None]) -> bool:
        """Whether `step` will be done once more: an outage ends neither a training nor what was trained (rule 9)."""
        now = time.monotonic()
        if self._interrupted is not None or not endings.may_pass(failure, self.phase is Phase.STORING):
            return False
        if self._outage_since_s is None:
            self._outage_since_s = now
            logger.warning("attempt %d of %s waits (%s): %s", self.n, self.run_id, self.phase.name.lower(), failure)
        if now - self._outage_since_s > self._site.settings.outage_grace_s:
            return False
        self._again = (now + AGAIN_S, step)
        return True

    def _end_stalled(self, now_s: float) -> None:
        """Nothing was trained, brought in or stored for `stall_timeout_s`. A thread that waits for the store cannot be ended, only left;
        nor can a child that waits in the kernel: it keeps its slot, not its run."""
        if self._child is not None and self._stalled_s is None:
            self._stalled_s = now_s
            self._child.terminate(0)
        elif self._stalled_s is not None:
            if self._child is not None and self.phase is Phase.TRAINING and not self._interrupted and now_s - self._stalled_s > DEATH_S:
                immortal = Exit(detail="its process does not die")
                self._say(endings.stall(self._own, immortal, self._reporter.place, self._site.settings.stall_timeout_s))
        elif self.phase in (Phase.PREPARING, Phase.STORING):
            stuck = endings.stuck(self._own, self._site.store.url, self._site.settings.stall_timeout_s, self.phase is Phase.STORING)
            self._say(self._interrupted or stuck)

    def _interrupt(self, ending: Ending) -> None:
        """Ends the child; the record follows when it is gone."""
        if self._interrupted is not None or self.phase in (Phase.ENDING, Phase.OVER):
            return
        self._interrupted = ending
        if self._again is not None or self.phase in (Phase.PREPARING, Phase.LEAVING):
            self._say(ending)
        if self._child is not None:
            self._child.terminate(self._site.settings.cancel_grace_s)

    def _suspend(self, ending: Ending, within_s: float) -> None:
        """As `_interrupt`, but the child writes a checkpoint first, which is safe before the record is said; if there is time for it."""
        if self.phase is not Phase.TRAINING:
            if self.phase is Phase.PREPARING:
                self._interrupt(ending)
            return
        now_s = time.monotonic()
        if self._leaving is None:
            self._send(frames.Suspend())
        elif self._leaving[1] <= now_s + within_s:
            return
        self._leaving = (ending, now_s + within_s)

    def _leave_when_safe(self) -> None:
        if self.phase is Phase.LEAVING and self._leaving is not None and self._checkpoints.idle:
            self._say(self._leaving[0])

    def _leave_without(self) -> None:
        """There is no time left for a checkpoint, or for results: the checkpoint before has to do."""
        assert self._leaving is not None
        (ending, _), self._leaving = self._leaving, None
        if self.phase in (Phase.STORING, Phase.LEAVING):
            self._say(self._interrupted or ending)
        else:
            self._interrupt(ending)

    def _say(self, ending: Ending) -> None:
        self.phase, self._again = Phase.ENDING, None
        self._checkpoints.close()
        self._farewell.say(ending)
        self._farewell.tick(time.monotonic(), self._read_back_s)

    def _over(self) -> None:
        """The log has spoken: nothing of ours matters any more."""
        self.phase, self._again = Phase.OVER, None
        self._checkpoints.close()
        self._farewell.drop()
        self._site.outbox.drop(self.run_id)
        if self._child is not None:
            self._child.terminate(0)  # `_on_exit` cleans up
        else:
            self._clean()

    def _clean(self) -> None:
        if self._prepared is not None:
            prepared, self._prepared = self._prepared, None
            self._site.pool.submit(prepared.discard)

    @property
    def finished(self) -> bool:
        """Over, and its child is gone."""
        return self.phase is Phase.OVER and self._child is None
