"""TrainingRun: what a person holds of a run."""

from __future__ import annotations

import pathlib
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kafka_jupyter import errors
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.client import events, failure, find, outcome, retry, targets, words
from kafka_jupyter.client.asking import Asker
from kafka_jupyter.client.events import RunEvent
from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.rows import Metrics, Row
from kafka_jupyter.runs.state import TERMINAL, RunState, State
from kafka_jupyter.runs.view import History

if TYPE_CHECKING:
    from kafka_jupyter.client.client import Client
    from kafka_jupyter.client.connection import Connection

LAST_ROWS_S = 5.0  # the last rows of an ended run may come a moment after its end


class TrainingRun:
    """A run, followed in the background. No attribute waits; `wait`, `result` and `events` do.

    Pickles as its run id. `whole`: it was named by its whole id, which another person's run needs to be stopped. `submitted`: this
    process has its Task acked, so that it is QUEUED until the log says more.
    """

    def __init__(
        self, client: Client, run_id: str, *, name: str = "", whole: bool = True, submitted: bool = False, model: Any = None
    ) -> None:
        self.id = run_id
        self._client = client
        self._name = name
        self._submitted = submitted
        self._model: Callable[[], Any] = lambda: model  # kept alive for `result`
        self._asker = Asker(client, run_id, whole, submitted)

    # --- what is there now

    @property
    def short(self) -> str:
        """`digits-3f2a` for `digits-3f2a9c01b7d4`"""
        return find.short_name(self.id)

    @property
    def name(self) -> str:
        state = self._known()
        return find.name_of(state) if state is not None and state.submitted else self._name or self.id.rpartition("-")[0]

    @property
    def state(self) -> State | None:
        """None while nothing of the run has been read: of a handle that was unpickled a moment ago, say."""
        state = self._known()
        return state.state if state is not None else self._unread

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL

    @property
    def complete(self) -> bool:
        """Whether it has ended and its last row is here."""
        follower = self._client.peek()
        return self.ended and follower is not None and follower.has_all_rows(self.id)

    @property
    def metrics(self) -> Metrics:
        """Of the last epoch that has ended; while the first one runs, of its last batches."""
        return words.newest_metrics(self._known(), self._rows_here())

    @property
    def history(self) -> dict[str, list[float | None]]:
        """Metric → its value in each epoch so far, as `History.history` of Keras. Of a run that ended long ago it is read first."""
        history = self._history()
        return history.metrics() if history else {}

    @property
    def log(self) -> list[str]:
        """The lines that the training has printed. Of a run that ended long ago they are read first."""
        history = self._history()
        return [line.text for line in history.lines] if history else []

    @property
    def files(self) -> list[str]:
        """Paths of the files that callbacks and other code wrote, known at the end; `fetch_files()` brings them."""
        state = self._known()
        return [file.path for file in state.end.files] if state is not None and isinstance(state.end, control.Succeeded) else []

    @property
    def error(self) -> errors.RunError | None:
        """Why it ended without a result; None while it runs and after success."""
        state = self._known()
        return failure.error_of(state) if state is not None else None

    @property
    def pending(self) -> bool:
        """Whether a model in this kernel still waits for the weights of this run."""
        target = targets.of_run(self.id)
        return target is not None and target.pending

    @property
    def progress(self) -> str:
        """ "epoch 4 of 20" """
        return words.progress(self._known(), self._rows_here(), self._unread)

    @property
    def waiting(self) -> str:
        """What it waits for in the queue, or that Kafka is away; empty if it moves."""
        follower = self._client.peek()
        if follower is None:
            return "connecting"
        trouble = follower.trouble or follower.log.trouble
        if trouble and not self.ended:
            return f"reconnecting ({trouble})"
        return str(follower.card(self.id)["waiting"]) if follower.state(self.id) is not None else ""

    def summary(self) -> str:
        """`digits-3f2a9c01b7d4 RUNNING, epoch 4 of 20, loss 0.0731`"""
        return words.state_line(self.id, self._known(), self._rows_here(), self._unread)

    def card(self) -> dict[str, Any]:
        """What a card shows: the folded state as JSON (docs/architecture.md)."""
        follower = self._client.peek()
        if follower is not None and follower.state(self.id) is not None:
            return {**follower.card(self.id), "waiting": self.waiting}
        from kafka_jupyter.runs.view import card_state

        blank = card_state(RunState(run_id=self.id), now_ms=int(time.time() * 1000))
        if self._unread is None:
            return {**blank, "state": "UNKNOWN", "name": self.name, "waiting": self.waiting}
        return {**blank, "name": self.name, "owner": self._client.settings.owner}

    def rows(self) -> list[tuple[int, Row]]:
        """All accepted rows so far: (attempt, row)."""
        history = self._history()
        return list(history.rows) if history else []

    def rows_of(self, attempt: int) -> list[Row]:
        """All rows of one attempt, those included that a later attempt has replaced. Empty for an attempt that never started."""
        follower = self._client.peek()
        return follower.rows_of(self.id, attempt) if follower is not None and follower.state(self.id) is not None else []

    def __repr__(self) -> str:
        return f"<TrainingRun {self.summary()}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrainingRun) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_unpickled, (self.id,))

    # --- waiting

    def wait(self, timeout: float | None = None) -> TrainingRun:
        """Waits for the end of the run, at most `timeout` seconds.

        Raises WaitTimeout (the run goes on), and what the run ended with: RunFailed, ModelMismatch, RunCancelled, RunDead.
        """
        self.wait_for_end(timeout)
        error = self.error
        if error is not None:
            self.release()
            raise _with_traceback(error)
        return self

    def wait_for_end(self, timeout: float | None = None) -> RunState:
        """As `wait`, but however it ends, its state is returned. Raises WaitTimeout."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            state = self._await_end(self._connection().patient_follower(deadline), deadline)
            if state is not None:
                return state
            if deadline is not None and time.monotonic() >= deadline:
                raise errors.WaitTimeout(run_id=self.id, seconds=timeout, progress=self.progress)

    def _await_end(self, follower: Follower | None, deadline: float | None) -> RunState | None:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if follower is None or not follower.wait(lambda: _terminal(follower, self.id), left):
            return None
        follower.wait(lambda: follower.has_all_rows(self.id), LAST_ROWS_S)
        return follower.state(self.id)

    def result(self, into: Any = None, timeout: float | None = None) -> Any:
        """Waits, and gives the trained model: the captured one of this kernel unless it was released, `into`, or a new one that is built
        from the log.

        Weights and optimizer state are checked before any is assigned. Raises what `wait` raises, and DoesNotFit.
        """
        self.wait(timeout)
        connection, state = self._connection(), self._state()
        target = targets.of_run(self.id)
        if target is not None and target.pending and into in (None, target.model):
            model = target.model
            outcome.deliver(connection, state, target)
            targets.settle(target)
        elif into is not None:
            outcome.load(connection, state, into)
            return into
        else:
            model = self._model()
            if model is None or targets.was_let_go(model, self.id):
                model = outcome.rebuild(connection, state)
        self._model = lambda: model
        return model

    def loosen(self) -> None:
        """From now on the model lives as long as the person keeps it; `result` gives it while it does."""
        model = self._model()
        if model is not None:
            self._model = weakref.ref(model)

    def fetch_files(self, folder: str | pathlib.Path | None = None) -> list[pathlib.Path]:
        """Waits, and puts the files that callbacks and other code wrote below `folder` (None: one that is called as the run), where each
        has the path that it was written to. Where they lie now.

        (`result` in the kernel that submitted puts those of callbacks where they were asked for. What other code has called its files,
        its worker says: they do not come between a notebook and the modules beside it unless you say so.)
        """
        self.wait()
        return outcome.fetch_files(self._connection(), self._state(), pathlib.Path(self.id if folder is None else folder))

    def events(self, timeout: float | None = None) -> Iterator[RunEvent]:
        """Everything that happens to the run, from its start to its end; waits for what is to come, at most `timeout` seconds.

        Raises WaitTimeout; the run goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for event in events.of(self._connection().follower(), self.id, deadline):
            if event is None:
                raise errors.WaitTimeout(run_id=self.id, seconds=timeout, progress=self.progress)
            yield event

    # --- what a person can ask for. Another person's run needs its whole id and force: NotYourRun otherwise

    def stop(self, force: bool = False) -> None:
        """Ends it after the current batch, SUCCEEDED with the weights so far."""
        self._asker.end(control.StopRequested, force)

    def cancel(self, force: bool = False) -> None:
        """Ends it now. Nothing is kept; the weights here stay as they were."""
        self._asker.end(control.CancelRequested, force)

    def pause(self, force: bool = False) -> None:
        """Writes a checkpoint, frees the worker's slot and rests, PAUSED, until somebody resumes it. Raises RunEnded, RunEnding."""
        self._asker.steer(control.PauseRequested, force)

    def resume(self, force: bool = False) -> None:
        """Lets any worker go on with it. Raises RunEnded, RunEnding."""
        self._asker.steer(control.ResumeRequested, force)

    def set(self, *, learning_rate: float, force: bool = False, timeout: float = 0.0) -> RunEvent | None:
        """Changes it at the end of the next batch, or, where nobody trains the run now, when somebody does.

        Waits up to `timeout` seconds for the worker's answer, an event "applied"; None if it has not come by then. Raises RunEnded,
        RunEnding, BadWish (also when the worker says no: a schedule rules the learning rate).
        """
        wanted = {"learning_rate": retry.learning_rate(self.id, learning_rate)}
        answer = self._asker.set(wanted, force, timeout)
        if answer is not None and "refused" in answer.settings:
            what = f"a learning rate of {learning_rate:g}"
            raise errors.BadWish(run_id=self.id, what=what, why=f"its worker says: {answer.settings['refused']}")
        return events.applied(answer, self.state or State.RUNNING) if answer is not None else None

    def retry(self, *, force: bool = False, **edits: Any) -> TrainingRun:
        """A new run that goes on from the last checkpoint of this one, which is FAILED, CANCELLED or DEAD. Once, however often it is
        asked for.

        `edits` (see `retry.Edits`) are what shall be different: epochs, batch_size, learning_rate, device, memory, priority, labels.
        Its `result(into=model)` loads into a model of this kernel. Raises CannotRetry, TaskGone, RetriedAlready, BadWish.
        """
        return TrainingRun(self._client, self._asker.retry(retry.Edits(**edits), force), name=self.name, submitted=True)

    def release(self) -> None:
        """Lets the model in this kernel go as it was. The run goes on."""
        target = targets.of_run(self.id)
        if target is not None:
            targets.let_go(target)

    # --- underneath

    def _connection(self) -> Connection:
        return self._client.connection()

    @property
    def _unread(self) -> State | None:
        """The state while nothing of it has been read."""
        return State.QUEUED if self._submitted else None

    def _known(self) -> RunState | None:
        """What has been read of it; never waits."""
        follower = self._client.peek()
        return follower.state(self.id) if follower is not None else None

    def _history(self) -> History | None:
        follower = self._client.peek()
        return follower.history(self.id) if follower is not None and follower.state(self.id) is not None else None

    def _rows_here(self) -> History | None:
        """What is in memory; never waits."""
        follower = self._client.peek()
        return follower.history_here(self.id) if follower is not None else None

    def _state(self) -> RunState:
        state = self._connection().follower().state(self.id)
        if state is None:
            raise errors.RunNotFound(run_id=self.id)
        return state


def _terminal(follower: Follower, run_id: str) -> bool:
    state = follower.state(run_id)
    return state is not None and state.terminal


def _with_traceback(error: errors.RunError) -> errors.RunError:
    """Outside of IPython (which asks the error itself) the remote traceback is shown as a note."""
    remote = error.fields.get("traceback")
    if remote:
        error.add_note(f"\nOn the worker:\n{remote}")
    return error


def _unpickled(run_id: str) -> TrainingRun:
    from kafka_jupyter.client.client import Client

    client = Client()
    client.connect_soon()
    return TrainingRun(client, run_id)
