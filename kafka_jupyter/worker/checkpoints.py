"""The checkpoints of one attempt, from the child's files to accepted records, and the end of those that are superseded (rule 8).

One is on its way at a time: stored and read back, then, when all rows before it are in the log, told. The newest waits behind it,
any in between are dropped. Lives on the supervisor's loop; what blocks is done aside.
"""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Iterable
from typing import Any

from kafka_jupyter import errors, redact, store
from kafka_jupyter.protocol import control, frames
from kafka_jupyter.protocol.parts import KafkaRef, Part, Ref, UrlRef
from kafka_jupyter.runs import checkpoints
from kafka_jupyter.runs.state import RunState
from kafka_jupyter.worker import endings
from kafka_jupyter.worker.reporter import Reporter
from kafka_jupyter.worker.site import Site
from kafka_jupyter.worker.transfer import Kept, Results, keep, owner_of

logger = redact.logger(__name__)

AGAIN_S = 1.0  # between two tries to store one while Kafka or the store is away


class Checkpoints:
    def __init__(self, site: Site, own: dict[str, Any], reporter: Reporter) -> None:
        self._site, self._own, self._reporter = site, own, reporter
        self._waiting: tuple[frames.Saved, int] | None = None  # and the last row before it
        self._storing: tuple[frames.Saved, int] | None = None
        self._again_s: float | None = None  # when to try to store it once more
        self._stored: tuple[control.Checkpointed, int] | None = None
        self._told: control.Checkpointed | None = None  # not read back yet
        self._kept = Kept()  # files that are stored already
        self._copies: set[str] = set()  # copies of callbacks' files that lie here, of checkpoints that are done with
        self._deleted: set[Ref] = set()
        self._closed = self._complained = self._waited = False

    @property
    def idle(self) -> bool:
        """Nothing is on its way: the last one that was written is accepted, or given up."""
        return not (self._waiting or self._storing or self._stored or self._told)

    def saved(self, frame: frames.Saved) -> None:
        """The child has written one."""
        older, self._waiting = self._waiting, (frame, self._reporter.last_seq)
        if older is not None:
            self._drop(older[0])
        if self._again_s is not None and self._storing is not None:  # the store is away: the newer one will do
            older, self._storing, self._again_s = self._storing, None, None
            self._drop(older[0])
        self._next()

    def close(self) -> None:
        """No more of them will be told: the attempt ends. What was stored and is named nowhere goes again."""
        if self._closed:
            return
        if self._again_s is not None and self._storing is not None:
            self._drop(self._storing[0])
        self._closed, self._again_s = True, None
        if self._stored is not None:
            self._forget(self._stored[0].parts.values())
            self._stored = None

    def tick(self, now_s: float) -> None:
        if self._again_s is not None and now_s >= self._again_s:
            self._again_s = None
            self._store()
        # A row that is lost with its worker would be missing for ever once the run goes on behind it.
        if self._stored is not None and self._reporter.delivered(self._stored[1]):
            self._told, self._stored = self._stored[0], None
            self._site.outbox.put(self._told, lambda error: self._site.post(lambda: self._on_refused(error)))

    def on_state(self, state: RunState) -> None:
        """What the log says of our run, whose open attempt is ours."""
        if self._told is not None and self._told in state.checkpoints:
            self._told, self._complained = None, False
            self._dispose(state)
            self._next()

    # --- the way of one

    def _next(self) -> None:
        if not self._closed and self._waiting is not None and self._storing is None and self._stored is None and self._told is None:
            self._storing, self._waiting = self._waiting, None
            self._store()

    def _store(self) -> None:
        assert self._storing is not None
        frame, _ = self._storing
        for file in self._kept.parts.keys() - {frame.file, *frame.outputs.values()}:  # superseded: no later one names it either
            del self._kept.parts[file]
        run_id, files = self._own["run_id"], {"state": frame.file}
        name, owner = f"{run_id}/checkpoint-{frame.epoch}-{frame.step}", owner_of(run_id, self._own["n"])
        self._site.aside(lambda: keep(self._site.store, name, owner, files, frame.outputs, self._kept), self._on_stored)

    def _on_stored(self, outcome: Results | Exception) -> None:
        assert self._storing is not None
        frame, seq = self._storing
        if self._closed:
            self._drop(frame)
            return
        if isinstance(outcome, Exception) and endings.may_pass(outcome, trained=True):
            if not self._waited:
                logger.info("the checkpoint of %s waits: %s", self._own["run_id"], outcome)
            self._waited = True
            if self._waiting is None:
                self._again_s = time.monotonic() + AGAIN_S
                return
        elif isinstance(outcome, Exception):
            self._give_up(frame, outcome)
        else:
            self._stored, self._waited = (self._record(frame, outcome), seq), False
            self._kept.take(frame.file)
        self._drop(frame)
        self._storing = None
        self.tick(time.monotonic())
        self._next()

    def _record(self, frame: frames.Saved, results: Results) -> control.Checkpointed:
        return control.Checkpointed(
            **self._own,
            epoch=frame.epoch,
            step=frame.step,
            parts=results.parts,
            files={file.path: file.part for file in results.files},
            metric=frame.metric,
            value=frame.value,
            mode=frame.mode,
        )

    def _on_refused(self, error: errors.RecordTooLarge) -> None:
        told, self._told = self._told, None
        if told is not None:
            self._give_up(told, error)
            self._forget(told.parts.values())
        self._next()

    def _give_up(self, what: frames.Saved | control.Checkpointed, error: Exception) -> None:
        logger.warning("no checkpoint of %s at epoch %d, step %d: %s", self._own["run_id"], what.epoch, what.step, error)
        if not self._complained:  # one line, not one a second
            self._complained = True
            self._reporter.line(f"The checkpoint of epoch {what.epoch}, step {what.step} was not kept: {error}", "stderr")

    def _drop(self, frame: frames.Saved) -> None:
        """Its own file is not needed any more: it is stored, or given up, or a newer checkpoint takes its place. The child names a copy
        of a callback's file for as long as the original stays as it is: one that is not stored stays until a newer one does without."""
        self._forget(self._kept.take(frame.file))
        newer = [other[0] for other in (self._waiting, self._storing) if other and other[0] is not frame]
        named = {copy for other in newer or [frame] for copy in other.outputs.values()}
        self._copies.update(frame.outputs.values())
        done = {copy for copy in self._copies if copy in self._kept.parts or copy not in named}
        self._copies -= done
        self._forget(self._kept.unread.pop(copy) for copy in done if copy in self._kept.unread)
        for file in (frame.file, *done):
            with contextlib.suppress(OSError):
                pathlib.Path(file).unlink(missing_ok=True)

    # --- those that are superseded, or were never told

    def _forget(self, parts: Iterable[Part]) -> None:
        """Of one that nobody will name. Its files may be those of one before."""
        refs = [part for part in parts if isinstance(part, KafkaRef | UrlRef)]
        if refs:
            self._site.aside(lambda: self._delete(refs), lambda _: None)

    def sweep(self, state: RunState) -> None:
        """What earlier attempts have put into the store and no accepted record keeps: they are closed, so none ever will. To be called with
        a state in which the open attempt is ours."""
        run_id, n = self._own["run_id"], self._own["n"]
        if n > 1:
            kept = {store.upload_id(ref) for ref in checkpoints.named(state)}
            self._site.aside(lambda: self._swept([owner_of(run_id, m) for m in range(1, n)], kept), lambda _: None)

    def _swept(self, owners: Iterable[str], kept: set[str]) -> None:
        for owner in owners:
            self._delete(upload for upload in self._site.store.uploads_of(owner) if upload not in kept)

    def over(self, state: RunState) -> None:
        """The attempt is closed in this state. Its last checkpoint may have been accepted together with its end, or have come too late."""
        if self._told is not None and checkpoints.named(state).isdisjoint(self._told.parts.values()):
            self._forget(self._told.parts.values())
        self._told = None
        self._dispose(state)

    def _dispose(self, state: RunState) -> None:
        """To be called with a state that has all accepted checkpoints of ours: then nobody will ever go back to what they supersede."""
        refs = [ref for ref in checkpoints.disposable(state) if ref not in self._deleted]
        if refs:
            self._deleted.update(refs)
            self._site.aside(lambda: self._delete(refs), self._on_disposed)

    def _delete(self, refs: Iterable[Ref | str]) -> list[Ref | str]:
        """Those that could not be deleted."""
        left: list[Ref | str] = []
        for ref in refs:
            try:
                self._site.store.rm(ref)
            except errors.ArtifactMissing:
                pass
            except (errors.BrokerError, errors.StoreError) as failure:
                logger.info("a superseded checkpoint stays for now: %s", failure)
                left.append(ref)
        return left

    def _on_disposed(self, left: list[Ref | str] | Exception) -> None:
        if isinstance(left, list):
            self._deleted.difference_update(ref for ref in left if not isinstance(ref, str))  # the next one tries again
