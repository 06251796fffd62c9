"""Any order of what workers, reapers, people, snapshot writers and retention may do keeps the rules; hypothesis finds the shortest that
does not. Every process knows only what it has read, the records of `run_control` and the rows of `training_log` each at its own pace."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.rows import EpochEnded, RowBatch
from kafka_jupyter.runs import changes, checkpoints, snapshots
from kafka_jupyter.runs.ledger import Ledger
from kafka_jupyter.runs.snapshots import Mark
from kafka_jupyter.runs.state import Placed, RunState, Wish, apply
from tests.support.log_checker import BEGIN_MS, Entry, RunChecker, essence
from tests.support.records import TASK
from tests.support.simulated_store import Store

PARTITION = 1
RUNS = ("run-0", "run-1")
NAMES = ("v", "w", "v", "w")  # of four processes: two machines, each with a second one that was started in the place of the first
TTL_S = 30.0
PAUSE, RESUME, SETTINGS = control.PauseRequested, control.ResumeRequested, control.SettingsRequested
REQUESTS = (SETTINGS, SETTINGS, SETTINGS, PAUSE, RESUME, RESUME, control.StopRequested, control.CancelRequested)
ALONG = ("start", "beat", "save", "save", "save", "apply", "row")
ENDS = ("succeed", "fail", "fail", "give up", "obey")
ASKED: dict[str, type[control.Request]] = {"pause": PAUSE, "resume": RESUME, "settings": SETTINGS, "stop": control.StopRequested}
TURNS = (*ALONG, *ALONG, *ENDS[1:], "late", "late", "silence", "resume", *ASKED)


@dataclasses.dataclass
class Process:
    uid: int
    name: str
    ledger: Ledger = dataclasses.field(default_factory=Ledger)
    position: int = 0  # in the log of the records
    rows: int = 0
    heard_s: dict[str, float] = dataclasses.field(default_factory=dict)  # when it read the last record of each run
    to_delete: list[Any] = dataclasses.field(default_factory=list)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.log: list[Entry] = []
        self.rows: list[RowBatch] = []
        self.low = 0  # what retention left begins here
        self.truth: dict[str, RunState] = {}
        self.checkers = {run_id: RunChecker(TTL_S) for run_id in RUNS}
        self.flying: list[tuple[control.Record, int]] = []
        self.topic: dict[bytes, bytes] = {}
        self.marked = -1
        self.store = Store()
        self.processes = [Process(uid, name) for uid, name in enumerate(NAMES)]
        self.ids = iter(range(10_000))

    # --- the log

    def append(self, record: control.Record, author: int) -> None:
        before, offset = self.truth.get(record.run_id), self.log[-1].offset + 2 if self.log else 0
        after = apply(before, Placed(record, offset, BEGIN_MS + int(self.now_s * 1000)))
        entry = Entry(record, offset, self.now_s, author, before, after)
        self.log.append(entry)
        self.truth[record.run_id] = after
        assert list(self.checkers[record.run_id].check(entry)) == []

    def send(self, record: control.Record, author: int, at_once: bool) -> None:
        if at_once:
            self.append(record, author)
        self.flying.append((record, author))  # and once more, if it comes to that

    @initialize(known=st.booleans())
    def a_run_was_submitted(self, known: bool) -> None:
        if known:
            self.append(control.Submitted(run_id=RUNS[0], task=TASK), -1)

    @precondition(lambda self: self.flying)
    @rule(picks=st.lists(st.integers(-5, 40), min_size=1, max_size=10))
    def what_was_on_its_way_arrives(self, picks: list[int]) -> None:
        for pick in picks[: len(self.flying)]:
            self.append(*self.flying.pop(pick % len(self.flying)))

    @rule(seconds=st.sampled_from([1.0, 20.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    # --- people

    @rule(run_id=st.sampled_from(RUNS), at_once=st.booleans())
    def a_run_is_submitted(self, run_id: str, at_once: bool) -> None:
        self.send(control.Submitted(run_id=run_id, task=TASK), -1, at_once)

    @rule(run_id=st.sampled_from(RUNS), kind=st.sampled_from(REQUESTS), at_once=st.booleans())
    def somebody_asks(self, run_id: str, kind: type[control.Request], at_once: bool) -> None:
        fields: dict[str, Any] = {"run_id": run_id, "request_id": f"r{next(self.ids)}"}
        if kind is SETTINGS:
            fields["settings"] = {"learning_rate": 0.1}
        self.send(kind(**fields), -2, at_once)

    # --- processes

    def process_reads(self, process: Process, until: int) -> None:
        for entry in self.log[process.position : until]:
            state = process.ledger.control(entry.record, entry.offset, entry.time_ms)
            process.heard_s[entry.record.run_id] = self.now_s
            accepted = state is not None and state.open is not None and state.open.last == entry.offset
            if accepted and entry.author == process.uid and isinstance(entry.record, control.Checkpointed):
                assert state is not None
                process.to_delete.extend(checkpoints.disposable(state))
        process.position = max(process.position, until)

    @rule(who=st.integers(0, 3), records=st.sampled_from([1, 3, 99]), rows=st.sampled_from([0, 1, 99]))
    def a_process_reads(self, who: int, records: int, rows: int) -> None:
        process = self.processes[who]
        self.process_reads(process, min(len(self.log), process.position + records))
        for batch in self.rows[process.rows : process.rows + rows]:
            process.ledger.rows(batch)
        process.rows = min(len(self.rows), process.rows + rows)

    @rule(who=st.integers(0, 3), run_id=st.sampled_from(RUNS), at_once=st.sampled_from([False, False, True]))
    def a_process_claims(self, who: int, run_id: str, at_once: bool) -> None:
        process, state = self.processes[who], self.processes[who].ledger.states.get(run_id)
        if state is not None and (not state.claimable or run_id in process.ledger.gone or process.name in state.unfit):
            return
        n = state.last_n + 1 if state else 1
        nonce = f"{process.uid}.{next(self.ids)}"
        self.send(control.Claimed(run_id=run_id, n=n, worker=process.name, nonce=nonce, task=TASK), process.uid, at_once)

    @rule(who=st.integers(0, 3), run_id=st.sampled_from(RUNS), what=st.sampled_from(ALONG + ENDS), at_once=st.booleans())
    def whoever_takes_the_attempt_for_its_own_speaks(self, who: int, run_id: str, what: str, at_once: bool) -> None:
        self.speak(who, run_id, what, at_once)

    @rule(who=st.integers(0, 3), run_id=st.sampled_from(RUNS), turns=st.lists(st.sampled_from(TURNS), max_size=16))
    def things_go_well_for_a_while(self, who: int, run_id: str, turns: list[str]) -> None:
        """Whoever has the attempt, or else claims it, reads and writes without delay, as people do; something old comes in between."""
        for turn in turns:
            true = self.truth.get(run_id)
            if true is not None and true.open is not None:
                who = next((i for i, process in enumerate(self.processes) if true.open.nonce.split(".")[0] == str(process.uid)), who)
            self.process_reads(self.processes[who], len(self.log))
            if turn in ASKED:
                self.somebody_asks(run_id, ASKED[turn], True)
            elif turn == "silence":
                self.a_reaper_finds_silence(who, run_id, True)
            elif turn == "late" and self.flying:
                self.append(*self.flying.pop(len(self.log) % len(self.flying)))
            elif true is None or true.open is None:
                self.a_process_claims(who, run_id, turn != "late")
            else:
                self.speak(who, run_id, turn, True)

    def speak(self, who: int, run_id: str, what: str, at_once: bool) -> None:
        process, state = self.processes[who], self.processes[who].ledger.states.get(run_id)
        attempt = state.open if state else None
        if state is None or attempt is None or attempt.nonce.split(".")[0] != str(process.uid):
            return
        fields: dict[str, Any] = {"run_id": run_id, "n": attempt.n, "worker": attempt.worker, "nonce": attempt.nonce}
        if what == "row":
            row = EpochEnded(seq=next(self.ids), epoch=attempt.epoch, metrics={"loss": 1.0})
            self.rows.append(RowBatch(run_id=run_id, n=attempt.n, worker=attempt.worker, nonce=attempt.nonce, rows=[row]))
            return
        record = self.record_of(what, state, fields)
        if record is not None:
            self.send(record, process.uid, at_once)

    def record_of(self, what: str, state: RunState, fields: dict[str, Any]) -> control.Record | None:
        attempt = state.open
        assert attempt is not None
        last = state.checkpoints[-1] if state.checkpoints else None
        if what == "start":
            return control.Started(**fields, epoch=last.epoch if last else 0)
        if what == "beat":
            return control.Heartbeat(**fields, epoch=attempt.epoch, beat=attempt.beat + 1)
        if what == "save":
            value = (attempt.epoch * 7 + attempt.n) % 5 / 5
            parts: dict[str, Any] = {"state": self.store.put()}
            return control.Checkpointed(**fields, epoch=attempt.epoch + 1, step=0, parts=parts, metric="loss", value=value)
        if what == "apply":
            waiting = [request for request in state.settings if request.request_id not in state.applied]
            chosen = {"request_id": waiting[0].request_id, "settings": waiting[0].settings} if waiting else None
            return control.Applied(**fields, **chosen, epoch=attempt.epoch) if chosen else None
        if what == "obey" and state.wish in (Wish.CANCEL, Wish.STOP):
            return control.Cancelled(**fields) if state.wish is Wish.CANCEL else control.Succeeded(**fields, stopped_early=True)
        if what == "fail":
            return control.Failed(**fields, retryable=attempt.n % 3 > 0, reason="signal")
        if what == "succeed":
            return control.Succeeded(**fields)
        return control.Released(**fields, reason="pause" if state.wish is Wish.PAUSE else ("unfit", "shutdown")[attempt.n % 2])

    @rule(who=st.integers(0, 3), run_id=st.sampled_from(RUNS), waits=st.booleans())
    def a_reaper_finds_silence(self, who: int, run_id: str, waits: bool) -> None:
        """It sends what it knows: at once if it has read everything, else the record may arrive at any later time."""
        process = self.processes[who]
        if waits:
            self.process_reads(process, len(self.log))
            self.now_s += TTL_S + 1
        state = process.ledger.active.get(run_id)
        if state is None or state.open is None or self.now_s - process.heard_s.get(run_id, self.now_s) <= TTL_S:
            return
        expired = control.Expired(run_id=run_id, n=state.open.n, after=state.open.last)
        self.send(expired, -3, at_once=process.position == len(self.log))

    @rule(run_id=st.sampled_from(RUNS))
    def a_reaper_is_mistaken(self, run_id: str) -> None:
        self.append(control.TooOld(run_id=run_id), -3)
        self.append(control.Dead(run_id=run_id), -3)

    @rule(who=st.integers(0, 3), share=st.sampled_from([0.5, 1.0]))
    def what_is_superseded_is_deleted(self, who: int, share: float) -> None:
        waiting = self.processes[who].to_delete
        self.store.delete(waiting[: int(len(waiting) * share)])

    @invariant()
    def nothing_is_deleted_that_may_be_loaded(self) -> None:
        assert [hole for state in self.truth.values() for hole in self.store.holes(state)] == []

    @invariant()
    def the_last_wish_is_replayed_last(self) -> None:
        for state in self.truth.values():
            again = changes.to_replay(state, None)
            assert again[-1:] == list(state.applications[-1:])

    # --- snapshots and retention

    @rule(who=st.integers(0, 3), runs=st.integers(0, 2))
    def a_process_writes_snapshots(self, who: int, runs: int) -> None:
        """Of what it knows, however old that is; the mark only if it got through."""
        process = self.processes[who]
        states = [state for run_id, state in process.ledger.states.items() if run_id not in process.ledger.gone]
        upto = self.log[process.position - 1].offset if process.position else -1
        for record in snapshots.written(PARTITION, states[:runs], upto):
            self.write(record)
        if runs >= len(states) and process.position:
            self.write(Mark(PARTITION, upto))
            self.marked = max(self.marked, upto)

    def write(self, record: snapshots.Record) -> None:
        key = snapshots.key_of(record).encode()
        self.topic.pop(key, None)
        self.topic[key] = msgspec.json.encode(record)

    @rule(share=st.sampled_from([0.3, 0.7, 1.0]), who=st.integers(0, 3), stale=st.integers(0, 3), runs=st.integers(0, 2))
    def retention_takes_what_ended(self, share: float, who: int, stale: int, runs: int) -> None:
        """Days before, somebody who reads has written snapshots of everything; and in the end somebody who does not, of what it knows."""
        self.process_reads(self.processes[who], len(self.log))
        self.a_process_writes_snapshots(who, 2)
        self.a_process_writes_snapshots(stale, runs)
        safe = sum(entry.offset <= self.marked for entry in self.log)
        live = next((i for i, entry in enumerate(self.log) if not self.truth[entry.record.run_id].terminal), len(self.log))
        self.low = max(self.low, int(share * min(safe, live)))

    def begun(self, process: Process) -> Process:
        end = self.log[-1].offset + 1 if self.log else 0
        low = self.log[self.low].offset if self.low < len(self.log) else end
        records = [snapshots.decode(value, key) for key, value in self.topic.items()]
        beginning = snapshots.beginning(records, {PARTITION: (low, end)}, lambda _: PARTITION)
        process.ledger.begin(beginning)
        process.position = sum(entry.offset < beginning.offsets[PARTITION] for entry in self.log)
        return process

    @rule(who=st.integers(0, 3))
    def a_process_is_started_in_the_place_of_another(self, who: int) -> None:
        self.processes[who] = self.begun(Process(next(self.ids) + 100, NAMES[who]))

    def teardown(self) -> None:
        """Whoever has read everything knows the same, whenever it began and in whatever order it read the two topics."""
        whole = Process(-9, "")
        fresh = self.begun(Process(-8, ""))
        cut = {entry.record.run_id for entry in self.log[: self.low]}
        for process in (whole, *self.processes, fresh):
            self.process_reads(process, len(self.log))
            for batch in self.rows[process.rows :]:
                process.ledger.rows(batch)
            for run_id, true in self.truth.items():
                if run_id in process.ledger.gone:
                    assert true.terminal, f"{run_id} is in the log and taken for gone"
                    assert run_id in cut, f"{run_id} is in the log and taken for gone"
                    continue
                known = process.ledger.states[run_id]
                assert known == true or (true.terminal and essence(known) == essence(true))
                assert process.ledger.history(run_id) == whole.ledger.history(run_id)
            assert set(process.ledger.active) == {run_id for run_id, true in self.truth.items() if not true.terminal}


def test_any_order_of_events_keeps_the_rules() -> None:
    run_state_machine_as_test(Machine, settings=settings(max_examples=300, stateful_step_count=60))
