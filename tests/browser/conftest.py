from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from kafka_jupyter.brokers import local
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.settings import Settings
from tests.browser.lab import PLUGIN, WITHOUT_SERVER_EXTENSION, Lab, running_chromium, running_lab
from tests.browser.stage import Stage, running_stage
from tests.support.scene import Scene
from tests.support.workers import workers

expect.set_options(timeout=30_000)  # by itself it waits 5 s, which kernel, server and browser may take on a busy machine


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A fresh browser profile."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1100})
    yield context
    context.close()


@pytest.fixture(scope="package")
def scene(kafka: local.Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Topics and a worker for all browser tests; notebooks, servers and worker share nothing but Kafka."""
    folder = tmp_path_factory.mktemp("scene")
    settings = Settings(
        owner="ada@test", data_dir=folder / "data", cache_dir=folder / "cache", bootstrap_servers=kafka.servers, topic_prefix="browser."
    )
    with contextlib.closing(Log.open(Cluster(settings), create=True)) as log, workers(settings, folder) as started:
        scene = Scene(settings, log, started)
        started.start("box", slots=2)
        try:
            yield scene
        finally:
            scene.close()


@pytest.fixture(scope="package")
def whole_stage(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running_stage(scene, tmp_path_factory.mktemp("lab")) as stage:
        yield stage


@pytest.fixture
def stage(whole_stage: Stage) -> Iterator[Stage]:
    """JupyterLab with plugin and server extension."""
    yield whole_stage
    whole_stage.clear()


@pytest.fixture
def stage_without_plugin(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running_stage(scene, tmp_path_factory.mktemp("without-plugin"), disabled=[PLUGIN]) as stage:
        yield stage
        stage.clear()


@pytest.fixture(scope="package")
def without_extension(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab with the plugin, on a server whose extension is not enabled."""
    with running_lab(tmp_path_factory.mktemp("without-extension"), WITHOUT_SERVER_EXTENSION) as lab:
        yield lab


@pytest.fixture(scope="package")
def bare_stage(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """JupyterLab with neither, as VS Code and Colab are: only the kernel knows Kafka."""
    with running_stage(scene, tmp_path_factory.mktemp("bare"), WITHOUT_SERVER_EXTENSION, disabled=[PLUGIN]) as stage:
        yield stage
