"""What this machine can train with. Runs in a throw-away child: looking at devices starts threads and, on a GPU, CUDA."""

from __future__ import annotations

import platform
import socket

import keras
import numpy as np
import tensorflow as tf

from kafka_jupyter.protocol import frames
from kafka_jupyter.training import cage


def main(sock: socket.socket) -> None:
    sock.sendall(frames.pack(look()))


def look() -> frames.Equipment:
    names = [_name(device) for device in tf.config.list_physical_devices("GPU")]
    return frames.Equipment(versions=versions(), device="gpu" if names else "cpu", devices=names or ["CPU"], cage=cage.held())


def versions() -> dict[str, str]:
    """Versions by name; under `backend` stands the name of the backend that Keras uses."""
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": keras.config.backend(),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
    }


def device() -> str:
    return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"


def _name(gpu: tf.config.PhysicalDevice) -> str:
    details = tf.config.experimental.get_device_details(gpu)
    return f"{gpu.name.removeprefix('/physical_device:')} {details.get('device_name', '')}".strip()
