"""A scene: topics, a follower and workers, with the questions that tests ask of them."""

from __future__ import annotations

import os

from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import control, topics
from kafka_jupyter.runs.state import RunState, State
from kafka_jupyter.settings import Settings
from tests.support.training import Submission
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess, Workers

READY_S = 120.0  # a worker imports TensorFlow first, on a machine with much else to do
LEASE_TTL_S = 3.0


class Scene:
    def __init__(self, settings: Settings, log: Log, workers: Workers) -> None:
        self.settings, self.log, self.workers = settings, log, workers
        self.follower = Follower(log)
        self.follower.start()

    def close(self) -> None:
        self.follower.close()

    def state(self, run: Submission) -> RunState:
        return wait_until(lambda: self.follower.state(run.run_id), f"{run.run_id} never appeared in the log", within=READY_S)

    def ended(self, run: Submission, within: float = READY_S) -> RunState:
        """Its last state, with all rows read."""

        def done() -> bool:
            state = self.follower.state(run.run_id)
            return state is not None and state.terminal and self.follower.has_all_rows(run.run_id)

        assert self.follower.wait(done, within), f"{run.run_id} did not end: {self.follower.state(run.run_id)}"
        return self.state(run)

    def running(self, run: Submission, epochs: int = 1) -> RunState:
        """Until it has ended its first epoch(s)."""

        def going() -> bool:
            state = self.follower.state(run.run_id)
            return state is not None and state.state is State.RUNNING and len(self.follower.history(run.run_id).epochs) >= epochs

        wait_until(going, f"{run.run_id} never got going", within=READY_S)
        return self.state(run)

    def reached(self, run: Submission, attempt: int, within: float = READY_S) -> RunState:
        """Until this attempt is running."""

        def there() -> bool:
            state = self.follower.state(run.run_id)
            return state is not None and state.state is State.RUNNING and state.last_n == attempt

        assert self.follower.wait(there, within), f"attempt {attempt} of {run.run_id} never ran: {self.follower.state(run.run_id)}"
        return self.state(run)

    def workers_there(self, count: int) -> None:
        wait_until(lambda: len(self.follower.workers()) == count, f"there are not {count} workers", within=READY_S)

    def holder(self, run: Submission) -> WorkerProcess:
        """The worker whose attempt is open."""
        attempt = self.state(run).open
        assert attempt is not None
        return next(worker for worker in self.workers.all if attempt.worker.startswith(f"{worker.name}-"))

    def records(self, run: Submission) -> list[control.Record]:
        return self.log_records(run.run_id)

    def log_records(self, run_id: str) -> list[control.Record]:
        """Everything that stands in run_control for this run, as a raw read of the topic gives it."""
        place = self.log.topics.place(topics.RUN_CONTROL, run_id)
        read = [self.log.decode(message) for message in self.log.read_range(place, 0, None)]
        return [record for record in read if isinstance(record, control.Record) and record.run_id == run_id]

    def child_pid(self, run: Submission) -> int:
        """Of the child that trains the latest attempt."""
        pid = [record.pid for record in self.records(run) if isinstance(record, control.Started)][-1]
        assert pid > 0  # 0 would be our own process group
        return pid

    def letters(self, run_id: str) -> list[bytes]:
        """What task_dlq holds under this key."""
        place = self.log.topics.place(topics.TASK_DLQ, run_id)
        return [message.value or b"" for message in self.log.read_range(place, 0, None) if message.key == run_id.encode()]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
