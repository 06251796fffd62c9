"""What a failure means for the run (rules 7 and 9): whether waiting helps, and which record ends the attempt. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kafka_jupyter import errors, redact
from kafka_jupyter.protocol import control, frames
from kafka_jupyter.worker.children import Exit

Ending = Callable[[int | None], control.Record]  # offset of the last row → the record that ends the attempt

_FINAL = (errors.OffsetGone, errors.RecordTooLarge, errors.ArtifactMissing, errors.ArtifactTruncated, errors.ArtifactAltered)


def released(own: dict[str, Any], reason: str, detail: str = "") -> Ending:
    """The run is left to others."""
    return lambda end: control.Released(**own, reason=reason, detail=detail, log_end=end)


def may_pass(failure: Exception, trained: bool) -> bool:
    """Whether the same may work in a moment, because Kafka or the store is away. What is `trained` waits for more than that: for
    room on our own disk as well."""
    if isinstance(failure, errors.StoreElsewhere):
        return False
    if trained and type(failure) is errors.StoreError:
        return True
    # A client that has lost its last broker says of any topic that it is missing.
    away = isinstance(failure, errors.BrokerUnreachable | errors.TopicMissing | errors.DeliveryFailed | errors.StoreUnavailable)
    return away or type(failure) is errors.BrokerError  # what has no name of its own: a leader that moves, a broker that starts


def refusal(own: dict[str, Any], failure: Exception, trained: bool) -> Ending:
    """An error before or after the training: the worker's and Kafka's troubles may be others the next time, a bad task stays bad.

    A worker whose own trouble it is leaves a run that it has not trained to others: it would only take it again, and fail again, until
    the run is DEAD.
    """
    text = str(failure)
    if isinstance(failure, errors.NewerRecord) or (not trained and (ails_us(failure) or isinstance(failure, errors.StoreElsewhere))):
        return released(own, "unfit", text)
    retryable = isinstance(failure, errors.BrokerError | errors.StoreError | OSError) and not isinstance(failure, _FINAL)
    reason, kind = "store" if retryable else "refused", type(failure).__name__
    return lambda end: control.Failed(**own, retryable=retryable, reason=reason, error=kind, message=text, log_end=end)


def ails_us(failure: Exception) -> bool:
    """Our disk, our rights: it would be the same with any run."""
    return isinstance(failure, errors.NotAuthorized | errors.AuthenticationFailed | OSError) or type(failure) is errors.StoreError


def exception(own: dict[str, Any], error: frames.Error, epoch: int) -> Ending:
    """Rule 7: an exception is final at once; that memory or a file was missing may be different the next time."""
    return lambda end: control.Failed(
        **own,
        retryable=error.reason in ("store", "memory"),
        reason=error.reason,
        error=error.error,
        message=redact.clean(error.message),  # of somebody's code, which may name the address of a database with its password
        traceback=redact.clean(error.traceback),
        fields=redact.cleaned(error.fields),
        epoch=epoch,
        log_end=end,
    )


def stall(own: dict[str, Any], exit: Exit, place: tuple[int, int], seconds: float) -> Ending:
    """A child that was killed because it made no step: a heartbeat proves only the supervisor."""
    message = f"no step was done for {seconds:g} s, at epoch {place[0]}, step {place[1]} (stall_timeout_s)"
    message += f"; {exit.detail}" if exit.detail else ""
    return lambda end: control.Failed(
        **own, retryable=True, reason="stall", error="Stalled", message=message, memory=exit.memory, epoch=place[0], log_end=end
    )


def stuck(own: dict[str, Any], store: str, seconds: float, trained: bool) -> Ending:
    """The store is silent, before or after the training. Others may find it well: before it the run is left to them."""
    silent = errors.StoreError(store=store, detail=f"no byte came or went for {seconds:g} s (stall_timeout_s)")
    return refusal(own, silent, trained)


def death(own: dict[str, Any], exit: Exit, epoch: int) -> Ending:
    """A child that died without a word: tried again as rule 7 says. One that there never was is a trouble of the worker's own."""
    if not exit.forked:
        return released(own, "unfit", exit.detail)
    message = exit.detail or (f"killed by signal {exit.signal}" if exit.signal else f"ended with exit code {exit.code}")
    return lambda end: control.Failed(
        **own,
        retryable=True,
        reason="memory" if exit.out_of_memory else "signal",
        error="ChildDied",
        message=f"out of memory: {message}" if exit.out_of_memory else message,
        signal=exit.signal,
        memory=exit.memory,
        epoch=epoch,
        log_end=end,
    )
