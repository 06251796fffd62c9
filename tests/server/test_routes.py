"""What the routes answer, of runs that really are in the log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

import pytest

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.server.manager import Manager
from tests.server.raw import Server, eventually
from tests.support.playing import Player


async def known(manager: Manager, run_id: str, state: str) -> None:
    """Waits until the server has read that."""
    follower = (await manager.session()).follower
    await eventually(lambda: str(getattr(follower.state(run_id), "state", "")) == state, f"{run_id} never became {state}")


async def test_runs_are_listed_newest_first_in_pages(server: Server, log: Log) -> None:
    played = [Player.new(log, name=f"net-{i}").whole() for i in range(5)]
    answer = (await server.get("runs?limit=2&offset=1")).json
    assert answer["total"] == 5
    assert [run["run_id"] for run in answer["runs"]] == [played[3].run_id, played[2].run_id]
    assert answer["runs"][0]["state"] == "SUCCEEDED"
    assert answer["runs"][0]["v"] == 1


async def test_runs_are_found_by_state_name_owner_and_text(server: Server, log: Log, manager: Manager) -> None:
    done, waiting = Player.new(log, name="digits").whole(), Player.new(log, name="wide-net")
    waiting.submit()
    await known(manager, waiting.run_id, "QUEUED")

    async def ids(query: str) -> list[str]:
        return [run["run_id"] for run in (await server.get(f"runs?{query}")).json["runs"]]

    assert await ids("state=queued,running") == [waiting.run_id]
    assert await ids("state=SUCCEEDED&name=digits") == [done.run_id]
    assert await ids("name=digits&q=wide") == []
    assert await ids("q=WIDE") == [waiting.run_id]
    assert len(await ids("owner=ada%40test")) == 2
    assert await ids("owner=bob") == []


async def test_a_waiting_run_says_its_place_and_what_it_waits_for(server: Server, log: Log, manager: Manager) -> None:
    first, second = Player.new(log), Player.new(log)
    for player in (first, second):
        player.submit()
        await known(manager, player.run_id, "QUEUED")
    cards = {run["run_id"]: run for run in (await server.get("runs")).json["runs"]}
    assert (cards[first.run_id]["queue"], cards[second.run_id]["queue"]) == (1, 2)
    assert "none is there" in cards[first.run_id]["waiting"]


async def test_a_run_comes_with_its_rows_and_a_cursor(server: Server, log: Log) -> None:
    player = Player.new(log, epochs=3).whole()
    answer = (await server.get(f"runs/{player.run_id}")).json
    assert answer["run"]["state"] == "SUCCEEDED"
    assert [(row["attempt"], row["type"], row["epoch"]) for row in answer["rows"]] == [(1, "epoch", i) for i in range(3)]
    assert answer["rows"][0]["metrics"] == {"loss": 1.0}
    stream = await server.stream(f"?runs={player.run_id}&cursor={answer['cursor']}")
    await stream.until(lambda seen: seen and seen[-1].kind == "health", "the beginning was told")
    assert stream.of("metrics") == []
    await stream.close()


async def test_rows_of_a_run_that_ended_before_the_server_started_are_read_from_kafka(server: Server, log: Log) -> None:
    players = [Player.new(log, epochs=4).whole() for _ in range(3)]
    for player in players:
        rows = (await server.get(f"runs/{player.run_id}")).json["rows"]
        assert [row["epoch"] for row in rows] == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["stop", "cancel"])
async def test_a_request_is_appended_with_who_asked(server: Server, log: Log, manager: Manager, kind: str) -> None:
    player = Player.new(log)
    player.submit()
    player.claim()
    player.start()
    await known(manager, player.run_id, "RUNNING")
    answer = await server.post(f"runs/{player.run_id}/{kind}", body=b'{"reason": "it overfits"}')
    assert answer.status == 202
    request_id = answer.json["request_id"]
    await known(manager, player.run_id, {"stop": "STOPPING", "cancel": "CANCELLING"}[kind])
    state = (await manager.session()).follower.state(player.run_id)
    assert state is not None
    assert state.known_requests == (request_id,)
    assert state.ended_by


async def test_the_same_request_id_sent_twice_is_one_request(server: Server, log: Log, manager: Manager) -> None:
    player = Player.new(log)
    player.submit()
    player.claim()
    await known(manager, player.run_id, "CLAIMED")
    for _ in range(2):
        assert (await server.post(f"runs/{player.run_id}/stop", body=b'{"request_id": "once"}')).status == 202
    follower = (await manager.session()).follower
    await eventually(lambda: getattr(follower.state(player.run_id), "dropped", 0) == 1, "the second one was never read")
    state = follower.state(player.run_id)
    assert state is not None
    assert state.known_requests == ("once",)


@pytest.mark.parametrize("kind", ["stop", "cancel"])
async def test_another_persons_run_is_asked_to_end_only_with_force(server: Server, log: Log, manager: Manager, kind: str) -> None:
    player = Player.new(log, owner="bob@elsewhere")
    player.submit()
    player.claim()
    player.start()
    await known(manager, player.run_id, "RUNNING")
    for body in (b"", b'{"force": false}'):
        answer = await server.post(f"runs/{player.run_id}/{kind}", body=body)
        assert (answer.status, answer.json["error"]) == (403, "NotYourRun")
        assert answer.json["message"] == f"Run {player.run_id} belongs to bob@elsewhere. Ask with force if you mean it."
    assert (await server.post(f"runs/{player.run_id}/{kind}", body=b'{"force": true, "request_id": "meant"}')).status == 202
    await known(manager, player.run_id, {"stop": "STOPPING", "cancel": "CANCELLING"}[kind])
    state = (await manager.session()).follower.state(player.run_id)
    assert state is not None
    assert state.known_requests == ("meant",)


async def test_a_run_that_has_ended_cannot_be_stopped(server: Server, log: Log) -> None:
    player = Player.new(log).whole()
    answer = await server.post(f"runs/{player.run_id}/stop")
    assert answer.status == 409
    assert "SUCCEEDED" in answer.json["message"]


async def test_an_unknown_run_is_404_with_the_nearest_ids(server: Server, log: Log) -> None:
    player = Player.new(log).whole()
    wrong = player.run_id[:-1] + ("0" if player.run_id[-1] != "0" else "1")
    for made in (server.get(f"runs/{wrong}"), server.post(f"runs/{wrong}/cancel")):
        answer = await made
        assert answer.status == 404
        assert player.run_id in answer.json["message"]


HOSTILE = ["%0d%0aX-Injected:%201", "<script>alert(1)<%2fscript>", "..%2f..%2fetc", "%ff%fe", "a" * 81, "Digits", "%25s%25n", "%00"]


@pytest.mark.parametrize("text", HOSTILE)
async def test_hostile_text_as_a_run_id_is_refused_and_goes_nowhere(server: Server, log: Log, text: str) -> None:
    for made in (
        server.get(f"runs/{text}"),
        server.post(f"runs/{text}/stop"),
        server.post(f"runs/{text}/retry"),
        server.get(f"events?runs={text}"),
        server.get(f"output?runs={text}"),
    ):
        answer = await made
        assert answer.status == 400, answer.body
        assert "x-injected" not in answer.headers
        assert answer.headers["content-type"] == "application/json"
        assert b"<script>" not in answer.body


BAD_BODIES = [
    b"{",
    b"[]",
    b'"stop"',
    b"\xff\xfe",
    b'{"reason": 3}',
    b'{"request_id": "a b"}',
    b'{"request_id": 7}',
    b'{"force": "yes"}',
    b"[" * 100_000,
    b'{"x": ' + b"[" * 100_000,
    b'{"reason": "\\ud800"}',
]


@pytest.mark.parametrize("body", [*BAD_BODIES, json.dumps({"reason": "x" * 501}).encode()])
async def test_a_bad_body_is_400_and_asks_for_nothing(server: Server, log: Log, manager: Manager, body: bytes) -> None:
    player = Player.new(log)
    player.submit()
    await known(manager, player.run_id, "QUEUED")
    answer = await server.post(f"runs/{player.run_id}/stop", body=body)
    assert answer.status == 400
    state = (await manager.session()).follower.state(player.run_id)
    assert state is not None
    assert state.known_requests == ()


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "limit=-1", "offset=-1", "offset=1e3", "state=GONE", "limit=%C2%B2"])
async def test_a_bad_query_is_400(server: Server, log: Log, query: str) -> None:
    answer = await server.get(f"runs?{query}")
    assert answer.status == 400
    assert answer.json["message"]


async def test_workers_and_health_say_who_is_there(server: Server, log: Log, manager: Manager) -> None:
    log.send_worker(WorkerInfo(worker_id="box-1-ab", name="box-1", slots=2, device="gpu"))
    log.send("run_control", "junk", b"\xff not a record", "heartbeat")
    log.producer.flush(10)
    player = Player.new(log).whole()
    await known(manager, player.run_id, "SUCCEEDED")

    async def workers() -> Any:
        return (await server.get("workers")).json["workers"]

    (worker,) = await eventually(workers, "the worker was never seen")
    assert (worker["worker_id"], worker["slots"], worker["device"]) == ("box-1-ab", 2, "gpu")

    async def caught_up() -> Any:
        health = (await server.get("health")).json
        return health if health["lag"] == 0 and health["junk"] else None

    health = await eventually(caught_up, "the reader never caught up")
    assert health["status"] == "ok"
    assert health["junk"] == {"run_control": 1}
    assert (health["runs"], health["workers"]) == (1, 1)
    assert health["versions"]["confluent-kafka"]


async def test_many_first_requests_open_kafka_once(server: Server, log: Log, manager: Manager) -> None:
    asked: list[Awaitable[Any]] = [server.get("runs") for _ in range(8)]
    assert [answer.status for answer in await asyncio.gather(*asked)] == [200] * 8
    sessions = {id(await manager.session()) for _ in range(3)}
    assert len(sessions) == 1


async def test_a_run_of_a_newer_version_is_shown_as_read_only(server: Server, log: Log, manager: Manager) -> None:
    player = Player.new(log)
    player.submit()
    value = json.dumps({"type": "leap", "v": 2, "run_id": player.run_id}).encode()
    log.send("run_control", player.run_id, value, "leap")
    log.producer.flush(10)
    follower = (await manager.session()).follower
    await eventually(lambda: getattr(follower.state(player.run_id), "newer", False), "the newer record was never read")
    assert (await server.get(f"runs/{player.run_id}")).json["run"]["read_only"] is True
