"""Histories of one `run_control` partition, made by chance: workers, reapers, people, and a network that loses, delays and repeats.

    python -m tests.support.simulator --histories 1000000

A history is a function of its seed and of the rules (`apply`), so that broken rules can be tried and a finding can be repeated.
Time is simulated. First comes chaos: processes freeze and go on writing what they meant to write, die, read late or not at all;
records are lost, late or doubled; requests race claims and ends. Then it is calm, and every run must end.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import dataclasses
import functools
import heapq
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.parts import Ref
from kafka_jupyter.protocol.topics import DAY_MS
from kafka_jupyter.runs import state as fold
from kafka_jupyter.runs.state import TOO_OLD_MARGIN_DAYS, Placed, RunState, State
from tests.support.log_checker import BEGIN_MS, Entry, RunChecker
from tests.support.simulated_attempt import TTL_S
from tests.support.simulated_rules import TRUE, Rules
from tests.support.simulated_snapshots import RunStateTopic
from tests.support.simulated_store import Store
from tests.support.simulated_worker import Worker

CALM_LIMIT_S = 20 * TTL_S  # within it every run ends once nothing goes wrong any more
CLIENT, PEOPLE = -1, -2  # authors that are not workers
REQUESTS: tuple[tuple[type[control.Request], int], ...] = (
    (control.PauseRequested, 4), (control.ResumeRequested, 4), (control.StopRequested, 2), (control.CancelRequested, 1),
    (control.SettingsRequested, 5),
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    run_id: str
    task: control.TaskPlace
    task_s: float  # when its Task is in the log, from where workers may know it
    epochs: int


@dataclasses.dataclass(slots=True)
class History:
    """What came out. `violations` is empty if all rules held."""

    seed: int
    log: list[Entry]
    states: dict[str, RunState]
    violations: list[str]
    calm_s: float  # how long the runs needed to end once it was calm
    seen: collections.Counter[str]


class World:
    """The log, the clock, the network and chance."""

    def __init__(self, seed: int, rules: Rules = TRUE) -> None:
        self.rules = rules
        self.random = random.Random(seed)
        self.now = self._ended_s = 0.0
        self.calm = self.over = False
        self.log: list[Entry] = []
        self.states: dict[str, RunState] = {}
        self.violations: list[str] = []
        self.seen: collections.Counter[str] = collections.Counter()  # what is rare
        self.rushed: set[str] = set()  # runs of which somebody wrote a whole attempt that may not have been theirs
        self.store = Store()
        self.topic = RunStateTopic(self)
        self._offset = self.random.randrange(100)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._ties = itertools.count()
        self._uids = itertools.count()
        self._request_ids = itertools.count()
        self.harshness = self.random.choice((0.5, 1, 1, 1, 1, 2, 2, 10))
        self._chaos_s = self.random.uniform(6, 60) * (2 if self.harshness > 2 else 1)
        self.checkpoints = self.random.random() < 0.7
        self.unreadable = self.random.choice((0, 0.05, 0.05, 0.4))  # how often a worker cannot load a checkpoint that is there
        self.files = self.random.random() < 0.4
        self.snapshots = self.random.random() < 0.6
        self.runs = [self._new_run(i) for i in range(self.random.choice((1, 1, 2)))]
        self._checkers = {run.run_id: RunChecker(TTL_S) for run in self.runs}
        self.aging = [run.run_id for run in self.runs if self.random.random() < 0.04]
        self.poison = [run.run_id for run in self.runs if self.random.random() < 0.04]  # kills every worker that trains it
        for run in self.runs:
            self._submit(run)
            self._ask(run)
        for i in range(self.random.choice((1, 2, 3, 4))):
            Worker(self, next(self._uids), f"w{i}")
        self.at(self._chaos_s, self._calm_down)
        if self.snapshots:
            self.at(self.random.uniform(0, self._chaos_s), self._look)

    def play(self) -> History:
        events, limit_s = self._events, self._chaos_s + CALM_LIMIT_S
        while events:
            self.now, _, event = heapq.heappop(events)
            event()
            if self.now > limit_s and not self.over:
                self.violations.append(f"V1: {[str(self._state(run)) for run in self.runs]} long after it became calm")
                self.over = True
        if self.snapshots:
            self._look()
        for run_id, checker in self._checkers.items():
            left = list(self.store.left(checker.checkpoints, self.states[run_id])) if run_id in self.states else []
            if left and run_id not in self.rushed:  # what is copied into the log twice at one place is nobody's
                self.violations.append(f"C3: {left} of {run_id} are superseded, and nobody would delete them")
        calm_s = max(0.0, self._ended_s - self._chaos_s) if not self.violations else CALM_LIMIT_S
        return History(-1, self.log, self.states, self.violations, calm_s, self.seen)

    def at(self, time_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time_s, next(self._ties), event))

    def lag(self) -> float:
        """How far behind the log a reader is at this moment."""
        if self.calm:
            return 0.02
        return self.random.uniform(0, 0.2) if self.random.random() < 0.85 else self.random.uniform(0, TTL_S / 2)

    def write(self, record: control.Record, author: int, after_s: float = 0.0) -> None:
        """Sends a record into a network that may lose, delay or double it."""
        luck = 1.0 if self.calm else self.random.random()
        if luck < 0.05:
            return
        soon_s = after_s + self.random.uniform(0.01, 0.1)
        if luck < 0.10:
            soon_s += self.random.uniform(0, 2 * TTL_S)
        elif luck < 0.15:
            self.at(self.now + soon_s + self.random.uniform(0, 2 * TTL_S), lambda: self._append(record, author))
        self.at(self.now + soon_s, lambda: self._append(record, author))

    def replace(self, worker: Worker) -> None:
        """Somebody starts another worker in the place of a dead one: of the same name or of a new one."""
        uid = next(self._uids)
        name = worker.worker_id if self.random.random() < 0.5 else f"w{uid}"
        self.at(self.now + self.random.uniform(0, TTL_S), lambda: None if self.over else self._start(uid, name))

    def _start(self, uid: int, name: str) -> None:
        Worker(self, uid, name)

    def _append(self, record: control.Record, author: int) -> None:
        self._offset += 1 if self.random.random() < 0.9 else self.random.randint(2, 5)  # Kafka's offsets have gaps
        before = self.states.get(record.run_id)
        after = self.rules.apply(before, Placed(record, self._offset, BEGIN_MS + int(self.now * 1000)))
        entry = Entry(record, self._offset, self.now, author, before, after)
        self.states[record.run_id] = after
        self.log.append(entry)
        if after.terminal and not self.over and all(run.run_id in self.states and self.states[run.run_id].terminal for run in self.runs):
            self.over, self._ended_s = True, self.now  # what is still on its way arrives, nobody acts any more
        self.violations.extend(self._checkers[record.run_id].check(entry))
        if isinstance(record, control.Checkpointed):
            self.violations.extend(self.store.holes(after))
        elif after.state is State.DEAD and after.end_offset == self._offset:
            for _ in range(2):  # the consequence that reapers append, each on its own
                self.at(self.now + self.random.uniform(0, TTL_S), functools.partial(self.write, control.Dead(run_id=record.run_id), PEOPLE))

    def placed_next(self, record: control.Record) -> Placed:
        return Placed(record, self._offset + 1, BEGIN_MS + int(self.now * 1000))

    def delete(self, run_id: str, refs: Iterable[Ref]) -> None:
        self.store.delete(refs)
        self.seen["deleted checkpoints"] += 1
        self.violations.extend(self.store.holes(self.states[run_id]))

    def _look(self) -> None:
        """Another reader begins, before and after retention."""
        self.violations.extend(self.topic.check())
        if self.random.random() < 0.5:
            self.topic.retain()
            self.violations.extend(self.topic.check())

    def _new_run(self, i: int) -> Run:
        task_s = self.random.uniform(0, 2)
        return Run(f"run-{i}", control.TaskPlace("task", 0, i), task_s, self.random.randint(1, 40))

    def _submit(self, run: Run) -> None:
        """Submitted comes with the Task, late, or never."""
        luck = self.random.random()
        if luck < 0.1:
            return
        keep_days = TOO_OLD_MARGIN_DAYS + self.random.uniform(1, 15) * 1000 / DAY_MS if run.run_id in self.aging else 30.0
        record = control.Submitted(run_id=run.run_id, task=run.task, keep_days=keep_days)
        late_s = 0.0 if luck < 0.7 else self.random.uniform(0, 15)
        self.at(run.task_s + late_s, lambda: self.write(record, CLIENT))

    def _ask(self, run: Run) -> None:
        """People's requests, in no order that makes sense."""
        kinds = self.random.choices(
            [kind for kind, _ in REQUESTS], [weight for _, weight in REQUESTS], k=self.random.choice((0, 0, 1, 3, 6))
        )
        if self.random.random() < 0.2:  # somebody tries learning rates
            kinds += [control.SettingsRequested] * self.random.randint(2, 8)
        for kind in kinds:
            self.at(self.random.uniform(0, self._chaos_s), functools.partial(self._request, run, kind))

    def _request(self, run: Run, kind: type[control.Request]) -> None:
        fields: dict[str, Any] = {"run_id": run.run_id, "request_id": f"r{next(self._request_ids)}", "by": "ada"}
        if kind is control.SettingsRequested:
            fields["settings"] = {"learning_rate" if self.random.random() < 0.8 else "check_loss": self.random.random()}
        record = kind(**fields)
        for _ in range(2 if self.random.random() < 0.2 else 1):
            self.write(record, PEOPLE)

    def _calm_down(self) -> None:
        """Nothing goes wrong any more, a worker that can run everything is there, and whoever paused a run resumes it."""
        self.calm = True
        if not self.over:
            Worker(self, next(self._uids), "fresh")
        for i in range(4):  # a pause may still be on its way
            self.at(self.now + i * TTL_S, self._resume_all)

    def _resume_all(self) -> None:
        for run in self.runs:
            if not self.over and self._state(run) in (State.PAUSED, State.PAUSING):
                self._request(run, control.ResumeRequested)

    def _state(self, run: Run) -> State | None:
        known = self.states.get(run.run_id)
        return known.state if known else None


def play(seed: int, rules: Rules = TRUE) -> History:
    history = World(seed, rules).play()
    return dataclasses.replace(history, seed=seed)


def refold(history: History, seed: int) -> Iterator[str]:
    """Another reader that was away in between: it kept its states as JSON, and some records reach it twice."""
    chance = random.Random(seed)
    states: dict[str, RunState] = {}
    for entry in history.log:
        run_id = entry.record.run_id
        known = states.get(run_id)
        if known is not None and chance.random() < 0.05:
            known = msgspec.json.decode(msgspec.json.encode(known), type=RunState)
        placed = Placed(entry.record, entry.offset, entry.time_ms)
        states[run_id] = fold.apply(known, placed)
        if chance.random() < 0.05 and fold.apply(states[run_id], placed) is not states[run_id]:
            yield "D2: a record that was folded in already changed the state"
        if states[run_id] != entry.after:
            yield f"D3: two readers disagree at offset {entry.offset}"


def search(seeds: range, rules: Rules, kind: str) -> History | None:
    """The first history with a violation of this kind."""
    histories = (play(seed, rules) for seed in seeds)
    return next((history for history in histories if any(found.startswith(kind) for found in history.violations)), None)


def tally(seeds: range) -> collections.Counter[str]:
    """Plays and refolds many histories by the real rules: what happened in them, and what was violated."""
    counts: collections.Counter[str] = collections.Counter()
    for seed in seeds:
        history = play(seed)
        found = [*history.violations, *refold(history, seed)]
        counts.update(f"violation: seed {seed}: {violation}" for violation in found)
        counts["histories"] += 1
        counts["records"] += len(history.log)
        counts.update(history.seen)
        counts["calm: slowest end, ms"] = max(counts["calm: slowest end, ms"], int(history.calm_s * 1000))
        for entry in history.log:
            kind = type(entry.record).__name__
            counts[f"{kind} {'dropped' if _dropped(entry) else 'kept'}"] += 1
        counts.update(f"ended {state.state} by {type(state.end).__name__}" for state in history.states.values() if state.terminal)
    return counts


def _dropped(entry: Entry) -> bool:
    return entry.after.dropped > (entry.before.dropped if entry.before else 0)


def violations_of(counts: collections.Counter[str]) -> list[str]:
    return sorted(key for key in counts if key.startswith("violation"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=10_000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    end = options.first_seed + options.histories
    parts = [range(start, min(start + 1000, end)) for start in range(options.first_seed, end, 1000)]
    total: collections.Counter[str] = collections.Counter()
    began_s = time.monotonic()
    with concurrent.futures.ProcessPoolExecutor(options.processes) as pool:
        for counts in pool.map(tally, parts):
            slowest = max(total["calm: slowest end, ms"], counts["calm: slowest end, ms"])
            total += counts
            total["calm: slowest end, ms"] = slowest
            print(f"{total['histories']} histories, {len(violations_of(total))} violations", flush=True)
    for key, count in sorted(total.items()):
        print(f"{count:>12}  {key}")
    print(f"{time.monotonic() - began_s:.1f} s")
    return 1 if violations_of(total) else 0


if __name__ == "__main__":
    sys.exit(main())
