"""A real Jupyter server with the extension, on the session's Kafka, under a base_url with a percent sign in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pytest_jupyter.jupyter_server import *  # noqa: F403  # fixtures and hooks for coroutine tests, for this folder only
from traitlets.config import Config

from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.server.handlers import MANAGER
from kafka_jupyter.server.manager import Manager
from kafka_jupyter.settings import Settings, env_name
from tests.server.raw import Server


@pytest.fixture
def log(settings: Settings) -> Iterator[Log]:
    """For playing runs; the topics are there."""
    log = Log.open(Cluster(settings), create=True)
    yield log
    log.close()


@pytest.fixture(autouse=True)
def cache(bare_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this test, not the person's."""
    monkeypatch.setenv(env_name("cache_dir"), str(bare_settings.cache_dir))


@pytest.fixture
def traits(settings: Settings) -> dict[str, Any]:
    """Of the extension. A test module may have its own."""
    known = {name: getattr(settings, name) for name in ("bootstrap_servers", "topic_prefix", "owner")}
    return {**known, "heartbeat_s": 0.2}


@pytest.fixture
def jp_server_config(traits: dict[str, Any], bare_settings: Settings) -> Config:
    own = {"local_kafka_dir": str(bare_settings.data_dir), **traits}
    return Config({"ServerApp": {"jpserver_extensions": {"kafka_jupyter": True}}, "KafkaJupyterApp": own})


@pytest.fixture
def manager(jp_serverapp: Any) -> Manager:
    found: Manager = jp_serverapp.web_app.settings[MANAGER]
    return found


@pytest.fixture
def server(http_server_client: Any, jp_base_url: str, jp_auth_header: dict[str, str], jp_asyncio_loop: Any) -> Iterator[Server]:
    server = Server(http_server_client.get_http_port(), jp_base_url, jp_auth_header)
    yield server
    jp_asyncio_loop.run_until_complete(server.close())
