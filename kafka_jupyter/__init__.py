"""Training over Apache Kafka from a notebook cell. Everything loads late: `import kafka_jupyter` costs a few milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kafka_jupyter.capture.block import train
    from kafka_jupyter.client import Client, TrainingRun, attach, runs
    from kafka_jupyter.settings import Settings

__version__ = "0.1.0"
__all__ = ["Client", "Settings", "TrainingRun", "attach", "runs", "train"]

_HOMES = {
    "Client": "kafka_jupyter.client",
    "TrainingRun": "kafka_jupyter.client",
    "attach": "kafka_jupyter.client",
    "runs": "kafka_jupyter.client",
    "train": "kafka_jupyter.capture.block",
    "Settings": "kafka_jupyter.settings",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def load_ipython_extension(shell: Any) -> None:
    from kafka_jupyter.notebook import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    from kafka_jupyter.notebook import unload

    unload(shell)


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": "kafka-jupyter"}]


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from kafka_jupyter.server import App

    return [{"module": "kafka_jupyter.server", "app": App}]
