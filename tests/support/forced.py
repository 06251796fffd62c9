"""Children that load what a worker would have refused: what is left then of an attack is what Keras and the cage stop."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

import keras

from kafka_jupyter.models import allowlist, rebuild
from kafka_jupyter.training import child


def _anything(config: bytes) -> dict[str, Any]:
    return dict(json.loads(config))


def main(sock: socket.socket) -> None:
    """A worker's child without the allow-list (and without what makes a first step quick: it takes half of the time here)."""
    child.warm_up = lambda: None
    allowlist.check = _anything
    child.main(sock)


def switched_off(sock: socket.socket) -> None:
    """The same, where somebody has switched off Keras' safe mode for the process."""
    keras.config.enable_unsafe_deserialization()
    main(sock)


def unsafe(sock: socket.socket) -> None:
    """The same, and we do not switch it on: here the canaries sing."""
    rebuild.SafeModeScope = lambda _: contextlib.nullcontext()
    switched_off(sock)
