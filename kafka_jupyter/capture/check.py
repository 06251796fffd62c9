"""The safety net: the first batch's loss, computed here and on the worker, must be the same (design §3, recipes).

It is computed after the submit, so that nobody waits for it, and at most once a model: a model that arrived once arrives again.
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from kafka_jupyter import redact
from kafka_jupyter.client import Client
from kafka_jupyter.errors import KafkaJupyterError
from kafka_jupyter.protocol import control, ids

if TYPE_CHECKING:
    from kafka_jupyter.models.capture import CapturedFit

logger = redact.logger(__name__)

# A thread that computes keeps the interpreter for 5 ms at a time: the cell that has just submitted ends before this one begins.
CELL_FIRST_S = 0.05
_checked: weakref.WeakSet[Any] = weakref.WeakSet()


def due(model: Any) -> bool:
    """Whether this model has not been checked yet; from now on it has."""
    if model in _checked:
        return False
    _checked.add(model)
    return True


def check(client: Client, run_id: str, captured: CapturedFit) -> None:
    """In the foreground: the model stands still, because the cell waits."""
    _send(client, run_id, captured, captured.model)


def check_later(client: Client, run_id: str, captured: CapturedFit) -> threading.Thread:
    """In the background: on a copy made from what was sent, because the person goes on."""

    def work() -> None:
        time.sleep(CELL_FIRST_S)
        try:
            _send(client, run_id, captured, _copy(captured))
        except Exception as problem:  # noqa: BLE001  # a net that tears must not stop a training
            logger.info("run %s goes unchecked: %s", run_id, problem)

    thread = threading.Thread(target=work, name="kafka_jupyter-check", daemon=True)
    thread.start()
    return thread


def _copy(captured: CapturedFit) -> Any:
    from kafka_jupyter.models import rebuild

    handle, path = tempfile.mkstemp(suffix=".safetensors")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(captured.state)
        return rebuild.build(captured.config, path)
    finally:
        os.unlink(path)


def _send(client: Client, run_id: str, captured: CapturedFit, model: Any) -> None:
    from kafka_jupyter.models import probe

    weights = captured.fit.class_weight
    try:
        loss = probe.first_batch_loss(
            model,
            captured.structure,
            captured.leaves,
            class_weight=None if weights is None else {int(key): value for key, value in weights.items()},
        )
    except KafkaJupyterError:
        raise
    except Exception as problem:  # noqa: BLE001  # a net that tears must not stop a training: it meets the same error itself
        logger.info("run %s goes unchecked: %s", run_id, problem)
        return
    if not math.isfinite(loss):
        return
    settings = {"check_loss": loss, "check_rtol": captured.check_rtol}
    request = control.SettingsRequested(run_id=run_id, request_id=ids.new_request_id(), by=client.settings.owner, settings=settings)
    client.connection().log.send_control(request)
