"""What a person asks of a run, appended to its log; and who may ask."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

from kafka_jupyter import errors
from kafka_jupyter.brokers.change import Change
from kafka_jupyter.client import find, retry, words
from kafka_jupyter.protocol import control, ids
from kafka_jupyter.runs.state import RunState, Wish

if TYPE_CHECKING:
    from kafka_jupyter.client.client import Client

_DONE: dict[type[control.Request], str] = {
    control.PauseRequested: "paused",
    control.ResumeRequested: "resumed",
    control.SettingsRequested: "changed",
}


class Asker:
    """For one run. `whole`: a person has written its whole id. `submitted`: this process has its Task acked."""

    def __init__(self, client: Client, run_id: str, whole: bool = True, submitted: bool = False) -> None:
        self._client, self.run_id = client, run_id
        self._whole, self._submitted = whole, submitted

    def end(self, kind: type[control.Request], force: bool) -> None:
        """Stop or cancel. Raises NotYourRun, RunNotFound, BrokerError. A run that has ended stays as it is."""
        state = self._state()
        if state is None or not state.terminal:
            self._mine(state, force)
            self._write(kind)

    def steer(self, kind: type[control.Request], force: bool) -> None:
        """Pause or resume. Raises RunEnded and RunEnding as well."""
        self._may_be(kind, force)
        self._write(kind)

    def set(self, settings: dict[str, Any], force: bool, timeout_s: float) -> control.Applied | None:
        """Asks for other settings, and waits for the worker's answer; None if it has not come in time."""
        self._may_be(control.SettingsRequested, force)
        follower = self._client.connection().follower()
        request_id = ids.new_request_id()
        answers: queue.SimpleQueue[control.Applied] = queue.SimpleQueue()

        def listen(change: Change) -> None:
            record, state = change.record, change.state
            if isinstance(record, control.Applied) and record.request_id == request_id and state and request_id in state.applied:
                answers.put(record)  # of the attempt that is open: one that was cut off may speak, but does not count

        leave = follower.subscribe(listen)
        try:
            self._write(control.SettingsRequested, request_id=request_id, settings=settings)
            return answers.get(timeout=timeout_s) if timeout_s > 0 else None
        except queue.Empty:
            return None
        finally:
            leave()

    def retry(self, edits: retry.Edits, force: bool) -> str:
        """The id of the new run. Raises CannotRetry, RetriedAlready, TaskGone, BadWish and what `submit` raises."""
        connection = self._client.connection()
        state = self._state() or connection.catch_up().state(self.run_id)
        if state is None:
            raise errors.RunNotFound(run_id=self.run_id)
        retry.id_of(state)
        self._mine(state, force)
        task = retry.edited(retry.again(retry.read(connection.log, state), state), edits)
        self._client.resubmit(task, edits, state)
        return task.run_id

    def _state(self) -> RunState | None:
        """What the log says of the run, read for that if need be: whose it is decides who may ask. None only of what we submitted."""
        connection = self._client.connection()
        state = connection.follower().state(self.run_id)
        if state is None and not self._submitted:
            state = connection.catch_up().state(self.run_id)
            if state is None:
                raise errors.RunNotFound(run_id=self.run_id)
        return state

    def _mine(self, state: RunState | None, force: bool) -> None:
        if state is not None and not words.is_mine(state, self._client.settings.owner) and not (force and self._whole):
            raise errors.NotYourRun(run_id=self.run_id, owner=find.owner_of(state))

    def _may_be(self, kind: type[control.Request], force: bool) -> None:
        state = self._state()
        if state is not None:
            alive(kind, state)
        self._mine(state, force)

    def _write(self, kind: type[control.Request], request_id: str = "", **fields: Any) -> None:
        by = self._client.settings.owner
        record = kind(run_id=self.run_id, request_id=request_id or ids.new_request_id(), by=by, **fields)
        self._client.connection().log.write_control(record)


def alive(kind: type[control.Request], state: RunState) -> None:
    """Whether a run can still be paused, resumed or changed. Raises RunEnded, RunEnding."""
    if state.terminal:
        raise errors.RunEnded(run_id=state.run_id, state=str(state.state))
    if state.wish in (Wish.STOP, Wish.CANCEL):
        raise errors.RunEnding(run_id=state.run_id, state=str(state.state), done=_DONE[kind])
