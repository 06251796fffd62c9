"""With no Kafka, and with one that comes, goes, comes back, or is another one."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from kafka_jupyter.brokers import local
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.server.limits import Limits
from kafka_jupyter.server.manager import Manager
from kafka_jupyter.settings import Settings
from tests.server.raw import Server, eventually
from tests.support.local import stopped_at_the_end
from tests.support.playing import Player

JARS = os.environ.get("M2_REPO") or str(pathlib.Path.home() / ".m2" / "repository")  # a test's HOME is empty


@pytest.fixture
def own(bare_settings: Settings, jp_environ: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Of a local Kafka that this test starts itself, and kills."""
    monkeypatch.setenv("M2_REPO", JARS)
    with stopped_at_the_end(bare_settings) as settings:
        yield settings


@pytest.fixture
def traits() -> dict[str, Any]:
    """Nothing configured: the local Kafka, if one runs."""
    return {"heartbeat_s": 0.2}


async def blocking(work: Any, *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


async def up(own: Settings) -> Log:
    await blocking(local.up, own, 1)
    return await blocking(lambda: Log.open(Cluster(local.resolve(own)), create=True))


async def answers(server: Server, path: str, status: int) -> bool:
    return (await server.get(path)).status == status


async def health(server: Server) -> Any:
    return (await server.get("health")).json


async def test_without_a_kafka_it_says_so_and_finds_the_one_that_is_started_later(server: Server, own: Settings) -> None:
    for path in ("runs", "runs/digits-3f2a9c01b7d4", "workers", "events"):
        answer = await server.get(path)
        assert answer.status == 503
        assert answer.json["message"].startswith("No Kafka is running")
    assert (await server.post("runs/digits-3f2a9c01b7d4/stop")).status == 503
    found = await health(server)
    assert found["status"] == "unavailable"
    assert "kafka-jupyter up" in found["message"]
    log = await up(own)
    assert await answers(server, "runs", 200)
    assert (await health(server))["status"] == "ok"
    log.close()


async def test_while_the_broker_is_away_it_says_reconnecting_and_catches_up_after(server: Server, own: Settings, manager: Manager) -> None:
    manager.limits = Limits(heartbeat_s=0.2, pulse_s=0.2)
    log = await up(own)
    player = Player.new(log)
    player.submit()
    player.claim()
    stream = await server.stream()
    await stream.until(lambda seen: seen and seen[-1].kind == "health", "it had begun")
    (pid,) = local.recorded(own).pids  # type: ignore[union-attr]
    os.kill(pid, signal.SIGKILL)
    await stream.until(lambda seen: seen[-1].kind == "health" and not seen[-1].data["reachable"], "the broker was missed")
    assert (await health(server))["status"] == "reconnecting"
    assert (await server.get(f"runs/{player.run_id}")).json["run"]["state"] == "CLAIMED"
    known = len(stream.seen)
    await blocking(local.up, own, 1)
    await stream.until(lambda seen: any(e.kind == "health" and e.data["reachable"] for e in seen[known:]), "it was found again")
    player.start()
    await stream.until(lambda seen: any(e.kind == "run" and e.data["state"] == "RUNNING" for e in seen), "the run went on")
    assert (await health(server))["status"] == "ok"
    log.close()


async def test_a_kafka_that_was_made_anew_resets_its_streams(server: Server, own: Settings, manager: Manager) -> None:
    manager.limits = Limits(heartbeat_s=0.2, pulse_s=0.2)
    log = await up(own)
    old = Player.new(log).whole()
    stream = await server.stream()
    await stream.until(lambda seen: seen and seen[-1].kind == "health", "it had begun")
    log.close()
    await blocking(local.down, own, True)
    log = await up(own)
    new = Player.new(log).whole()

    async def forgotten() -> bool:
        answer = await server.get("runs")
        return answer.status == 200 and [run["run_id"] for run in answer.json["runs"]] == [new.run_id]

    await eventually(forgotten, "the old Kafka's runs were still there", within=40)
    assert (await server.get(f"runs/{old.run_id}")).status == 404
    again = await server.stream("", stream.last_id)
    await again.until(lambda seen: seen, "it was answered")
    assert again.seen[0].kind == "reset"
    log.close()


class TestOfAConfiguredKafkaThatIsNotThere:
    @pytest.fixture
    def traits(self) -> dict[str, Any]:
        return {"bootstrap_servers": "127.0.0.1:1"}

    async def test_it_answers_within_five_seconds_with_the_address(self, server: Server) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        answers = await asyncio.gather(*(server.get("runs") for _ in range(5)))
        assert loop.time() - begin < 7  # 5 s, and what a busy machine takes
        for answer in answers:
            assert answer.status == 503
            assert "127.0.0.1:1" in answer.json["message"]


class TestOfAProfileThatIsNotThere:
    @pytest.fixture
    def traits(self) -> dict[str, Any]:
        return {"profile": "nowhere"}

    async def test_the_server_lives_and_names_it(self, server: Server) -> None:
        assert "nowhere" in (await health(server))["message"]
        assert (await server.get("runs")).status == 500
