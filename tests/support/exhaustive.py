"""All small histories: every order of records that the protocol allows, up to a length of the log.

    python -m tests.support.exhaustive --records 8

Who may write what depends on what they have read, and everybody may have read any prefix of the log: so whatever an honest process
would write at some prefix may come at any later time, any number of times (zombies, delays, copies). Records that change nothing are
left out of the log once it is shown that they do: so `--records` counts those that count, with any number of useless ones in between.
Logs that lead to the same state are followed as one, with the records that are on their way in any of them: that may try a record where
it cannot come, and leaves out none that can.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.parts import KafkaRef
from kafka_jupyter.runs import checkpoints
from kafka_jupyter.runs.state import Placed, RunState, Wish, apply
from tests.support.log_checker import Entry, RunChecker, essence
from tests.support.records import RUN, TASK
from tests.support.simulated_rules import Apply, Disposable
from tests.support.simulated_store import uploads

PROCESSES = (("v", "x"), ("w", "x"), ("v", "y"))  # worker and nonce; the third was started in the place of the first, under its name
EPOCHS = 3
BEATS = 2  # heartbeats of an attempt: one, and one whose copy comes behind it
Requests = tuple[type[control.Request], ...]
Key = tuple[object, ...]


@functools.cache
def record(kind: type[control.Record], *fields: tuple[str, Any]) -> control.Record:
    """The same record each time: a second one is a copy."""
    return kind(run_id=RUN, **dict(fields))


@functools.cache
def checkpoint(n: int, worker: str, nonce: str, epoch: int) -> control.Record:
    ref = KafkaRef(topic="artifact", partition=0, offset=0, chunks=1, upload=f"{worker}{nonce}{n}.{epoch}", size=1, sha256="")
    value = abs(epoch - 1.5) + n / 10  # the first two epochs of the first attempt are the best
    fields: dict[str, Any] = {"run_id": RUN, "n": n, "worker": worker, "nonce": nonce, "epoch": epoch, "step": 0}
    return control.Checkpointed(**fields, parts={"state": ref}, metric="val_loss", value=value)


def honest(state: RunState | None, processes: tuple[tuple[str, str], ...]) -> Iterator[control.Record]:
    """What anybody who keeps the rules may write who has read the log up to here, requests and Submitted excepted."""
    if state is None or state.claimable:
        n = state.last_n + 1 if state else 1
        for worker, nonce in processes:
            if state is None or worker not in state.unfit:
                yield record(control.Claimed, ("n", n), ("worker", worker), ("nonce", nonce), ("task", TASK))
    attempt = state.open if state else None
    if state is None or attempt is None:
        return
    who = (("n", attempt.n), ("worker", attempt.worker), ("nonce", attempt.nonce))
    yield record(control.Expired, ("n", attempt.n), ("after", attempt.last))
    yield record(control.Failed, *who, ("retryable", True), ("reason", "signal"))
    if state.wish is Wish.CANCEL:
        yield record(control.Cancelled, *who)
        return
    yield record(control.Released, *who, ("reason", "pause" if state.wish is Wish.PAUSE else "shutdown"))
    if not attempt.started and state.wish is Wish.RUN:
        yield record(control.Started, *who, ("epoch", state.checkpoints[-1].epoch if state.checkpoints else 0))
    if attempt.started or state.wish is Wish.STOP:
        yield record(control.Succeeded, *who, ("stopped_early", state.wish is Wish.STOP))
    if attempt.started:
        if attempt.beat < BEATS:
            yield record(control.Heartbeat, *who, ("epoch", attempt.epoch), ("beat", attempt.beat + 1))
        yield record(control.Failed, *who, ("retryable", False), ("reason", "exception"))
        if attempt.epoch < EPOCHS and state.wish is not Wish.STOP:
            yield checkpoint(attempt.n, attempt.worker, attempt.nonce, attempt.epoch + 1)


@dataclasses.dataclass(slots=True)
class Node:
    state: RunState | None
    possible: frozenset[int]  # records, by identity, that may come next
    deletable: frozenset[str]  # uploads that somebody may have deleted by now
    checker: RunChecker
    log: tuple[control.Record, ...]

    def key(self) -> Key:
        assert self.state is not None
        starts = tuple(msgspec.structs.replace(start, offset=-1) for start in self.state.starts)
        meaning = msgspec.structs.replace(self.state, upto=-1, dropped=0, starts=starts)
        return msgspec.msgpack.encode(meaning), self.deletable, self.checker.books()


@dataclasses.dataclass(slots=True)
class Search:
    """`found`: the first violation, and the log that shows it: as short as there is one."""

    depths: list[int] = dataclasses.field(default_factory=list)  # different situations, by records
    steps: int = 0
    ends: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    found: tuple[str, tuple[control.Record, ...]] | None = None
    logs: list[tuple[control.Record, ...]] = dataclasses.field(default_factory=list)  # one that leads to each situation


def search(
    records: int, requests: Requests, processes: int = 2, rules: Apply = apply, disposable: Disposable = checkpoints.disposable
) -> Search:
    result, known_records, who = Search(), dict[int, control.Record](), PROCESSES[:processes]

    def remember(made: Iterator[control.Record] | list[control.Record]) -> frozenset[int]:
        found = {id(one): one for one in made}
        known_records.update(found)
        return frozenset(found)

    asked = [record(kind, ("request_id", f"{kind.__name__}-{i}"), ("by", "ada")) for i, kind in enumerate(requests)]
    first = remember([record(control.Submitted, ("task", TASK)), *asked]) | remember(honest(None, who))
    level = [Node(None, first, frozenset(), RunChecker(), ())]
    for depth in range(records + 1):
        following: dict[Key, Node] = {}
        for node in level:
            ended = node.state is not None and node.state.terminal
            for one in node.possible if ended or depth < records else ():  # after the last record only what would change an end
                result.steps += 1
                after, checker, wrong = _step(node, known_records[one], rules)
                log = (*node.log, known_records[one])
                if wrong:
                    result.found = (wrong, log)
                    return result
                if after is None:
                    continue
                possible = node.possible | remember(honest(after, who))
                deletable = node.deletable
                if isinstance(known_records[one], control.Checkpointed):
                    deletable |= {ref.upload for ref in disposable(after) if isinstance(ref, KafkaRef)}
                successor = Node(after, possible, deletable, checker, log)
                same = following.setdefault(successor.key(), successor)
                same.possible |= possible
        level = list(following.values())
        result.depths.append(len(level))
        result.logs.extend(node.log for node in level)
        result.ends.update(str(node.state.state) for node in level if node.state is not None and node.state.terminal)
    return result


def _step(node: Node, one: control.Record, rules: Apply) -> tuple[RunState | None, RunChecker, str]:
    """The state afterwards (None: as before, but for the counters), the books, and what is wrong."""
    before, offset = node.state, len(node.log)
    after = rules(before, Placed(one, offset, 0))
    useless = before is not None and _last(before) == _last(after) and essence(before) == essence(after)
    checker = node.checker if useless else node.checker.copy()
    author = hash((one.worker, one.nonce)) if isinstance(one, control.AttemptRecord) else -1
    wrong = next(checker.check(Entry(one, offset, 0.0, author, before, after)), "")
    if useless or wrong:
        return None, checker, wrong
    hole = next((kept for kept in checkpoints.kept(after) if not node.deletable.isdisjoint(uploads(kept))), None)
    if hole is not None:
        wrong = f"C1: checkpoint {(hole.n, hole.epoch)} may be deleted, and a later attempt may load it"
    return after, checker, wrong


def _last(state: RunState) -> int:
    return state.open.last if state.open else -1


ALL_REQUESTS: Requests = (
    control.PauseRequested, control.ResumeRequested, control.StopRequested, control.CancelRequested, control.PauseRequested,
    control.ResumeRequested,
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=7)
    parser.add_argument("--processes", type=int, default=2, choices=(1, 2, 3))
    parser.add_argument("--requests", type=int, default=4)
    options = parser.parse_args()
    began_s = time.monotonic()
    result = search(options.records, ALL_REQUESTS[: options.requests], options.processes)
    print(f"{result.steps} steps, {sum(result.depths)} situations {result.depths}, ends {dict(result.ends)}")
    print(f"{time.monotonic() - began_s:.1f} s")
    if result.found:
        print(result.found[0], *result.found[1], sep="\n    ")
    return 1 if result.found else 0


if __name__ == "__main__":
    sys.exit(main())
