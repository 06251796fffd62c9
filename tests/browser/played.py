"""A JupyterLab over topics of its own, into which runs were played: for what needs no worker."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Iterator

from kafka_jupyter.brokers import local
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.settings import Settings
from tests.browser.lab import Lab, running_lab


@contextlib.contextmanager
def topics_of(kafka: local.Endpoint, folder: pathlib.Path, name: str) -> Iterator[Log]:
    settings = Settings(
        owner="ada@test",
        data_dir=folder / "data",
        cache_dir=folder / "cache",
        bootstrap_servers=kafka.servers,
        topic_prefix=f"{name}.",
    )
    with contextlib.closing(Log.open(Cluster(settings), create=True)) as log:
        yield log


@contextlib.contextmanager
def lab_over(kafka: local.Endpoint, root: pathlib.Path, name: str) -> Iterator[Lab]:
    """Ada's; its list loads all that a server gives at once."""
    ours = {"BOOTSTRAP_SERVERS": kafka.servers, "TOPIC_PREFIX": f"{name}.", "OWNER": "ada@test", "DELIVERY_TIMEOUT_S": "5"}
    with running_lab(root, environment={f"KAFKA_JUPYTER_{key}": value for key, value in ours.items()}) as lab:
        lab.api("kafka-jupyter/runs?limit=1")  # the log has been read
        set_panel(lab, rows=500)
        yield lab


def set_panel(lab: Lab, **settings: object) -> None:
    lab.api("lab/api/settings/kafka-jupyter:panel", "PUT", {"raw": json.dumps(settings)})
