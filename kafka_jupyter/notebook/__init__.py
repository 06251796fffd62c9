"""The notebook: cell transformer, magics, card. `load` and `unload` are what IPython calls."""

from __future__ import annotations

from typing import Any


def load(shell: Any) -> None:
    """Quick: neither Keras nor a Kafka client is imported before the first use."""
    from kafka_jupyter.notebook.extension import Extension

    Extension(shell).load()


def unload(shell: Any) -> None:
    shell.magics_manager.registry["KafkaMagics"].extension.unload()
