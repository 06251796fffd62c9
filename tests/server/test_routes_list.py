"""What the sidebar asks for: runs with the tally of their history, one run's details, and a stream without log lines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.rows import BatchProgress, EpochEnded, LogLine
from kafka_jupyter.server.manager import Manager
from tests.server.raw import Server, Stream, eventually
from tests.support.playing import Player, task
from tests.support.training import submit


async def listed(server: Server, run_id: str, test: Callable[[Any], Any]) -> Any:
    """The run as the list shows it, once that passes the test."""
    found: list[Any] = []

    async def there() -> bool:
        found[:] = [run for run in (await server.get("runs")).json["runs"] if run["run_id"] == run_id and test(run)]
        return bool(found)

    await eventually(there, f"{run_id} was never listed so")
    return found[0]


def done(epochs: int) -> Callable[[Any], bool]:
    return lambda run: (run["tally"] or {}).get("done") == epochs


async def test_the_list_says_whose_runs_are_mine(server: Server, log: Log) -> None:
    assert (await server.get("runs")).json["me"] == "ada@test"


async def test_a_live_runs_tally_grows_with_its_rows(server: Server, log: Log) -> None:
    player = Player.new(log, epochs=5)
    player.submit()
    await listed(server, player.run_id, done(0))
    player.claim()
    player.start()
    player.epoch(0, loss=0.5, accuracy=0.7)
    await listed(server, player.run_id, done(1))
    player.epoch(1, loss=0.7, accuracy=0.8)
    tally = (await listed(server, player.run_id, done(2)))["tally"]
    assert tally["best"] == {"loss": [0.5, 1], "accuracy": [0.8, 2]}
    assert tally["metrics"] == {"loss": 0.7, "accuracy": 0.8}


async def test_a_resumed_run_has_the_tally_of_what_counts(server: Server, log: Log) -> None:
    player = Player.new(log, epochs=5)
    player.submit()
    player.claim()
    player.start()
    for epoch, loss in enumerate((0.9, 0.8, 0.1)):
        player.epoch(epoch, loss=loss)
    await listed(server, player.run_id, done(3))
    zombie = (player.n, player.worker, player.nonce)
    player.say(_released(player))
    player.claim()
    player.start(epoch=1)
    await listed(server, player.run_id, done(1))
    player.epoch(1, loss=0.7)
    assert (await listed(server, player.run_id, done(2)))["tally"]["best"] == {"loss": [0.7, 2]}
    n, worker, nonce = player.n, player.worker, player.nonce
    player.n, player.worker, player.nonce = zombie
    player.rows(EpochEnded(99, 4, 10, {"loss": 0.01}))
    player.n, player.worker, player.nonce = n, worker, nonce
    player.epoch(2, loss=0.65)
    assert (await listed(server, player.run_id, done(3)))["tally"]["best"] == {"loss": [0.65, 3]}


def _released(player: Player) -> Any:
    return control.Released(**player.own(), reason="shutdown")


async def test_tallies_of_runs_that_ended_before_the_server_came_are_read_and_told(server: Server, log: Log) -> None:
    players = [Player.new(log, epochs=4).whole() for _ in range(3)]
    stream = await server.stream(f"?runs={players[0].run_id}")
    for player in players:
        run = await listed(server, player.run_id, done(4))
        assert run["tally"]["best"] == {"loss": [0.25, 4]}
    await stream.until(lambda _: any((run["tally"] or {}).get("done") == 4 for run in stream.of("run")), "the tally was told")
    await stream.close()


async def test_a_stream_brings_batches_and_log_lines_only_of_the_runs_that_it_names(server: Server, log: Log) -> None:
    loud, quiet = Player.new(log), Player.new(log)
    for player in (loud, quiet):
        player.submit()
        player.claim()
        player.start()
    stream = await server.stream(f"?detail={loud.run_id}")
    silent = await server.stream("?detail=")
    for each in (stream, silent):
        await each.until(lambda seen: seen and seen[-1].id, "it had begun")

    def tell() -> None:
        for player in (quiet, loud):
            player.rows(BatchProgress(player.next_seq(), 0, 3, 10), LogLine(player.next_seq(), 0, 3, "hello"))
            player.epoch(0)

    await asyncio.get_running_loop().run_in_executor(None, tell)
    await _both(stream)
    await _both(silent)
    for kind in ("log", "progress"):
        assert {data["run_id"] for data in stream.of(kind)} == {loud.run_id}
        assert silent.of(kind) == []
    again = await server.stream("?detail=", first_id(stream))
    await _both(again)
    assert again.of("log") == again.of("progress") == []
    for each in (stream, silent, again):
        await each.close()


def first_id(stream: Stream) -> str:
    return next(event.id for event in stream.seen if event.id)


async def _both(stream: Stream) -> None:
    await stream.until(lambda _: len(stream.of("metrics")) == 2, "both runs had ended an epoch")


async def test_detail_must_be_run_ids(server: Server, log: Log) -> None:
    assert (await server.get("events?detail=..%2Fx")).status == 400


async def test_details_tell_what_was_trained_its_attempts_and_artifacts(server: Server, log: Log) -> None:
    run = submit(log, "digits", epochs=7, batch_size=16)
    answer = await _known(server, run.run_id)
    assert answer["task"] is True
    assert (answer["parameters"]["epochs"], answer["parameters"]["batch_size"], answer["parameters"]["optimizer"]) == (7, 16, "Adam")
    assert {artifact["name"] for artifact in answer["artifacts"]} == {"model", "state", "data/0", "data/1"}
    player = Player.new(log).whole()
    (attempt,) = (await _known(server, player.run_id, lambda answer: answer["attempts"] and answer["attempts"][0]["ended"]))["attempts"]
    assert (attempt["n"], attempt["worker"], attempt["ended"]) == (1, "box-1", "SUCCEEDED")


@pytest.mark.parametrize("foreign", [False, True], ids=["another run's", "in a topic that is none of ours"])
async def test_details_of_a_run_whose_task_nobody_can_read_tell_the_rest(server: Server, log: Log, foreign: bool) -> None:
    player = Player.new(log)
    place = log.write_task(task("another-3f2a9c01b7d4"))
    place = control.TaskPlace("task", 0, 0) if foreign else place
    player.say(control.Submitted(run_id=player.run_id, task=place, name="digits", owner="ada@test", epochs=3))
    answer = await _known(server, player.run_id)
    assert (answer["task"], answer["parameters"], answer["source"]) == (False, {}, "")


async def _known(server: Server, run_id: str, enough: Callable[[Any], Any] = lambda _: True) -> Any:
    """The details, once they are there and enough."""
    answers: list[Any] = []

    async def there() -> bool:
        answer = await server.get(f"runs/{run_id}/details")
        answers.append(answer)
        return answer.status == 200 and bool(enough(answer.json))

    await eventually(there, f"{run_id} never became known")
    return answers[-1].json


async def test_details_of_an_unknown_run_are_a_404(server: Server, log: Log, manager: Manager) -> None:
    answer = await server.get("runs/nobody-3f2a9c01b7d4/details")
    assert (answer.status, answer.json["error"]) == (404, "RunNotFound")
    assert msgspec.json.decode(answer.body)
