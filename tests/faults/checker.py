"""Judges raw logs: what must hold of a run whatever was killed, cut, frozen or sent twice.

I1 every acked Task has exactly one accepted end. I2 at most one attempt is valid at any log position, and nobody speaks as an attempt
that it has not won. I3 the accepted history has no gap and no double (epoch, step, name). I4 every artifact of a result and of a
checkpoint that is kept is there with its sha256. I5 no accepted record of an attempt stands after its Expired.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.faults.acceptance import Entry, Run, judge
from tests.faults.rawlog import RunLog, Topics, is_whole

Place = tuple[int, int]
FINAL = ("succeeded", "cancelled", "tooold")


@dataclasses.dataclass
class Verdict:
    """`wrong`: violations in words, each with its run. `runs`: how every run that has a Task is judged."""

    wrong: list[str]
    runs: dict[str, Run]
    logs: dict[str, RunLog]
    rejected: int  # records that did not count
    topics: Topics

    def states(self) -> collections.Counter[str]:
        return collections.Counter(run.state for run in self.runs.values())


def check(topics: Topics, judging: Callable[[str, list[Entry]], Run] = judge, unfinished: frozenset[str] = frozenset()) -> Verdict:
    """Every run with an acked Task. `unfinished`: runs that need not have ended."""
    verdict = Verdict([], {}, {}, 0, topics)
    for run_id, log in sorted(topics.runs.items()):
        if not log.tasks or log.newer:
            continue
        run = judging(run_id, log.control)
        verdict.runs[run_id], verdict.logs[run_id] = run, log
        verdict.rejected += len(log.control) - len(run.accepted)
        found = (*i1(log, run, run_id in unfinished), *i2(log, run), *i3(log, run), *i4(log, run, topics), *i5(log, run))
        verdict.wrong += [f"{run_id}: {what}" for what in found]
    return verdict


def i1(log: RunLog, run: Run, unfinished: bool = False) -> Iterator[str]:
    ends = [entry for entry in run.accepted if _is_final(entry.record)]
    if run.end is None and not unfinished:
        yield f"I1: it never ended, it is {run.state} after {len(run.spans)} attempts"
    if len(ends) > 1:
        yield f"I1: it ended {len(ends)} times, at the offsets {[entry.offset for entry in ends]}"
    if run.end is not None and (later := [entry.offset for entry in run.accepted if entry.offset > run.end.offset]):
        yield f"I1: records at {later} count, after its end at {run.end.offset}"
    for span in run.spans:
        words = {json.dumps(e.record, sort_keys=True) for e in log.control if _closes(e.record) and span.is_of(e.record)}
        if len(words) > 1:
            yield f"I1: attempt {span.n} said {len(words)} different last words: {sorted(word[:200] for word in words)}"
    for state in log.ends:
        shown = (state.get("state"), state.get("end_offset"))
        if shown != (run.state, run.end.offset if run.end else None):
            yield f"I1: run_state says it ended as {shown}, the log says {run.state}, {run.end.offset if run.end else None}"


def i2(log: RunLog, run: Run) -> Iterator[str]:
    for one, other in itertools.combinations(run.spans, 2):
        first, second = sorted((one, other), key=lambda span: span.opened)
        if first.closed is None or first.closed > second.opened:
            yield f"I2: attempt {second.n} was opened at {second.opened} while attempt {first.n} was open"
        if first.n >= second.n:
            yield f"I2: attempt {second.n} was opened after attempt {first.n}"
        if first.nonce == second.nonce:
            yield f"I2: attempts {first.n} and {second.n} have one nonce"
    for entry in log.control:
        if "nonce" in entry.record and entry.type != "claimed" and not any(span.is_of(entry.record) for span in run.spans):
            yield f"I2: {entry.type} at {entry.offset} is of an attempt that {entry.record['worker']} never won"
    for entry in run.accepted:
        if "nonce" in entry.record and not any(
            span.is_of(entry.record) and span.opened <= entry.offset <= (entry.offset if span.closed is None else span.closed)
            for span in run.spans
        ):
            yield f"I2: {entry.type} at {entry.offset} counts outside its attempt"


def i3(log: RunLog, run: Run) -> Iterator[str]:
    """Rule 10: of attempt n the rows from its resume point up to that of the next started attempt."""
    known: dict[tuple[Any, ...], str] = {}
    for _, batch in log.rows:
        for row in batch["rows"]:
            name, text = (batch["n"], batch["worker"], batch["nonce"], row["seq"]), json.dumps(row, sort_keys=True)
            if known.setdefault(name, text) != text:
                yield f"I3: attempt {batch['n']} of {batch['worker']} has two rows with seq {row['seq']}"
    rows = list(accepted_rows(log, run))
    named = [(row["type"], row["epoch"], row.get("step", 0), name) for row in rows for name in row.get("metrics", {})]
    if doubles := [name for name, times in collections.Counter(named).items() if times > 1]:
        yield f"I3: twice in the accepted history: {doubles[:5]}"
    epochs = [row for row in rows if row["type"] == "epoch"]
    numbers = [row["epoch"] for row in epochs]
    first = next((span.started.record.get("epoch", 0) for span in run.spans if span.started), 0)
    if numbers != list(range(first, first + len(numbers))):
        yield f"I3: the epochs of the accepted history are {numbers}, they begin at {first}"
    if len({frozenset(row.get("metrics", {})) for row in epochs}) > 1:
        yield "I3: some epochs lack a metric that others have"
    end = run.end.record if run.end else {}
    if end.get("type") == "succeeded" and end.get("epochs", 0) != first + len(numbers):
        yield f"I3: it succeeded with {end.get('epochs', 0)} epochs, its accepted history has {numbers}"
    if end.get("type") == "succeeded" and end.get("log_end") is not None and end["log_end"] not in {offset for offset, _ in log.rows}:
        yield f"I3: its last rows should stand at {end['log_end']}"


def accepted_rows(log: RunLog, run: Run) -> Iterator[dict[str, Any]]:
    started = [span for span in run.spans if span.started is not None]
    for i, span in enumerate(started):
        limit = min((_start(later.started) for later in started[i + 1 :]), default=None)
        rows = {row["seq"]: row for _, batch in reversed(log.rows) if span.is_of(batch) for row in batch["rows"]}
        for _, row in sorted(rows.items()):
            place = (row["epoch"] + 1, 0) if row["type"] == "epoch" else (row["epoch"], row.get("step", 0))
            if limit is None or place <= limit:
                yield row


def i4(log: RunLog, run: Run, topics: Topics) -> Iterator[str]:
    for name, part in named_parts(run):
        if not is_whole(part, topics.bytes_of(part)):
            yield f"I4: {name} is missing or altered: { {key: part[key] for key in part if key not in ('data', 'text')} }"


def named_parts(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    """What must be there: the parts of the result, and those of every checkpoint that is kept. Superseded ones may be deleted."""
    entries = kept(run)
    if run.end is not None and run.end.type == "succeeded":
        entries.append(run.end)
    for entry in entries:
        for name, part in parts_of(entry.record):
            yield f"{name} of {entry.type} at {entry.offset}", part


def kept(run: Run) -> list[Entry]:
    """The last two accepted checkpoints, and the best: by their `value`, the first of equals; one of another metric does not compete.

    A copy of one that was accepted before is no other checkpoint.
    """
    checkpoints: list[Entry] = []
    for entry in run.accepted:
        if entry.type == "checkpointed" and all(entry.record != earlier.record for earlier in checkpoints):
            checkpoints.append(entry)
    best: Entry | None = None
    for entry in checkpoints:
        if entry.record.get("value") is not None and (best is None or _better(entry.record, best.record)):
            best = entry
    last = checkpoints[-2:]
    return last if best is None or best in last else [best, *last]


def parts_of(record: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    files = record.get("files", {})
    pairs = files.items() if isinstance(files, dict) else [(file["path"], file["part"]) for file in files]
    return [*record.get("parts", {}).items(), *pairs]


def i5(log: RunLog, run: Run) -> Iterator[str]:
    expired: set[int] = set()
    for entry in run.accepted:
        if entry.type == "expired":
            expired.add(entry.record["n"])
        elif entry.record.get("n") in expired:
            yield f"I5: {entry.type} of attempt {entry.record['n']} at {entry.offset} counts, after its Expired"


def _better(record: dict[str, Any], best: dict[str, Any]) -> bool:
    if record.get("metric", "") != best.get("metric", ""):
        return False
    grows = record.get("mode", "min") == "max"
    return bool(record["value"] > best["value"] if grows else record["value"] < best["value"])


def _is_final(record: dict[str, Any]) -> bool:
    return record["type"] in FINAL or (record["type"] == "failed" and not record["retryable"])


def _closes(record: dict[str, Any]) -> bool:
    return record["type"] in ("succeeded", "cancelled", "failed", "released")


def _start(started: Entry | None) -> Place:
    assert started is not None
    return (started.record.get("epoch", 0), started.record.get("step", 0))
