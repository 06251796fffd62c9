"""Does what a plan says, on a thread of its own, and undoes what passes."""

from __future__ import annotations

import collections
import heapq
import itertools
import threading
from collections.abc import Callable, Sequence

from kafka_jupyter.brokers.producer import Producer
from tests.faults.plan import Fault
from tests.faults.rawlog import read_recent
from tests.faults.stage import Stage

ECHOED = 40  # records a partition that are sent once more


class Doer:
    """`with Doer(stage, faults) as doer:`; at the end everything is undone. `done`: how often each kind was done."""

    def __init__(self, stage: Stage, faults: Sequence[Fault]) -> None:
        self._stage = stage
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self.done: collections.Counter[str] = collections.Counter()
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        self._start_s = stage.clock.now_s
        for fault in faults:
            self._at(self._start_s + fault.at_s, lambda fault=fault: self._do(fault))  # type: ignore[misc]
        self._thread = threading.Thread(target=self._run, name="doer", daemon=True)

    def __enter__(self) -> Doer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        stage = self._stage
        for post in range(len(stage.crew)):
            if stage.crew.is_frozen(post):
                stage.crew.thaw(post)
        for gate in stage.brokers.gates:
            gate.heal()
        stage.brokers.whole()
        if self.failure is not None:
            raise AssertionError(f"the plan could not be done\n{stage.told()}") from self.failure

    def _at(self, at_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (at_s, next(self._order), action))

    def _run(self) -> None:
        try:
            while self._due and not self._stop.is_set():
                wait_s = self._due[0][0] - self._stage.clock.now_s
                if wait_s > 0:
                    self._stop.wait(min(wait_s, 0.5))
                else:
                    heapq.heappop(self._due)[2]()
        except BaseException as failure:  # noqa: BLE001  # raised where the plan ends
            self.failure = failure

    def _do(self, fault: Fault) -> None:
        act = getattr(self, f"_{fault.kind}")
        self._stage.note(f"{fault.kind} {fault.target}" + (f" for {fault.for_s:.1f} s" if fault.for_s else ""))
        act(fault)
        self.done[fault.kind] += 1

    def _undo(self, fault: Fault, what: str, action: Callable[[], None]) -> None:
        def undone() -> None:
            self._stage.note(what)
            action()

        self._at(self._stage.clock.now_s + fault.for_s, undone)

    # --- workers

    def _kill(self, fault: Fault) -> None:
        self._stage.crew.kill(fault.target)

    def _terminate(self, fault: Fault) -> None:
        self._stage.crew.terminate(fault.target)

    def _freeze(self, fault: Fault) -> None:
        crew, post = self._stage.crew, fault.target
        sleeper = crew.now[post]
        if crew.is_frozen(post) or sleeper.process.poll() is not None:
            return
        crew.freeze(post)
        self._undo(fault, f"thaw {post}", lambda: crew.thaw(post) if crew.now[post] is sleeper else None)

    _nap = _freeze

    def _cut(self, fault: Fault) -> None:
        gate = self._stage.brokers.gates[fault.target]
        gate.cut()
        self._undo(fault, f"heal gate {fault.target}", gate.heal)

    def _deaf(self, fault: Fault) -> None:
        gate = self._stage.brokers.gates[fault.target]
        gate.deafen()
        self._undo(fault, f"heal gate {fault.target}", gate.heal)

    # --- Kafka

    def _broker(self, fault: Fault) -> None:
        brokers = self._stage.brokers
        if brokers.dead():
            return
        brokers.kill(fault.target)
        self._undo(fault, f"broker {fault.target} again", lambda: brokers.restart(fault.target))

    def _leaders(self, fault: Fault) -> None:
        self._stage.note(f"{self._stage.brokers.move_leaders()} leaders moved")

    def _echo(self, fault: Fault) -> None:
        """Duplicate deliveries: the last records of tasks, control and rows once more, as they are."""
        stage = self._stage
        producer = Producer(stage.log.cluster)
        try:
            for base in ("task", "run_control", "training_log"):
                for raw in read_recent(stage.settings.bootstrap_servers, stage.settings.topic_prefix + base, ECHOED):
                    producer.send(stage.settings.topic_prefix + base, raw.partition, raw.key, raw.value, raw.headers)
            producer.flush(10)
        finally:
            producer.close()
