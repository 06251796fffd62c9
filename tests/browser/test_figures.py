"""The figures of the page, measured as `make bench` does (benchmarks/results.md has its targets and what it found), on a machine that does
much else: what is held to here is a few times what a person would notice."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from benchmarks import page
from benchmarks.bench import Stack
from benchmarks.report import p50_p99, percentile
from kafka_jupyter import Client
from tests.browser.stage import Stage

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture
def stack(stage: Stage) -> Iterator[Stack]:
    with contextlib.closing(Client(stage.scene.settings)) as client:
        worker: subprocess.Popen[bytes] = stage.scene.workers.all[0].process
        yield Stack(stage.scene.settings, client, worker)


def test_the_end_of_an_epoch_is_in_the_page_at_once(stage: Stage, stack: Stack, chromium: Browser) -> None:
    lags = page.epoch_lags(stage.lab, stack, chromium, epochs=12)
    print(f"epoch end in the child → text in the page: {p50_p99(lags)}")
    assert percentile(lags, 50) <= 0.5


def test_three_seconds_after_a_click_on_cancel_the_child_is_gone(stage: Stage, stack: Stack, chromium: Browser) -> None:
    seconds = page.cancel_seconds(stage.lab, stack, chromium, 0)
    print(f"click on Cancel → child gone: {seconds:.2f} s")
    assert seconds <= 3


def test_a_card_of_a_thousand_epochs_is_back_soon_after_a_reload(stage: Stage, stack: Stack, chromium: Browser) -> None:
    seconds = page.reload_seconds(stage.lab, stack, chromium, 2)
    print(f"reload → card of 1,000 epochs complete: {[round(s, 2) for s in seconds]} s")
    assert max(seconds) <= 4


def test_plugin_and_widget_are_light() -> None:
    plugin, widget = page.weights()
    print(f"gzip: plugin {plugin / 1024:.0f} KiB, widget {widget / 1024:.0f} KiB")
    assert plugin <= 150 << 10
    assert widget <= 60 << 10
