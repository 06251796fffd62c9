"""Plays a run into the real topics, as client and worker would: for readers' tests that need no training."""

from __future__ import annotations

import dataclasses

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import control, ids, topics
from kafka_jupyter.protocol.parts import InlineBytes, InlineText
from kafka_jupyter.protocol.rows import EpochEnded, LogLine, Row, RowBatch
from kafka_jupyter.protocol.task import ArraysData, FitArguments, KerasModel, Task


def task(run_id: str, epochs: int = 3, name: str = "digits", padding: str = "") -> Task:
    """A well-formed Task whose model nobody is going to build; `padding` makes its record as large."""
    model = KerasModel(InlineText("{}"), InlineBytes(b""), model_name="mlp")
    data, fit = ArraysData({}, []), FitArguments(epochs=epochs)
    return Task(run_id=run_id, name=name, owner="ada@test", model=model, data=data, fit=fit, source=padding)


@dataclasses.dataclass
class Player:
    """One run, one attempt at a time. Every method returns when its record is acked."""

    log: Log
    run_id: str
    epochs: int = 3
    name: str = "digits"
    owner: str = "ada@test"
    worker: str = "box-1"
    n: int = 0
    nonce: str = ""
    seq: int = 0
    last_row: int | None = None

    @classmethod
    def new(cls, log: Log, name: str = "digits", epochs: int = 3, owner: str = "ada@test") -> Player:
        return cls(log, ids.new_run_id(name), epochs, name, owner)

    def submit(self, submitted: bool = True) -> control.TaskPlace:
        place = self.log.write_task(task(self.run_id, self.epochs, self.name))
        if submitted:
            self.say(control.Submitted(run_id=self.run_id, task=place, name=self.name, owner=self.owner, epochs=self.epochs))
        self.place = place
        return place

    def claim(self, worker: str = "box-1") -> int:
        self.n, self.worker, self.nonce, self.seq = self.n + 1, worker, ids.new_nonce(), 0
        return self.say(control.Claimed(**self.own(), task=self.place))

    def start(self, epoch: int = 0, step: int = 0) -> int:
        place = self.log.topics.place(topics.TRAINING_LOG, self.run_id)
        offset = 0 if self.last_row is None else self.last_row + 1
        assert place
        return self.say(control.Started(**self.own(), epoch=epoch, step=step, log_offset=offset, device="cpu", host="box"))

    def epoch(self, epoch: int, **metrics: float) -> int:
        return self.rows(EpochEnded(self.next_seq(), epoch, 10, metrics or {"loss": 1 / (epoch + 1)}, 0.1, 0))

    def line(self, text: str) -> int:
        return self.rows(LogLine(self.next_seq(), 0, 0, text))

    def rows(self, *rows: Row) -> int:
        batch = RowBatch(self.run_id, self.n, self.worker, self.nonce, list(rows))
        delivered: list[tuple[object, int]] = []
        self.log.send_rows(batch, lambda error, offset: delivered.append((error, offset)))
        assert self.log.producer.flush(10) == 0
        assert delivered[0][0] is None
        self.last_row = delivered[0][1]
        return self.last_row

    def succeed(self) -> int:
        return self.say(control.Succeeded(**self.own(), epochs=self.epochs, metrics={"loss": 0.1}, log_end=self.last_row))

    def whole(self) -> Player:
        """From Submitted to Succeeded."""
        self.submit()
        self.claim()
        self.start()
        for epoch in range(self.epochs):
            self.epoch(epoch)
        self.succeed()
        return self

    def own(self) -> dict[str, object]:
        return {"run_id": self.run_id, "n": self.n, "worker": self.worker, "nonce": self.nonce}

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq

    def say(self, record: control.Record) -> int:
        return self.log.write_control(record)
