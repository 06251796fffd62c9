"""The sidebar where there is nothing to see: it says why and what to do next, asks no more than it must, and goes on by itself."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import re
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Request, Route, expect

from kafka_jupyter.brokers import local
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.settings import Settings
from tests.browser.lab import BASE, Lab, running_lab
from tests.browser.panel import Panel
from tests.support.authorizers import DENIED, RunsOnDemand
from tests.support.crowd import Member, play, succeed, tell_epochs
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

PREFIX = "states."
HIDE = """hidden => {
  Object.defineProperty(document, 'hidden', {configurable: true, get: () => hidden});
  document.dispatchEvent(new Event('visibilitychange'));
}"""


@pytest.fixture(scope="module")
def log(kafka: local.Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    folder = tmp_path_factory.mktemp("states")
    settings = Settings(
        owner="ada@test", data_dir=folder / "data", cache_dir=folder / "cache", bootstrap_servers=kafka.servers, topic_prefix=PREFIX
    )
    with contextlib.closing(Log.open(Cluster(settings), create=True)) as log:
        yield log


@pytest.fixture(scope="module")
def lab(log: Log, kafka: local.Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    ours = {"KAFKA_JUPYTER_BOOTSTRAP_SERVERS": kafka.servers, "KAFKA_JUPYTER_TOPIC_PREFIX": PREFIX, "KAFKA_JUPYTER_OWNER": "ada@test"}
    authorizer = f"--ServerApp.authorizer_class={RunsOnDemand.__module__}.{RunsOnDemand.__name__}"
    with running_lab(tmp_path_factory.mktemp("states-lab"), authorizer, environment=ours) as lab:
        yield lab


def played(log: Log, name: str) -> Member:
    """A run that goes on until somebody writes its end."""
    member = Member(name, ends=None, epochs=20, done=4)
    play(log, [member])
    return member


NOTE_FETCHES = """(() => {
  const before = window.fetch;
  window.fetched = [];
  window.fetch = (...given) => {
    window.fetched.push([performance.now(), String(given[0]?.url ?? given[0])]);
    return before(...given);
  };
})()"""


# React's scheduler goes by a MessageChannel.
LATE_EFFECTS = """(() => {
  const post = MessagePort.prototype.postMessage;
  MessagePort.prototype.postMessage = function (...given) { setTimeout(() => post.apply(this, given), 1500); };
})()"""


class Asked:
    """What a page asks of the extension from now on: (seconds, path behind `kafka-jupyter/`, headers)."""

    def __init__(self, page: Page) -> None:
        self.all: list[tuple[float, str, dict[str, str]]] = []
        self._page = page
        page.add_init_script(NOTE_FETCHES)
        page.on("request", self._note)

    def times(self, path: str) -> list[float]:
        """Seconds at which it was asked for this, by the page's clock: ours says when we heard of it, which may be late."""
        found: list[float] = self._page.evaluate("path => fetched.filter(([, url]) => url.includes(path)).map(([at]) => at / 1000)", path)
        return found

    def _note(self, request: Request) -> None:
        _, ours, path = request.url.partition(f"{BASE}kafka-jupyter/")
        if ours:
            self.all.append((time.monotonic(), path.split("?")[0], request.headers))

    @property
    def paths(self) -> list[str]:
        return [path for _, path, _ in self.all]


def text_of(panel: Panel) -> Any:
    return panel.node.locator(".kj-nothing")


def test_where_the_server_extension_is_off_it_says_how_to_enable_it(without_extension: Lab, context: BrowserContext) -> None:
    page = context.new_page()
    asked = Asked(page)
    panel = Panel.open(without_extension, context, page=page)
    expect(text_of(panel)).to_contain_text("The server extension of kafka_jupyter does not answer")
    expect(text_of(panel).locator("code")).to_have_text("jupyter server extension enable kafka_jupyter")
    expect(panel.node.locator(".kj-standing")).to_have_text("off")
    known = len(asked.all)
    panel.button("Try again").click()
    expect(text_of(panel)).to_contain_text("does not answer")
    wait_until(lambda: page.evaluate("1") and len(asked.all) > known, "it did not ask again")
    assert set(asked.paths) == {"events"}
    assert panel.errors == []


def test_what_is_told_between_the_first_picture_and_the_first_effect_is_shown(without_extension: Lab, context: BrowserContext) -> None:
    """React runs effects when it finds the time: on a busy machine long after the picture, and the one answer there is may come first."""
    page = context.new_page()
    page.add_init_script(LATE_EFFECTS)
    held: list[Route] = []
    page.route("**/kafka-jupyter/events*", lambda route: held.append(route))  # Playwright takes no built-in function
    panel = Panel.open(without_extension, context, page=page)
    expect(text_of(panel)).to_contain_text("Loading")
    wait_until(lambda: page.evaluate("1") and held, "nothing was asked")
    held[0].continue_()
    expect(text_of(panel)).to_contain_text("The server extension of kafka_jupyter does not answer")


def test_without_a_kafka_it_says_how_to_start_one_and_then_how_to_begin(
    kafka: local.Endpoint, context: BrowserContext, tmp_path: pathlib.Path
) -> None:
    prefix = "nothing-yet."
    ours = {"DATA_DIR": str(tmp_path / "data"), "CACHE_DIR": str(tmp_path / "cache"), "TOPIC_PREFIX": prefix}
    (tmp_path / "lab").mkdir()
    with running_lab(tmp_path / "lab", environment={f"KAFKA_JUPYTER_{name}": value for name, value in ours.items()}) as lab:
        page = context.new_page()
        asked = Asked(page)
        panel = Panel.open(lab, context, page=page)
        nothing = text_of(panel)
        expect(nothing).to_contain_text("No Kafka is running here and none is configured")
        expect(nothing.locator("code")).to_have_text("kafka-jupyter up")
        expect(panel.node.locator(".kj-standing")).to_have_text("no Kafka")
        assert set(asked.paths) == {"events"}, "there is nothing else to ask for"
        (tmp_path / "data").symlink_to(pathlib.Path(kafka.folder).parent)  # a Kafka that runs, without our topics
        panel.button("Try again").click()
        expect(nothing).to_contain_text("`kafka-jupyter topics init` creates what is missing")
        settings = Settings(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache", topic_prefix=prefix)
        with contextlib.closing(Log.open(Cluster(local.resolve(settings)), create=True)) as log:
            panel.hide()
            panel.show()  # whoever looks asks at once
            expect(nothing.locator("code")).to_have_text("%%kafka_train my-first-run")
            expect(panel.node.locator(".kj-standing")).to_have_text("live")
            expect(panel.row(played(log, "first").run_id)).to_have_attribute("data-state", "RUNNING")
        assert panel.errors == []


def test_who_may_not_see_runs_is_told_so_and_sees_them_once_allowed(log: Log, lab: Lab, context: BrowserContext) -> None:
    run = played(log, "secret")
    (lab.root / DENIED).touch()
    panel = Panel.open(lab, context)
    expect(text_of(panel)).to_contain_text("Not allowed")
    expect(text_of(panel)).to_contain_text("ask who operates it. It said: User is not authorized to read on resource: kafka_jupyter.")
    expect(panel.node.locator(".kj-standing")).to_have_text("not allowed")
    (lab.root / DENIED).unlink()
    panel.button("Try again").click()
    expect(panel.row(run.run_id)).to_be_visible()
    assert panel.errors == []


def test_while_kafka_is_away_the_list_says_so_and_then_goes_on(log: Log, lab: Lab, context: BrowserContext, kafka: local.Endpoint) -> None:
    run = played(log, "patient")
    panel = Panel.open(lab, context)
    expect(panel.row(run.run_id)).to_have_attribute("data-state", "RUNNING")
    standing = panel.node.locator(".kj-standing")
    (broker,) = kafka.pids
    os.kill(broker, signal.SIGSTOP)
    try:
        expect(standing).to_have_text("reconnecting…")
        expect(panel.row(run.run_id)).to_have_attribute("data-state", "RUNNING")
    finally:
        os.kill(broker, signal.SIGCONT)
    expect(standing).to_have_text("live")
    succeed(log, run)
    expect(panel.row(run.run_id)).to_have_attribute("data-state", "SUCCEEDED")
    assert panel.errors == []


def test_a_server_that_is_killed_and_started_again_brings_the_list_up_to_date(log: Log, lab: Lab, context: BrowserContext) -> None:
    stays, ends = played(log, "stays"), played(log, "ends")
    page = context.new_page()
    asked = Asked(page)
    panel = Panel.open(lab, context, page=page)
    for run in (stays, ends):
        expect(panel.row(run.run_id)).to_have_attribute("data-state", "RUNNING")
    standing = panel.node.locator(".kj-standing")
    expect(standing).to_have_text("live")
    known = len(asked.all)
    lab.kill()
    expect(standing).to_have_text("reconnecting…")
    expect(panel.row(ends.run_id)).to_have_attribute("data-state", "RUNNING")  # as it was known last
    succeed(log, ends)
    lab.start()
    expect(standing).to_have_text("live")
    expect(panel.row(ends.run_id)).to_have_attribute("data-state", "SUCCEEDED")
    expect(panel.row(stays.run_id)).to_have_attribute("data-state", "RUNNING")
    tries = asked.all[known:]
    assert {path for _, path, _ in tries} == {"events"}, "only the stream asks whether the server is back, and it brings what was missed"
    assert all(headers["last-event-id"] for _, _, headers in tries)
    times = asked.times("/kafka-jupyter/events")[-len(tries) :]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(later > 1.1 * earlier for earlier, later in itertools.pairwise(pauses)), f"it waits longer each time: {pauses}"
    assert [error for error in panel.errors if "kafka-jupyter" in error] == []  # JupyterLab raises some itself while its server is away


def test_a_hidden_page_asks_for_nothing_and_misses_nothing(log: Log, lab: Lab, context: BrowserContext) -> None:
    shown, listed = played(log, "shown"), played(log, "listed")
    page = context.new_page()
    page.clock.install()
    asked = Asked(page)
    panel = Panel.open(lab, context, page=page)
    panel.row(shown.run_id).click()
    far = panel.node.locator(".kj-Card .kj-when")
    expect(far).to_have_text(re.compile("epoch 4 of 20"))
    expect(panel.node.locator(".kj-standing")).to_have_text("live")
    wait_until(lambda: lab.api("kafka-jupyter/health")["streams"] == 1, "the page holds more than one stream")
    page.evaluate(HIDE, True)
    page.clock.fast_forward(11_000)
    wait_until(lambda: lab.api("kafka-jupyter/health")["streams"] == 0, "the connection was not given back")
    known = len(asked.all)
    tell_epochs(log, shown, 4, 5)
    succeed(log, listed)
    wait_until(lambda: lab.api(f"kafka-jupyter/runs/{listed.run_id}")["run"]["terminal"], "the server does not know")
    page.clock.fast_forward(600_000)  # whatever waits for its time has had it
    assert asked.paths[known:] == []
    expect(far).to_have_text(re.compile("epoch 4 of 20"))
    page.evaluate(HIDE, False)
    expect(far).to_have_text(re.compile("epoch 9 of 20"))
    panel.button("‹ All runs").click()
    expect(panel.row(listed.run_id)).to_have_attribute("data-state", "SUCCEEDED")
    assert asked.paths[known:] == ["events"]
    assert asked.all[-1][2]["last-event-id"]
    assert panel.errors == []
