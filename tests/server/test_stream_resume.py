"""A stream that is cut anywhere, any number of times, tells exactly what an uncut one tells."""

from __future__ import annotations

import asyncio
import collections
import random
from collections.abc import Iterable
from typing import Any

import pytest

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.server.limits import Limits
from kafka_jupyter.server.manager import Manager
from kafka_jupyter.settings import env_name
from tests.server.raw import PATIENCE_S, Event, Server, Stream, eventually
from tests.server.storm import Found, Storm, truth
from tests.server.test_stream import begun
from tests.support.playing import Player

LIVE_ONLY = ("now_ms", "queue", "waiting")  # of a run's state: what the moment of telling decides


class Told:
    """What a page would have after these events: rows by name, how often each came, the last state of each run."""

    def __init__(self) -> None:
        self.rows: dict[Found, Any] = {}
        self.times: collections.Counter[Found] = collections.Counter()
        self.states: dict[str, Any] = {}
        self.resets = 0

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.kind in ("metrics", "progress", "log"):
                for row in event.data["rows"]:
                    name = (event.data["run_id"], event.data["attempt"], row["seq"])
                    self.times[name] += 1
                    self.rows[name] = row
            elif event.kind == "run":
                self.states[event.data["run_id"]] = {key: value for key, value in event.data.items() if key not in LIVE_ONLY}
            elif event.kind == "reset":
                self.resets += 1

    def twice(self) -> list[Found]:
        return [name for name, times in self.times.items() if times > 1]


async def follow_to_the_end(stream: Stream, told: Told, runs: set[str], rows: set[Found]) -> None:
    def is_all() -> bool:
        return rows <= told.rows.keys() and all(told.states.get(run, {}).get("terminal") for run in runs)

    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not is_all():
        found = await stream.read()
        assert found is not None, "the stream ended"
        told.take(found)
        assert asyncio.get_running_loop().time() < deadline, f"never told: {sorted(rows - told.rows.keys())[:5]}"


class Cutter:
    """Reads a random number of bytes, cuts, comes back with the last id it has seen."""

    def __init__(self, server: Server, first_id: str, seed: int) -> None:
        self.server, self.last_id, self.dice = server, first_id, random.Random(seed)
        self.told = Told()
        self.cuts = 0

    async def once(self) -> None:
        stream = await self.server.stream("", self.last_id)
        left = int(10 ** self.dice.uniform(0, 4.5))
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while left > 0 and not stream.parser.comments:  # a comment: nothing more comes now
            data = await asyncio.wait_for(stream.reader.read(left), PATIENCE_S)
            assert asyncio.get_running_loop().time() < deadline, f"{left} bytes did not come: {stream.seen[-3:]}"
            if not data:
                break
            left -= len(data)
            found = stream.parser.feed(data)
            self.told.take(found)
            for event in found:
                self.last_id = event.id or self.last_id
        await stream.close()
        self.cuts += 1


@pytest.fixture
def traits(traits: dict[str, Any]) -> dict[str, Any]:
    return {**traits, "heartbeat_s": 0.05, "stall_s": 600.0}  # who is not cut reads nothing while the other one is


async def weather(server: Server, log: Log, cuts: int, seed: int, between: Any = None) -> tuple[Told, Cutter]:
    """A storm with one uncut listener and one that is cut `cuts` times; checked against the log itself."""
    loop = asyncio.get_running_loop()
    uncut, told = await server.stream(), Told()
    await uncut.until(lambda seen: seen and seen[-1].id, "it had begun")
    cutter = Cutter(server, uncut.last_id or "", seed)
    storm = await loop.run_in_executor(None, Storm, log, seed)
    while cutter.cuts < cuts:
        burst = loop.run_in_executor(None, storm.burst)
        if between is not None:
            await between(cutter)
        await cutter.once()
        await burst
        told.take(uncut.seen)
        uncut.seen.clear()
    await loop.run_in_executor(None, storm.end)
    rows, runs = await loop.run_in_executor(None, truth, log), {run.run_id for run in storm.all}
    listening = asyncio.create_task(follow_to_the_end(uncut, told, runs, rows)) if between is None else None
    await follow_to_the_end(await server.stream("", cutter.last_id), cutter.told, runs, rows)
    if listening is not None:
        await listening
        assert told.rows.keys() == rows
        assert told.twice() == []
    assert cutter.told.resets == 0
    assert cutter.told.rows.keys() == rows
    assert cutter.told.twice() == []
    return told, cutter


@pytest.mark.timeout(600)  # 25 s, but for a machine that does much else
async def test_cut_at_500_random_bytes_it_tells_every_row_once_and_the_same_last_states(server: Server, log: Log) -> None:
    told, cutter = await weather(server, log, cuts=500, seed=7)
    assert cutter.cuts == 500
    assert cutter.told.rows == told.rows
    assert cutter.told.states == told.states


async def test_it_is_as_lossless_when_memory_reaches_back_only_a_moment(server: Server, log: Log, manager: Manager) -> None:
    manager.limits = Limits(heartbeat_s=0.05, ring_records=40, chunk_bytes=300)  # so that what was missed lies in a file

    async def nothing(_cutter: Cutter) -> None:
        return

    await weather(server, log, cuts=60, seed=8, between=nothing)


async def test_it_is_as_lossless_when_the_server_begins_anew(server: Server, log: Log, manager: Manager) -> None:
    async def anew(cutter: Cutter) -> None:
        if cutter.cuts % 10 == 9:
            (await manager.session()).end_streams(over=False)  # the next request opens another session

    await weather(server, log, cuts=60, seed=9, between=anew)


async def test_who_is_cut_off_behind_the_first_row_of_an_attempt_is_not_told_it_again(server: Server, log: Log, manager: Manager) -> None:
    """Although a server with much to do learns at one time that the attempt has started and what its first rows are."""
    player = Player.new(log, epochs=2)
    player.submit()
    player.claim()
    stream = await server.stream("", None)
    await stream.until(lambda seen: [event for event in seen if event.id], "it had begun")
    follower = (await manager.session()).follower
    # No `await`: the loop of the server stands still.
    player.start()
    assert follower.wait(lambda: bool(follower.state(player.run_id).starts), 10)  # type: ignore[union-attr]
    player.epoch(0)
    player.epoch(1)
    assert follower.wait(lambda: len(follower.history(player.run_id).epochs) == 2, 10)
    seen = await stream.until(lambda seen: len([event for event in seen if event.kind == "metrics"]) == 2, "both rows were there")
    first = next(event for event in seen if event.kind == "metrics")
    again = await server.stream("", first.id)
    await again.until(lambda seen: [event for event in seen if event.kind == "health"], "all was told that it had missed")
    assert [row["epoch"] for data in again.of("metrics") for row in data["rows"]] == [1]
    for each in (stream, again):
        await each.close()


async def missed(server: Server, log: Log, manager: Manager, **limits: Any) -> Stream:
    """A stream that has been away for 20 rows of which the server remembers 5, resumed as far as its first rows."""
    manager.limits = Limits(ring_records=5, **limits)
    stream = await begun(server)
    await stream.close()
    player = Player.new(log, epochs=20).whole()
    follower = (await manager.session()).follower
    await eventually(lambda: getattr(follower.state(player.run_id), "terminal", False), "the run was never read")
    return await server.stream("", stream.last_id)


@pytest.mark.parametrize(
    ("limits", "folder"), [({"replay_records": 3}, ""), ({"replay_bytes": 1000}, ""), ({"chunk_bytes": 100}, "/proc")], ids=str
)
async def test_who_has_missed_more_than_can_be_told_again_is_reset_and_goes_on(
    server: Server, log: Log, manager: Manager, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int], folder: str
) -> None:
    """/proc: a folder in which no file can be made."""
    if folder:
        monkeypatch.setenv(env_name("cache_dir"), folder)
    stream = await missed(server, log, manager, **limits)
    await stream.until(lambda seen: seen and seen[-1].kind == "health", "it had begun")
    assert stream.seen[0].kind == "reset"
    assert stream.of("metrics") == []
    player = Player.new(log)
    player.submit()
    await stream.until(lambda seen: player.run_id in str(seen), "it went on from there")


async def test_what_was_missed_is_told_although_there_is_no_folder_for_it(
    server: Server, log: Log, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(env_name("cache_dir"), "/dev/null/cache")
    stream = await missed(server, log, manager, chunk_bytes=100)
    await stream.until(lambda seen: sum(len(event.data["rows"]) for event in seen if event.kind == "metrics") == 20, "all rows came")
    assert stream.of("reset") == []
