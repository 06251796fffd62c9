"""The Jupyter server extension: REST and server-sent events under `<base_url>/kafka-jupyter/`."""

from kafka_jupyter.server.app import KafkaJupyterApp as App

__all__ = ["App"]
