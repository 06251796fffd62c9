"""R10: tasks that kill whoever touches them, mixed among innocent ones."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import random
import re
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import codec, control, ids, topics
from kafka_jupyter.protocol.parts import InlineBytes, InlineText, KafkaRef
from kafka_jupyter.protocol.task import Requirements, Task
from tests.faults.brokers import Brokers
from tests.faults.checker import Verdict
from tests.faults.crew import Post
from tests.faults.figures import Budget, Figure
from tests.faults.stage import Stage, Tiny
from tests.support import raw

WAITS = "waits"
LETTER = "a letter"  # in task_dlq, and no run at all
MIXED = 0.1
SLOWER = 0.05
OPEN = 8  # innocent runs that wait or train at a time


@dataclasses.dataclass(frozen=True)
class Poison:
    """`send` writes it and gives its run id; `end` is how it must end, with a reason that holds the word `why`."""

    end: str
    why: str
    send: Callable[[Stage, Task], str]


def _task(**changes: Any) -> Callable[[Stage, Task], str]:
    return lambda stage, task: stage.submit(msgspec.structs.replace(task, **changes))


def _changed(change: Callable[[Task], Task]) -> Callable[[Stage, Task], str]:
    return lambda stage, task: stage.submit(change(task))


def _label(kind: str) -> Callable[[Stage, Task], str]:
    return _task(labels={"poison": kind})


def _with_config(old: str, new: str) -> Callable[[Stage, Task], str]:
    def change(task: Task) -> Task:
        assert isinstance(task.model.config, InlineText)
        text, times = re.subn(old, new, task.model.config.text, count=1)
        assert times, f"{old} is not in {task.model.config.text[:500]}"
        config = InlineText(text)
        return msgspec.structs.replace(task, model=msgspec.structs.replace(task.model, config=config))

    return _changed(change)


def _with_state(part: Any) -> Callable[[Stage, Task], str]:
    return _changed(lambda task: msgspec.structs.replace(task, model=msgspec.structs.replace(task.model, state=part)))


def _wrong_labels(task: Task) -> Task:
    """Labels beyond the ten classes: the loss raises in the middle of the first epoch."""
    leaf = task.data.leaves[1]
    assert isinstance(leaf, InlineBytes)
    size = 4 * (task.data.rows or 0)
    spoilt = leaf.data[:-size] + np.full(size // 4, 99, "int32").tobytes()
    return msgspec.structs.replace(task, data=msgspec.structs.replace(task.data, leaves=[task.data.leaves[0], InlineBytes(spoilt)]))


def _written(log: Log, task: Task, value: bytes) -> str:
    """These bytes where a Task should be, announced as one."""
    topic, partition = log.topics.place(topics.TASK, task.run_id)
    offset = raw.write(log, (topic, partition), task.run_id.encode(), value)
    log.write_control(control.Submitted(run_id=task.run_id, task=control.TaskPlace(topic, partition, offset), name=task.name))
    return task.run_id


def _truncated(stage: Stage, task: Task) -> str:
    value = codec.encode(task)
    return _written(stage.log, task, value[: len(value) // 2])


def _newer(stage: Stage, task: Task) -> str:
    stage.run_ids.append(_written(stage.log, task, codec.encode(msgspec.structs.replace(task, v=99))))
    return task.run_id


def _junk(stage: Stage, task: Task) -> str:
    topic, partition = stage.log.topics.place(topics.TASK, task.run_id)
    raw.write(stage.log, (topic, partition), task.run_id.encode(), random.Random(task.run_id).randbytes(500))
    return task.run_id


_GONE = KafkaRef("artifact", 0, 0, 1, "f" * 24, 10, "0" * 64)
POISONS: dict[str, Poison] = {
    "exception": Poison("FAILED", "label", _changed(_wrong_labels)),
    "nan-config": Poison("FAILED", "", _with_config(r'"units":\s*\d+', '"units":NaN')),
    "foreign-code": Poison("FAILED", "", _with_config(r'"class_name":\s*"Dense"', '"class_name":"Lambda"')),
    "missing-artifact": Poison("FAILED", "", _with_state(_GONE)),
    "truncated-record": Poison("FAILED", "", _truncated),
    "segfault": Poison("DEAD", "signal 11", _label("segfault")),
    "killed": Poison("DEAD", "signal 9", _label("killed")),
    "out-of-memory": Poison("DEAD", "memory", _label("out-of-memory")),
    "silent-exit": Poison("DEAD", "exit code 3", _label("silent-exit")),
    "broken-weights": Poison("DEAD", "not the state of a model", _with_state(InlineBytes(b"no safetensors"))),  # it may be that disk
    "unknown-version": Poison(WAITS, "version", _newer),
    "needs-a-gpu": Poison(WAITS, "GPU", _task(requirements=Requirements(device="gpu"))),
    "junk-in-the-topic": Poison(LETTER, "", _junk),
}

WORKER_KILLER = "kills-its-worker"  # by itself and in the soak only: it stops everything for a while
KILLER = Poison("DEAD", "silent", _label(WORKER_KILLER))


def poison(brokers: Brokers, folder: pathlib.Path, seed: int, budget: Budget, judge_throughput: bool = True) -> list[Figure]:
    """Up to `budget.count` poison tasks among innocent ones; before and after for as long innocent ones alone, to compare."""
    with contextlib.closing(Stage("poison", brokers, folder, [Post(module="tests.faults.worker")] * 2, seed)) as stage:
        stage.workers_there()
        innocent, chance = Tiny("innocent", epochs=20 if judge_throughput else 2), random.Random(seed)
        kinds = [kind for _ in range(-(-budget.count // len(POISONS))) for kind in chance.sample(list(POISONS), len(POISONS))]
        kinds = kinds[: budget.count]
        healthy = int(len(kinds) / MIXED * (1 - MIXED)) if judge_throughput else len(kinds)
        first = _played(stage, innocent, ["innocent"] * (healthy // 2), {}, budget.seconds / 4)
        sent: dict[str, str] = {}
        mixed = ["innocent"] * healthy + kinds
        chance.shuffle(mixed)
        innocents, mixed_s = _played(stage, innocent, mixed, sent, budget.seconds / 2)
        second = _played(stage, innocent, ["innocent"] * (healthy - healthy // 2), {}, budget.seconds / 4)
        alone, alone_s = first[0] + second[0], first[1] + second[1]
        if judge_throughput:
            sent[_kill_workers(stage, innocent)] = WORKER_KILLER
        _until_it_has_ended(stage, sent)
        verdict = stage.judge(unfinished=[run_id for run_id, kind in sent.items() if _of(kind).end == WAITS])
        wrong = [what for run_id, kind in sent.items() for what in _wrong(stage, verdict, run_id, kind)]
        for run_id, kind in sent.items():
            if _of(kind).end == WAITS:
                stage.client.attach(run_id).cancel()
        stage.judge()
        suffered = sum(verdict.runs[run_id].state != "SUCCEEDED" for run_id in stage.run_ids if run_id not in sent)
        for what in wrong:
            stage.note(what)
        count = f"{len(sent)} poison tasks of {len(set(sent.values()))} kinds among {innocents} innocent ones"
        rate, rate_alone = innocents / mixed_s, alone / alone_s
        ratio = rate / rate_alone
        return [
            Figure("R10", "poison tasks that ended otherwise than they must", "0", "; ".join(wrong[:3]) or "0", count, not wrong),
            Figure(
                "R10",
                "innocent runs on the same workers that did not succeed",
                "0",
                str(suffered),
                f"{innocents + alone} runs",
                suffered == 0,
            ),
            Figure(
                "R10",
                "healthy throughput beside 10% poison",
                "≥ 95%" if judge_throughput else "shown only",
                f"{ratio:.0%} ({rate:.2f} a second, {rate_alone:.2f} alone)",
                f"{alone} runs alone in {alone_s:.0f} s, {innocents} mixed in {mixed_s:.0f} s",
                ratio >= 1 - SLOWER or not judge_throughput,
            ),
        ]


def _played(stage: Stage, innocent: Tiny, kinds: list[str], sent: dict[str, str], seconds: float) -> tuple[int, float]:
    """How many innocent runs were submitted, and how long it took until they had ended. `sent`: run id → kind of poison."""
    begin_s = stage.clock.now_s
    innocents: list[str] = []
    for kind in kinds:
        if stage.clock.now_s - begin_s > seconds:
            break
        if kind == "innocent":
            innocents.append(stage.submit(innocent.one()))
            stage.follower.wait(lambda: sum(not stage.ended(run_id) for run_id in innocents) < OPEN, 60.0)
        else:
            sent[POISONS[kind].send(stage, innocent.one(run_id=ids.new_run_id(kind)))] = kind
    stage.until(lambda: all(map(stage.ended, innocents)), "innocent runs wait for ever", 120.0)
    return len(innocents), stage.clock.now_s - begin_s


def _kill_workers(stage: Stage, innocent: Tiny) -> str:
    """A task that takes its worker along, six times."""
    run_id = stage.submit(innocent.one(run_id=ids.new_run_id(WORKER_KILLER), labels={"poison": WORKER_KILLER}))

    def over() -> bool:
        stage.crew.mend()
        return stage.ended(run_id)

    stage.until(over, f"{run_id} goes on killing workers", 240.0)
    return run_id


def _until_it_has_ended(stage: Stage, sent: dict[str, str]) -> None:
    ending = [run_id for run_id, kind in sent.items() if _of(kind).end in ("FAILED", "DEAD")]
    stage.until(lambda: all(map(stage.ended, ending)), f"poison that does not end: {[i for i in ending if not stage.ended(i)]}", 60.0)


def _of(kind: str) -> Poison:
    return KILLER if kind == WORKER_KILLER else POISONS[kind]


def _wrong(stage: Stage, verdict: Verdict, run_id: str, kind: str) -> list[str]:
    """What is wrong with the end of a poison task, in words."""
    expected = _of(kind)
    letters = [letter for letter in verdict.topics.letters if letter.get("run_id") == run_id]
    if expected.end == LETTER:
        return [] if letters and letters[0].get("why") else [f"{kind}: there is no letter that says why"]
    if expected.end == WAITS:
        card = stage.client.attach(run_id).card()
        reason = f"{card['waiting']} {card['queue']} {card['warning']}"
        here = stage.state(run_id)
        if here is None or here.terminal or expected.why not in reason:
            return [f"{kind}: {here.state if here else None}, its card says {reason!r}"]
        return []
    log = verdict.logs.get(run_id)
    run = verdict.runs.get(run_id)
    state = str(run.state) if run is not None else str(getattr(stage.state(run_id), "state", None))
    failures = [entry.record for entry in (log.control if log else []) if entry.type == "failed"]
    card = stage.client.attach(run_id).card()
    reason = str(card["error"])
    found = [] if state == expected.end else [f"{kind}: it is {state}, not {expected.end} ({reason[:300]})"]
    if expected.why not in reason or not card["error"]:
        found.append(f"{kind}: its reason is {reason[:300]}")
    expired = sum(span.closed_by == "expired" for span in run.spans) if run is not None else 0
    if expected.end == "DEAD" and ((len(failures), expired) != ((0, 6) if kind == WORKER_KILLER else (3, 0)) or not letters):
        found.append(f"{kind}: DEAD after {len(failures)} failures, {expired} expiries, {len(letters)} letters")
    return found
