"""Client: submit, list, attach, workers. Cheap to make: nothing is connected before it is used."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Collection
from typing import Any

from kafka_jupyter import errors, redact
from kafka_jupyter.brokers import dead_letters, local
from kafka_jupyter.brokers.dead_letters import Buried
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.client import connection as connections
from kafka_jupyter.client import find, redrive, retry, words
from kafka_jupyter.client.connection import CATCH_UP_S, Connection
from kafka_jupyter.client.handle import TrainingRun
from kafka_jupyter.protocol.task import Task
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.runs.state import RunState
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import Store

logger = redact.logger(__name__)

_AS_IT_WAS = retry.Edits()


class Client:
    """Talks to the cluster of `settings` (default: environment and profile). All clients of one cluster share one connection."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings.from_env()
        self._connection: Connection | None = None
        self._pid = os.getpid()

    def submit(self, task: Task, model: Any = None) -> TrainingRun:
        """Returns when the Task is in the log. Submitting the same run id again is harmless.

        `model` is kept alive by the handle. Raises BrokerUnreachable and the like (then nothing was sent), TaskTooLarge, and
        SubmitUnknown, which names the run id: submit the same task again.
        """
        connection = self.connection()
        try:
            place = connection.log.write_task(task)
        except errors.DeliveryUnknown as unknown:
            raise errors.SubmitUnknown(run_id=task.run_id, detail=str(unknown)) from unknown
        connection.announce(retry.submitted_of(task, place, self.settings.keep_days))
        return TrainingRun(self, task.run_id, name=task.name, submitted=True, model=model)

    def runs(
        self,
        *,
        state: str | Collection[str] | None = None,
        name: str | None = None,
        owner: str | None = None,
        limit: int | None = None,
    ) -> list[TrainingRun]:
        """The runs in the log, newest first. `state`: one, or several of them."""
        states = self.connection().catch_up().newest()
        wanted = {word.upper() for word in ([state] if isinstance(state, str) else state or ())}
        chosen = [s for s in states if _matches(s, wanted, name, owner)]
        return [TrainingRun(self, s.run_id) for s in chosen[:limit]]

    def attach(self, run: str) -> TrainingRun:
        """The run that `run` names: an id, a unique beginning of an id or of its last part, or my newest run of that name.

        Raises RunNotFound with the nearest ids, RunAmbiguous with the candidates.
        """
        connection = self.connection()
        follower = connection.catch_up()
        try:
            found = find.find(follower.states(), run, self.settings.owner)
        except errors.RunNotFound:
            if not connection.outbox.pending():
                raise
            follower.wait(lambda: not connection.outbox.pending(), CATCH_UP_S)  # submitted here a moment ago
            found = find.find(follower.states(), run, self.settings.owner)
        follower.history(found.run_id)  # so that `metrics`, `log` and `history` answer from memory
        return TrainingRun(self, found.run_id, whole=run.strip() == found.run_id)

    def resubmit(self, task: Task, edits: retry.Edits, before: RunState | None) -> TrainingRun:
        """What `retry` and a redrive submit: a Task whose id says what it comes from, so that it is the same run however often it is
        submitted. `before`: what is known of the run before it. Raises RetriedAlready and what `submit` raises."""
        connection, owner = self.connection(), self.settings.owner
        known = connection.catch_up().state(task.run_id)
        more = retry.settings(task.run_id, edits, owner, before, known)
        retry.submit(connection.log, lambda: connection.store, task, known, self.settings.keep_days, connection.announce, more)
        return TrainingRun(self, task.run_id, name=task.name, submitted=True)

    def dead_letters(self, limit: int = 50) -> list[Buried]:
        """The newest of `task_dlq`, newest first: tasks that nobody will train any more, and why."""
        return dead_letters.newest(self.connection().log, limit)

    def redrive(self, buried: Buried, task: Task | None = None, edits: retry.Edits = _AS_IT_WAS, force: bool = False) -> TrainingRun:
        """Submits the run of a dead letter again, with a Task that was edited by hand or as it was. It is the same new run, however often
        it is asked for.

        Raises BadTask (the letter holds no task that can be read: it must be edited), TaskGone, NotYourRun, RetriedAlready, BadWish.
        """
        connection = self.connection()
        state = connection.catch_up().state(buried.letter.run_id)
        if state is not None and not words.is_mine(state, self.settings.owner) and not force:
            raise errors.NotYourRun(run_id=state.run_id, owner=find.owner_of(state))
        if task is None:
            following = redrive.task_now(connection.log, buried, state)
        else:
            following = redrive.adopted(task, buried, state)
            if not buried.letter.task and state is not None:
                following = retry.may_follow(following, redrive.task_now(connection.log, buried, state))
        return self.resubmit(retry.edited(following, edits), edits, state)

    def workers(self) -> list[WorkerInfo]:
        """The workers that are alive."""
        return self.connection().follower().workers()

    @property
    def store(self) -> Store:
        return self.connection().store

    def connection(self) -> Connection:
        """Raises BrokerUnreachable, AuthenticationFailed, TopicMissing, TopicMismatch."""
        if self._connection is None or self._connection.closed or self._pid != os.getpid():
            self._connection, self._pid = connections.connect(self.settings), os.getpid()
        return self._connection

    def connect_soon(self) -> None:
        """Connects on a thread of its own; who needs Kafka before that waits for it, and gets the error."""

        def connect() -> None:
            try:
                self.connection()
            except errors.KafkaJupyterError as away:
                logger.info("not connected: %s", away)

        threading.Thread(target=connect, name="kafka_jupyter-connect", daemon=True).start()

    def look_ahead(self) -> None:
        """A submit is being prepared. Does nothing where no connection is open yet; never waits."""
        with contextlib.suppress(errors.KafkaJupyterError):
            found = connections.known(local.resolve(self.settings))
            if found is not None and not found.closed:
                found.look_ahead()

    def peek(self) -> Follower | None:
        """The follower, if it has caught up; never waits."""
        if self._connection is None or self._connection.closed or self._pid != os.getpid():
            found = connections.known(self.settings)
            return found.peek() if found is not None else None
        return self._connection.peek()

    def close(self) -> None:
        """Closes the connection of this process to this cluster, for all clients and handles; the next use opens it again."""
        if self._connection is not None and self._pid == os.getpid():
            connections.disconnect(self._connection)
            self._connection = None


def _matches(found: RunState, states: set[str], name: str | None, owner: str | None) -> bool:
    return (
        (not states or found.state in states)
        and (name is None or find.name_of(found) == name)
        and (owner is None or find.owner_of(found) == owner)
    )
