"""The cell waits for its run: the view moves, an interrupt leaves, a hopeless wait ends."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

from kafka_jupyter import errors
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.capture.options import HEADLESS_QUEUE_TIMEOUT_S, Options, Place
from kafka_jupyter.capture.view import View
from kafka_jupyter.client import Client, TrainingRun
from kafka_jupyter.runs.choose import unmet
from kafka_jupyter.runs.state import WAITING, RunState, State

TICK_S = 0.25


def wait_for(run: TrainingRun, client: Client, view: View, options: Options, place: Place) -> None:
    """Returns when the run has SUCCEEDED. Raises its error, QueueTimeout, Detached."""
    patience = Patience(options.queue_timeout or client.settings.queue_timeout_s, place.headless)
    first = True
    with interruptible():
        while True:
            try:
                _wait(run, client, view, patience)
                break
            except KeyboardInterrupt:
                wish = client.settings.on_interrupt if first else "detach"
                first = False
                if wish == "detach":
                    raise errors.Detached(_farewell(run)) from None
                (run.stop if wish == "stop" else run.cancel)()
                view.note(f"{run.short}: asked to {wish}; interrupt again to leave it.")
    view.refresh()
    run.wait()


def _wait(run: TrainingRun, client: Client, view: View, patience: Patience) -> None:
    paused = False
    while True:
        follower = client.connection().patient_follower(time.monotonic() + TICK_S)
        if follower is None:  # Kafka is away: the view says so, the run goes on
            view.refresh()
            continue
        if follower.wait(lambda: run.ended, TICK_S):
            run.wait_for_end()  # its last rows
            return
        view.refresh()
        state = follower.state(run.id)
        if state is not None and (state.state is State.PAUSED) is not paused:
            paused = not paused
            if paused:
                view.note(f"{run.short} is PAUSED: `%kafka_resume {run.short}` goes on.")
        patience.look(run, state, follower)


class Patience:
    """Ends a hopeless wait. With a limit given, time in the queue counts; headless, time without any worker that could take it."""

    def __init__(self, limit_s: float, headless: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._any_worker = limit_s > 0
        self._limit_s = limit_s or (HEADLESS_QUEUE_TIMEOUT_S if headless else 0.0)
        self._since: float | None = None

    def look(self, run: TrainingRun, state: RunState | None, follower: Follower) -> None:
        """Raises QueueTimeout."""
        waits = state is None or (state.open is None and state.state in WAITING)
        if not self._limit_s or not waits or not (self._any_worker or _hopeless(state, follower)):
            self._since = None
            return
        now = self._clock()
        self._since = now if self._since is None else self._since
        if now - self._since >= self._limit_s:
            raise errors.QueueTimeout(run_id=run.id, seconds=self._limit_s, detail=run.waiting or "all workers are busy")


def _hopeless(state: RunState | None, follower: Follower) -> bool:
    if state is None or state.submitted is None:
        return not follower.workers()
    needs = state.submitted.requirements
    return all(unmet(needs, worker) for worker in follower.workers())


def _farewell(run: TrainingRun) -> str:
    return f"{run.id} goes on without this cell: `run = %kafka_attach {run.short}` comes back to it, `%kafka_cancel {run.short}` ends it."


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """In an async cell ipykernel turns SIGINT into the cancelling of a coroutine, which does not wake who waits here."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
