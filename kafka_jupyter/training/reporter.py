"""The callback that speaks with the supervisor: rows out, requests in."""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kafka_jupyter.protocol import frames
from kafka_jupyter.protocol.rows import Metrics
from kafka_jupyter.training import equipment

FIRST_EPOCH_S = 0.5  # of the first epoch in which requests wait


class Reporter(keras.callbacks.Callback):  # type: ignore[misc]
    """Stands last, so that it sees what all others have put into the logs.

    `stop` and `apply` are called by the thread that listens; everything else happens in the one that trains.
    """

    def __init__(
        self,
        send: Callable[[frames.Frame], None],
        check: Callable[[float, float], float],
        period_s: float,
        place: tuple[int, int] = (0, 0),
        changes: Sequence[frames.Change] = (),
    ) -> None:
        """`place`: (epoch, step) where the training begins. `changes`: settings to be applied again, in this order: at their places,
        or at once where those lie behind."""
        super().__init__()
        self._send = send
        self._check = check
        self._period_s = period_s
        self._requests: collections.deque[frames.Apply] = collections.deque()
        self._stop = False
        self._due_s = -math.inf  # of time.monotonic: when the next batch is told
        self._steps = math.inf  # of the epoch, where they are known
        self._waiting: tuple[int, Any] | None = None  # the epoch's last batch, which has not been told, and its logs
        self._epoch, self._step = self._begun = place
        self._changes = collections.deque(changes)
        self._begun_at = 0.0
        self._first_batch_at: float | None = None
        self.stopped_early = False
        self.epochs_done = place[0]
        self.metrics: Metrics = {}

    def stop(self) -> None:
        self._stop = True

    def apply(self, request: frames.Apply) -> None:
        self._requests.append(request)

    # --- called by Keras

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002
        self._change_again(self._begun)
        self._send(frames.Ready(*self._begun, device=equipment.device(), versions=equipment.versions()))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self._epoch, self._step, self._begun_at = epoch, 0, time.monotonic()
        self._steps = self.params["steps"] or math.inf

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.monotonic()
        if now < self._due_s and batch + 1 < self._steps and not (self._requests or self._changes or self._stop):
            self._step = batch + 1  # most batches, at a cost that a training of a thousand of them a second does not notice
            return
        steps = self.params["steps"]
        self._step = step = min(batch + 1, steps) if steps else batch + 1  # several steps per execution may point beyond the end
        if now >= self._due_s:
            self._waiting = None
            self._due_s = now + self._period_s
            self._send(frames.Batch(self._epoch, step, steps, flat_metrics(logs)))
        elif step == steps:
            self._waiting = (step, logs)
        if self._first_batch_at is None:
            self._first_batch_at = now
        self._serve((self._epoch, step), now - self._first_batch_at > FIRST_EPOCH_S)
        if self._stop and not self.model.stop_training:
            self.model.stop_training = True
            self.stopped_early = self._step != steps or self._epoch + 1 < self.params["epochs"]

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """A long validation must not hide that the epoch's last batch is done, nor look like a stall."""
        if time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + self._period_s
            if self._waiting is None:
                self._send(frames.Alive())
            else:
                step, told = self._waiting
                self._send(frames.Batch(self._epoch, step, step, flat_metrics(told)))
            self._waiting = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._waiting = None
        self.epochs_done = epoch + 1
        self.metrics = flat_metrics(logs)
        self._send(frames.Epoch(epoch, self._step, self.metrics, time.monotonic() - self._begun_at, round(time.time() * 1000)))
        self._serve((epoch + 1, 0), checks=True)
        if self._stop and not self.model.stop_training:  # asked for while the epoch was validated
            self.model.stop_training = True
            self.stopped_early = epoch + 1 < self.params["epochs"]

    def on_train_end(self, logs: Any = None) -> None:  # noqa: ARG002
        self._serve((self.epochs_done, 0), checks=True)

    # --- requests

    def _serve(self, place: tuple[int, int], checks: bool) -> None:
        """`checks`: whether to look at the loss as well. In the first epoch that waits for its end, if it is soon: the epoch's numbers
        are what a person waits for."""
        self._change_again(place)
        while self._requests and (checks or "check_loss" not in self._requests[0].settings):
            request = self._requests.popleft()
            done = self._change(request.settings)
            if done:  # what people want now must not be undone by what they wanted before
                self._changes.clear()
            if "check_loss" in request.settings:
                done["worker_loss"] = self._check(request.settings["check_loss"], request.settings.get("check_rtol", 1e-3))
            self._send(frames.AppliedFrame(request.request_id, done, *place))

    def _change_again(self, place: tuple[int, int]) -> None:
        while self._changes and (self._changes[0].epoch, self._changes[0].step) <= place:
            self._change(self._changes.popleft().settings)

    def _change(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return self._set_learning_rate(settings["learning_rate"]) if "learning_rate" in settings else {}

    def _set_learning_rate(self, wanted: Any) -> dict[str, Any]:
        """A request that makes no sense is answered, never a reason to end a training."""
        try:
            value = float(wanted)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError("a learning rate is a number, at least 0")
            self.model.optimizer.learning_rate = value
        except (TypeError, ValueError, AttributeError) as error:
            return {"refused": str(error)[:500]}
        return {"learning_rate": value}


def flat_metrics(logs: Mapping[str, Any] | None) -> Metrics:
    """Logs as records hold them: a metric that is an array becomes name_0, name_1, …; what is not finite becomes None."""
    flat: Metrics = {}
    for name, value in (logs or {}).items():
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            continue  # RemoteMonitor and the like may put anything there
        if array.ndim == 0:
            flat[name] = _finite(array.item())
        else:
            flat.update((f"{name}_{i}", _finite(item)) for i, item in enumerate(array.reshape(-1).tolist()))
    return flat


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
