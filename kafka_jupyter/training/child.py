"""One attempt in a freshly forked process: a Job comes in, frames go out, the process ends."""

from __future__ import annotations

import math
import os
import queue
import random
import signal
import socket
import threading
import traceback
from typing import Any

import numpy as np
import tensorflow as tf

from kafka_jupyter.errors import CannotTravel, ModelMismatch, NeedsTrust, StoreError
from kafka_jupyter.models import callbacks
from kafka_jupyter.protocol import codec, frames
from kafka_jupyter.protocol.task import Task
from kafka_jupyter.training.checkpoint import Checkpointer, Suspension
from kafka_jupyter.training.fit import Fit
from kafka_jupyter.training.reporter import Reporter
from kafka_jupyter.training.warmup import warm_up

_MESSAGE_LIMIT = 4_000  # characters
_TRACEBACK_LIMIT = 16_000  # characters, the last ones


def main(sock: socket.socket) -> None:
    _Child(sock).run()


class _Child:
    """The main thread trains. A second one listens: when the supervisor is gone, so is this process group."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()
        self._jobs: queue.SimpleQueue[frames.Job] = queue.SimpleQueue()
        self._early: list[frames.Stop | frames.Suspend | frames.Apply] = []
        self._reporter: Reporter | None = None
        self._checkpointer: Checkpointer | None = None
        self._handing_over = threading.Lock()
        self._worker_loss: float | None = None
        self._over = False

    def run(self) -> None:
        threading.Thread(target=self._listen, name="kafka_jupyter-supervisor", daemon=True).start()
        try:
            warm_up()  # while nobody waits, if this is a spare child
            answer = self._train(self._jobs.get())
        except Exception as error:  # noqa: BLE001 - whatever a training raises belongs to the person who started it
            answer = _described(error)
        self._over = True
        self._send(answer)

    def _listen(self) -> None:
        splitter = frames.Splitter(from_child=False)
        try:
            while (received := frames.receive(self._sock, splitter)) is not None:
                for frame in received:
                    if isinstance(frame, frames.Job):
                        self._jobs.put(frame)
                    else:
                        self._obey(frame)
        finally:
            if not self._over:  # else this process is ending by itself, and has closed the socket
                os.killpg(0, signal.SIGKILL)

    def _obey(self, frame: frames.Stop | frames.Suspend | frames.Apply) -> None:
        with self._handing_over:
            if self._reporter is None or self._checkpointer is None:
                self._early.append(frame)
            elif isinstance(frame, frames.Stop):
                self._reporter.stop()
            elif isinstance(frame, frames.Suspend):
                self._checkpointer.suspend()
            else:
                self._reporter.apply(frame)

    def _send(self, frame: frames.Frame) -> None:
        with self._sending:
            self._sock.sendall(frames.pack(frame))

    def _train(self, job: frames.Job) -> frames.Frame:
        task = _readable(job.task, job.code)
        folder = os.path.abspath(job.folder)
        fit = Fit(task, {name: os.path.abspath(path) for name, path in job.inputs.items()}, folder, job.files)
        work = os.path.join(folder, callbacks.BESIDE) if task.code is not None else folder
        os.makedirs(work, exist_ok=True)
        os.chdir(work)  # a file with a relative name lands with the others, not where the worker stands
        reporter = Reporter(
            self._send, lambda expected, rtol: self._check(fit, expected, rtol), job.progress_period_s, fit.place, job.changes
        )
        checkpointer = Checkpointer(self._send, folder, job.cadence)
        with self._handing_over:
            self._reporter, self._checkpointer = reporter, checkpointer
        for frame in self._early:
            self._obey(frame)
        try:
            result = fit.run(reporter, checkpointer, job.publish)
        except Suspension:
            return frames.Suspended()
        stopped_early = reporter.stopped_early or (job.publish and reporter.epochs_done < task.fit.epochs)
        metrics = reporter.metrics or (fit.point.metrics if fit.point else {})
        return frames.Done(result.files, result.outputs, stopped_early, reporter.epochs_done, metrics)

    def _check(self, fit: Fit, expected: float, rtol: float) -> float:
        """The loss of the first rows on the state as it arrived, compared with the notebook's. Raises ModelMismatch.

        Computed when it is asked for and once; the training does not notice.
        """
        if self._worker_loss is None:
            generators = random.getstate(), np.random.get_state()
            self._worker_loss = fit.first_loss()
            random.setstate(generators[0])
            np.random.set_state(generators[1])
        if not _close(self._worker_loss, expected, rtol):
            raise ModelMismatch(run_id=fit.task.run_id, kernel=expected, worker_loss=self._worker_loss)
        return self._worker_loss


def _readable(record: bytes, code: bool) -> Task:
    task = codec.decode(record)
    if not isinstance(task, Task):
        raise CannotTravel(what="this record", where="the task", why="it is no task", way_out="")
    if (task.trusted_code or task.code is not None) and not code:
        raise NeedsTrust(detail="this worker runs no code from tasks")
    if task.trainer != "keras":
        raise CannotTravel(what=f"the trainer {task.trainer[:80]!r}", where="the task", why="this worker has only keras", way_out="")
    return task


def _close(here: float, there: float, rtol: float) -> bool:
    if not (math.isfinite(here) and math.isfinite(there)):
        return repr(here) == repr(there)  # a model that gives nan gives it on both sides
    return abs(here - there) <= rtol * max(abs(here), abs(there), 1e-6)


def _described(error: Exception) -> frames.Error:
    fields: dict[str, Any] = {}
    match error:
        case ModelMismatch():
            reason, fields = "mismatch", {"kernel": error.fields["kernel"], "worker_loss": error.fields["worker_loss"]}
        case CannotTravel() | NeedsTrust():
            reason = "refused"
        case StoreError():
            reason = "store"
        case MemoryError() | tf.errors.ResourceExhaustedError():
            reason = "memory"
        case _:
            reason = "exception"
    text = "".join(traceback.format_exception(error))
    if len(text) > _TRACEBACK_LIMIT:
        text = "…\n" + text[-_TRACEBACK_LIMIT:]
    return frames.Error(reason, type(error).__name__, str(error)[:_MESSAGE_LIMIT], text, fields)
