"""Pause, resume, other settings and retry over REST, of runs that really are in the log."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import control
from kafka_jupyter.server.manager import Manager
from tests.server.raw import Server, eventually
from tests.server.test_routes import known
from tests.support.playing import Player


async def running(log: Log, manager: Manager, owner: str = "ada@test") -> Player:
    player = Player.new(log, owner=owner)
    player.submit()
    player.claim()
    player.start()
    await known(manager, player.run_id, "RUNNING")
    return player


async def failed(log: Log, manager: Manager, owner: str = "ada@test") -> Player:
    player = await running(log, manager, owner)
    player.say(control.Failed(**player.own(), retryable=False, reason="exception", error="ValueError", message="bad loss"))
    await known(manager, player.run_id, "FAILED")
    return player


async def test_a_run_is_paused_and_resumed(server: Server, log: Log, manager: Manager) -> None:
    player = await running(log, manager)
    assert (await server.post(f"runs/{player.run_id}/pause")).status == 202
    await known(manager, player.run_id, "PAUSING")
    player.say(control.Released(**player.own(), reason="pause"))
    await known(manager, player.run_id, "PAUSED")
    assert (await server.post(f"runs/{player.run_id}/resume")).status == 202
    await known(manager, player.run_id, "QUEUED")


async def test_a_learning_rate_is_asked_for_with_its_request_id(server: Server, log: Log, manager: Manager) -> None:
    player = await running(log, manager)
    answer = await server.post(f"runs/{player.run_id}/settings", body=b'{"learning_rate": 1e-4, "request_id": "once"}')
    assert (answer.status, answer.json) == (202, {"run_id": player.run_id, "request_id": "once"})
    follower = (await manager.session()).follower
    (request,) = await eventually(lambda: getattr(follower.state(player.run_id), "settings", ()), "the request was never read")
    assert (request.request_id, request.settings) == ("once", {"learning_rate": 1e-4})
    assert request.by


BAD_SETTINGS = [b"", b"{}", b'{"learning_rate": "fast"}', b'{"learning_rate": -1}', b'{"learning_rate": true}', b'{"learning_rate": null}',
                b'{"learning_rate": NaN}', b'{"learning_rate": 1e999}', b'{"learning_rate": [1]}']  # fmt: skip


@pytest.mark.parametrize("body", BAD_SETTINGS)
async def test_what_is_no_learning_rate_is_400_and_asks_for_nothing(server: Server, log: Log, manager: Manager, body: bytes) -> None:
    player = await running(log, manager)
    answer = await server.post(f"runs/{player.run_id}/settings", body=body)
    assert answer.status == 400, answer.body
    assert "learning_rate" in answer.json["message"]
    state = (await manager.session()).follower.state(player.run_id)
    assert state is not None
    assert state.settings == ()


@pytest.mark.parametrize(("kind", "body"), [("pause", b"{}"), ("resume", b"{}"), ("settings", b'{"learning_rate": 1}')])
async def test_a_run_that_is_over_or_about_to_be_is_409(server: Server, log: Log, manager: Manager, kind: str, body: bytes) -> None:
    player = await running(log, manager)
    await server.post(f"runs/{player.run_id}/stop")
    await known(manager, player.run_id, "STOPPING")
    answer = await server.post(f"runs/{player.run_id}/{kind}", body=body)
    assert (answer.status, answer.json["error"]) == (409, "RunEnding")
    player.succeed()
    await known(manager, player.run_id, "SUCCEEDED")
    answer = await server.post(f"runs/{player.run_id}/{kind}", body=body)
    assert (answer.status, answer.json["error"]) == (409, "RunEnded")


@pytest.mark.parametrize("kind", ["pause", "resume", "settings"])
async def test_another_persons_run_is_steered_only_with_force(server: Server, log: Log, manager: Manager, kind: str) -> None:
    player = await running(log, manager, owner="bob@elsewhere")
    body: dict[str, Any] = {"learning_rate": 0.1} if kind == "settings" else {}
    answer = await server.post(f"runs/{player.run_id}/{kind}", body=json.dumps(body).encode())
    assert (answer.status, answer.json["error"]) == (403, "NotYourRun")
    assert (await server.post(f"runs/{player.run_id}/{kind}", body=json.dumps(body | {"force": True}).encode())).status == 202


async def test_a_failed_run_is_retried_once_however_often_it_is_asked_for(server: Server, log: Log, manager: Manager) -> None:
    player = await failed(log, manager)
    answers = await asyncio.gather(*(server.post(f"runs/{player.run_id}/retry") for _ in range(3)))
    assert {answer.status for answer in answers} == {202}
    (run_id,) = {answer.json["run_id"] for answer in answers}
    assert run_id != player.run_id
    assert answers[0].json["retry_of"] == player.run_id
    await known(manager, run_id, "QUEUED")
    listed = (await server.get("runs")).json
    assert [run["run_id"] for run in listed["runs"]] == [run_id, player.run_id]
    assert listed["runs"][0]["retry_of"] == player.run_id
    assert (await server.post(f"runs/{player.run_id}/retry")).json["run_id"] == run_id


async def test_a_retry_may_be_another_training_but_then_it_is_that_one(server: Server, log: Log, manager: Manager) -> None:
    player = await failed(log, manager)
    answer = await server.post(f"runs/{player.run_id}/retry", body=b'{"epochs": 9, "learning_rate": 0.5, "labels": {"why": "more"}}')
    assert answer.status == 202
    run_id = answer.json["run_id"]
    await known(manager, run_id, "QUEUED")
    card = (await server.get(f"runs/{run_id}")).json["run"]
    assert (card["epochs"], card["labels"]) == (9, {"why": "more"})
    again = await server.post(f"runs/{player.run_id}/retry")
    assert (again.status, again.json["error"]) == (409, "RetriedAlready")
    assert run_id in again.json["message"]


async def test_a_run_that_has_not_ended_badly_is_not_retried(server: Server, log: Log, manager: Manager) -> None:
    player = await running(log, manager)
    answer = await server.post(f"runs/{player.run_id}/retry")
    assert (answer.status, answer.json["error"]) == (409, "CannotRetry")
    player.succeed()
    await known(manager, player.run_id, "SUCCEEDED")
    assert (await server.post(f"runs/{player.run_id}/retry")).status == 409
    assert (await server.post("runs/nobody-3f2a9c01b7d4/retry")).status == 404


async def test_another_persons_run_is_retried_only_with_force(server: Server, log: Log, manager: Manager) -> None:
    player = await failed(log, manager, owner="bob@elsewhere")
    assert (await server.post(f"runs/{player.run_id}/retry")).status == 403
    assert (await server.post(f"runs/{player.run_id}/retry", body=b'{"force": true}')).status == 202


@pytest.mark.parametrize("body", [b'{"epochs": 0}', b'{"epochs": "many"}', b'{"device": "tpu"}', b'{"learning_rate": -1}', b"[]"])
async def test_a_retry_that_cannot_be_is_400(server: Server, log: Log, manager: Manager, body: bytes) -> None:
    player = await failed(log, manager)
    answer = await server.post(f"runs/{player.run_id}/retry", body=body)
    assert answer.status == 400, answer.body
    assert answer.json["message"]
    assert (await server.get("runs")).json["total"] == 1
