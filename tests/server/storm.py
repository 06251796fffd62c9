"""Everything that a log may hold, written as fast as it goes: restarts, zombies, losers, copies, late Starteds, junk."""

from __future__ import annotations

import random
from typing import Any

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import control, ids, topics
from kafka_jupyter.protocol.rows import BatchProgress, EpochEnded, LogLine, Row, RowBatch
from kafka_jupyter.runs.ledger import Ledger

Found = tuple[str, int, int]  # run_id, attempt, seq


class Run:
    """One run in the storm: what its present and earlier attempts would write next."""

    def __init__(self, log: Log, dice: random.Random) -> None:
        self.log, self.dice = log, dice
        self.run_id = ids.new_run_id("storm")
        self.n, self.epoch, self.last_offset = 0, 0, 0
        self.seqs: dict[tuple[int, str], int] = {}  # of an attempt, by (n, nonce)
        self.attempts: list[tuple[int, str, str]] = []  # (n, worker, nonce), losers too
        self.started = self.over = False
        self.unsure: list[RowBatch] = []
        task = control.TaskPlace("task", 0, 0)
        log.send_control(control.Submitted(run_id=self.run_id, task=task, name="storm", owner="ada@test", epochs=1000))
        self._claim()

    def step(self) -> None:
        dice = self.dice.random()
        if not self.started and dice < 0.3:
            self._start()
        elif dice < 0.03:
            self._lose()
        elif dice < 0.06 and self.started:
            self._expire()
        elif dice < 0.1:
            self.log.send(topics.TRAINING_LOG, self.run_id, b"{not a record", "rows")
        elif dice < 0.2:
            self.log.send_control(control.Heartbeat(**self._who(), epoch=self.epoch))
        elif dice < 0.27 and self.unsure:  # a record whose delivery was unknown is sent again
            self.log.send_rows(self.dice.choice(self.unsure), self._delivered)
        else:
            # Mostly the present attempt; else a zombie or a loser. Before Started too: nobody orders two topics.
            self._rows(self.attempts[-1] if dice < 0.9 else self.dice.choice(self.attempts))

    def end(self) -> None:
        if not self.started:
            self._start()
        self._rows(self.attempts[-1])
        assert self.log.producer.flush(10) == 0
        self.log.send_control(control.Succeeded(**self._who(), epochs=self.epoch, log_end=self.last_offset))
        self.over = True

    def _who(self) -> dict[str, Any]:
        n, worker, nonce = next(a for a in reversed(self.attempts) if a[1] != "loser")
        return {"run_id": self.run_id, "n": n, "worker": worker, "nonce": nonce}

    def _claim(self) -> None:
        self.n, self.started = self.n + 1, False
        self.attempts.append((self.n, "winner", ids.new_nonce()))
        self.log.send_control(control.Claimed(**self._who(), task=control.TaskPlace("task", 0, 0)))
        self.begin = self.last_offset  # no row of this attempt stands before it

    def _lose(self) -> None:
        loser = (self.n, "loser", ids.new_nonce())
        self.attempts.insert(-1, loser)
        self.log.send_control(
            control.Claimed(run_id=self.run_id, n=loser[0], worker=loser[1], nonce=loser[2], task=control.TaskPlace("task", 0, 0))
        )

    def _start(self) -> None:
        started = control.Started(**self._who(), epoch=self.epoch, log_offset=self.begin)
        self.log.send_control(started)
        if self.dice.random() < 0.3:
            self.log.send_control(started)
        self.started = True

    def _expire(self) -> None:
        released = control.Released(**self._who(), reason="shutdown")
        self.log.send_control(released)
        self.epoch = self.dice.randint(0, self.epoch)
        self._claim()

    def _rows(self, attempt: tuple[int, str, str]) -> None:
        n, worker, nonce = attempt
        rows: list[Row] = []
        for _ in range(self.dice.randint(1, 4)):
            seq = self.seqs[(n, nonce)] = self.seqs.get((n, nonce), 0) + 1
            kind = self.dice.random()
            if kind < 0.4:
                self.epoch += 1
                rows.append(EpochEnded(seq, self.epoch, 10, {"loss": 1 / self.epoch}))
            elif kind < 0.6:
                rows.append(BatchProgress(seq, self.epoch, 3, 10, {"loss": 0.5}))
            else:
                rows.append(LogLine(seq, self.epoch, 0, f"line {seq} \u00e9\n" * self.dice.randint(1, 5)))
        batch = RowBatch(self.run_id, n, worker, nonce, rows)
        self.log.send_rows(batch, self._delivered)
        if self.dice.random() < 0.3:
            self.unsure = [*self.unsure, batch][-5:]

    def _delivered(self, error: object, offset: int) -> None:
        assert error is None
        self.last_offset = max(self.last_offset, offset)


class Storm:
    def __init__(self, log: Log, seed: int, runs: int = 6) -> None:
        self.log, self.dice = log, random.Random(seed)
        self.runs = [Run(log, self.dice) for _ in range(runs)]
        self.all = list(self.runs)

    def burst(self, steps: int = 12) -> None:
        """Blocks until all of it is in the log."""
        for _ in range(steps):
            self.dice.choice(self.runs).step()
        if self.dice.random() < 0.02:
            over = self.runs.pop(0)
            over.end()
            self.runs.append(Run(self.log, self.dice))
            self.all.append(self.runs[-1])
        assert self.log.producer.flush(10) == 0

    def end(self) -> None:
        for run in self.runs:
            run.end()
        assert self.log.producer.flush(10) == 0


def truth(log: Log) -> set[Found]:
    """The rows of all attempts that started, from the log itself."""
    ledger, batches = Ledger(), []
    for place in log.topics.all_places(topics.RUN_CONTROL):
        for message in log.read_range(place, 0, None):
            record = log.decode(message)
            assert isinstance(record, control.Record)
            ledger.control(record, message.offset, message.time_ms)
    for place in log.topics.all_places(topics.TRAINING_LOG):
        for message in log.read_range(place, 0, None):
            record = log.decode(message)
            if isinstance(record, RowBatch):
                batches.append(record)
    started = {(s.run_id, a.n, a.worker, a.nonce) for s in ledger.states.values() for a in s.starts}
    return {(b.run_id, b.n, row.seq) for b in batches if (b.run_id, b.n, b.worker, b.nonce) in started for row in b.rows}
