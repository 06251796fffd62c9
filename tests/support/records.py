"""Records of one run for tests of the fold, each with its place in the log; times are a minute apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from kafka_jupyter.protocol import control
from kafka_jupyter.runs.state import Placed, RunState, apply

RUN = "digits-3f2a9c01b7d4"
TASK = control.TaskPlace("task", 0, 5)
WHO: dict[str, Any] = {"run_id": RUN, "worker": "cpu-1", "nonce": "x"}
_request_ids = itertools.count()


def submitted(**fields: Any) -> control.Submitted:
    return control.Submitted(run_id=RUN, task=TASK, **fields)


def claimed(n: int = 1, **fields: Any) -> control.Claimed:
    return control.Claimed(**{**WHO, "n": n, "task": TASK, **fields})


def of_attempt(kind: type[control.AttemptRecord], n: int = 1, **fields: Any) -> Any:
    """A record of attempt n, by default of the worker that `claimed` names."""
    needed: dict[type, dict[str, Any]] = {
        control.Claimed: {"task": TASK},
        control.Checkpointed: {"epoch": 1, "step": 0},
        control.Applied: {"request_id": "r"},
        control.Released: {"reason": "shutdown"},
        control.Failed: {"retryable": True, "reason": "signal"},
    }
    return kind(**{**WHO, "n": n, **needed.get(kind, {}), **fields})


def request(kind: type[control.Request], **fields: Any) -> Any:
    return kind(**{"run_id": RUN, "request_id": f"request-{next(_request_ids)}", "by": "ada", **fields})


def expired(after: int, n: int = 1) -> control.Expired:
    return control.Expired(run_id=RUN, n=n, after=after)


def fold(records: Iterable[control.Record], state: RunState | None = None) -> RunState:
    """The state after these records, at the offsets behind those of `state`."""
    for record in records:
        state = after(state, record)
    assert state is not None
    return state


def after(state: RunState | None, record: control.Record) -> RunState:
    offset = state.upto + 1 if state else 0
    return apply(state, Placed(record, offset, 60_000 * (offset + 1)))
