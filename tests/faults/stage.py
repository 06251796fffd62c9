"""The stage of a fault scenario: topics of its own on the three brokers, workers, a client that submits, a diary, and the judgement."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from kafka_jupyter import errors
from kafka_jupyter.brokers.change import Change
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.client import Client
from kafka_jupyter.protocol import control, ids
from kafka_jupyter.protocol.task import Task
from kafka_jupyter.runs.state import RunState
from kafka_jupyter.settings import Settings
from tests.faults import checker, rawlog
from tests.faults.brokers import Brokers, Clock
from tests.faults.checker import Verdict
from tests.faults.crew import Crew, Post
from tests.faults.plan import Fault
from tests.support.pace import paced
from tests.support.training import ENDLESS, mlp, task_of
from tests.support.waiting import wait_until

TTL_S = 3.0
READY_S = 150.0  # three workers import TensorFlow side by side, on a machine with much else to do
END_S = 120.0  # until everything that was submitted has ended, once the faults are over


class Stage:
    def __init__(
        self,
        name: str,
        brokers: Brokers,
        folder: pathlib.Path,
        posts: Sequence[Post],
        seed: int = 0,
        more_env: dict[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self.name, self.brokers, self.seed, self.folder = name, brokers, seed, folder
        self.clock = Clock()
        self._diary: list[str] = []
        self.settings = Settings(
            owner="ada@test",
            data_dir=folder / "data",
            cache_dir=folder / "cache",
            auto_start=False,
            bootstrap_servers=brokers.servers,
            topic_prefix=f"{name}{ids.new_nonce()[:6]}.",
            lease_ttl_s=TTL_S,
            delivery_timeout_s=3.0,
        ).replace(**settings)
        self.log = Log.open(Cluster(self.settings), create=True)
        self.client = Client(self.settings)
        self.crew = Crew(self.settings, folder / "workers", posts, more_env)
        self.run_ids: list[str] = []
        self._pids: dict[tuple[str, int], int] = {}
        self.follower.subscribe(self._saw)

    def _saw(self, change: Change) -> None:
        if isinstance(change.record, control.Started):
            self._pids[change.record.run_id, change.record.n] = change.record.pid

    def child_of(self, run_id: str, attempt: int = 1) -> int:
        """The pid of the process that trains this attempt."""
        return self._pids[run_id, attempt]

    def post_of(self, run_id: str) -> int | None:
        """Where the open attempt of this run trains."""
        state = self.state(run_id)
        return self.crew.post_of(state.open.worker) if state is not None and state.open is not None else None

    def close(self) -> None:
        self.crew.close()
        self.client.close()
        self.log.close()

    # --- telling

    def note(self, what: object) -> None:
        self._diary.append(f"{self.clock.now_s:7.1f} s  {what}")

    def told(self) -> str:
        """What a failure prints: enough to play it again, and to see what happened."""
        logs = "\n".join(f"--- {worker.folder.name}\n{worker.log[-8000:]}" for worker in self.crew.all)
        return f"{self.name}, seed {self.seed}\n" + "\n".join(self._diary) + "\n" + logs

    # --- submitting

    def endless(self, name: str) -> Tiny:
        """Runs that go on until somebody ends them, and leave the processor to the others."""
        return Tiny(name, epochs=ENDLESS, callbacks=[paced()])

    def submit(self, task: Task) -> str:
        """Until the Task is acked: the same run again where the outcome is not known, as a person would run the cell again."""
        deadline = time.monotonic() + READY_S
        while True:
            try:
                self.client.submit(task)
                break
            except (errors.BrokerError, errors.SubmitUnknown) as failure:
                self.note(f"submit of {task.run_id} again: {failure}")
                assert time.monotonic() < deadline, self.told()
        if task.run_id not in self.run_ids:
            self.run_ids.append(task.run_id)
        return task.run_id

    # --- looking

    @property
    def follower(self) -> Follower:
        """The product's own view. For waiting only: what is right is judged by the raw topics."""
        return self.client.connection().follower()

    def state(self, run_id: str) -> RunState | None:
        return self.follower.state(run_id)

    def ended(self, run_id: str) -> bool:
        state = self.state(run_id)
        return state is not None and state.terminal

    def open_runs(self) -> list[str]:
        return [run_id for run_id in self.run_ids if not self.ended(run_id)]

    def workers_there(self) -> None:
        """All posts are manned: who was killed is announced as alive for a while."""

        def manned() -> bool:
            announced = {worker.pid for worker in self.follower.workers()}
            return all(worker.process.pid in announced for worker in self.crew.now)

        self.until(manned, "not all workers are there", READY_S)

    def running(self, run_id: str, attempt: int = 1, epochs: int = 1, within: float = READY_S) -> RunState:
        """Until this attempt, or one after it (a short lease may run out on a busy machine), has ended so many epochs."""

        def going() -> RunState | None:
            state = self.state(run_id)
            here = state is not None and state.last_n >= attempt and state.open is not None and state.open.started
            return state if here and sum(n >= attempt for n, _ in self.follower.history(run_id).rows) >= epochs else None

        self.until(lambda: going() is not None, f"attempt {attempt} of {run_id} never got going", within)
        state = self.state(run_id)
        assert state is not None
        return state

    def until(self, condition: Callable[[], bool], message: str, within: float) -> None:
        try:
            wait_until(condition, message, within)
        except AssertionError as late:
            self.crew.tell_where_they_are()
            records = _records(self.look(), self.open_runs()[:3])
            raise AssertionError("\n".join([str(late), *records, self.told()])) from None

    # --- judging

    def judge(self, unfinished: Iterable[str] = (), end_s: float = END_S) -> Verdict:
        """Waits until everything has ended, reads the raw topics, and fails with the diary if a single thing is wrong."""
        waived = frozenset(unfinished)
        deadline = time.monotonic() + end_s
        while set(self.open_runs()) - waived and time.monotonic() < deadline:
            self.follower.wait(lambda: not set(self.open_runs()) - waived, 1.0)
        verdict = self.look(waived)
        missing = [f"{run_id}: its acked Task is not in the log" for run_id in self.run_ids if run_id not in verdict.runs]
        wrong = [*missing, *verdict.wrong, *self._differences(verdict)]
        self.note(f"{len(verdict.runs)} runs: {dict(verdict.states())}, {verdict.rejected} records that did not count")
        if wrong:
            doubtful = dict.fromkeys(what.partition(":")[0] for what in wrong[:3])
            raise AssertionError("\n".join([*wrong[:20], *_records(verdict, doubtful), self.told()]))
        return verdict

    def look(self, unfinished: frozenset[str] = frozenset()) -> Verdict:
        """What the raw topics say now."""
        return checker.check(rawlog.read(self.brokers.servers, self.settings.topic_prefix), unfinished=unfinished)

    def _differences(self, verdict: Verdict) -> list[str]:
        """Where the product's fold, in a process that saw it all and in one that begins with the snapshots, differs from the checker."""
        late = Follower(self.log, rows=False)
        try:
            late.start(60)
            found = []
            for run_id, run in verdict.runs.items():
                expected = (run.state, run.end.offset if run.end else None, len(run.spans))
                for name, follower in (("the fold", self.follower), ("a reader that comes late", late)):
                    state = follower.state(run_id)
                    here = (str(state.state), state.end_offset, state.last_n) if state is not None else None
                    if run.end is not None and here != expected:
                        found.append(f"{run_id}: {name} says {here}, the checker {expected}")
            return found
        finally:
            late.close()


def _records(verdict: Verdict, run_ids: Iterable[str]) -> list[str]:
    """The control records of these runs, one a line."""
    lines = []
    for run_id in run_ids:
        log = verdict.logs.get(run_id)
        for entry in log.control if log else []:
            lines.append(f"    {run_id} @{entry.offset} {entry.time_ms} {str(entry.record)[:300]}")
    return lines


class Tiny:
    """Tiny runs of one kind, each a task of its own: built once, because Keras is slow to build."""

    def __init__(self, name: str = "tiny", rows: int = 64, epochs: int = 1, units: int = 8, **fit: Any) -> None:
        self._task = task_of(mlp(units), name, rows, epochs, **fit)

    def one(self, **changes: Any) -> Task:
        name = changes.get("name", self._task.name)
        return msgspec.structs.replace(self._task, **({"run_id": ids.new_run_id(name)} | changes))


def told_faults(faults: Iterable[Fault]) -> str:
    return "\n".join(map(str, faults))
