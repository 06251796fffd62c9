"""A run that ended badly → the error that is raised where somebody waits. Pure."""

from __future__ import annotations

from kafka_jupyter.errors import ModelMismatch, RunCancelled, RunDead, RunError, RunFailed
from kafka_jupyter.runs.state import RunState, State
from kafka_jupyter.runs.view import PROCESSES, failure_of, process_of

SIGNAL_NAMES = {9: "SIGKILL, often out of memory", 11: "SIGSEGV, a crash in native code", 6: "SIGABRT", 15: "SIGTERM"}


def error_of(state: RunState) -> RunError | None:
    """None for a run that has not ended, or SUCCEEDED."""
    failure = failure_of(state) or {}
    if state.state is State.CANCELLED:
        by = f" by {state.ended_by}" if state.ended_by else ""
        return RunCancelled(run_id=state.run_id, by=by, process=PROCESSES[process_of(state)])
    if state.state is State.DEAD:
        return RunDead(run_id=state.run_id, attempts=state.last_n, reason=_reason(failure), traceback=failure.get("traceback", ""))
    if state.state is not State.FAILED:
        return None
    fields = failure.get("fields") or {}
    if failure.get("reason") == "mismatch":
        return ModelMismatch(run_id=state.run_id, kernel=_number(fields.get("kernel")), worker_loss=_number(fields.get("worker_loss")))
    return RunFailed(
        run_id=state.run_id,
        worker=failure.get("worker", ""),
        attempt=failure.get("attempt", 0),
        error=": ".join(filter(None, (failure.get("error"), failure.get("message")))),
        traceback=failure.get("traceback", ""),
    )


def _reason(failure: dict[str, object]) -> str:
    """Of a death, with the signal and the memory at the end."""
    parts = [str(failure.get("message") or failure.get("error") or failure.get("reason") or "its workers went silent")]
    number, memory = failure.get("signal"), failure.get("memory")
    if isinstance(number, int) and number and f"signal {number}" not in parts[0]:
        parts.append(f"signal {number} ({SIGNAL_NAMES.get(number, 'see `man 7 signal`')})")
    if isinstance(memory, int) and memory:
        parts.append(f"{memory / (1 << 20):,.0f} MiB resident at the end")
    return ", ".join(parts)


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, (int, float)) else "unknown"
