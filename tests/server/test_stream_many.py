"""Many clients, and such that take nothing: what each of them holds, that the others get theirs, and that nothing is left of any."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import os
import pathlib
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from kafka_jupyter.brokers import relay
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import control, ids
from kafka_jupyter.runs import view
from kafka_jupyter.runs.state import RunState
from kafka_jupyter.server import hub as room
from kafka_jupyter.server import replay
from kafka_jupyter.server.hub import Hub
from kafka_jupyter.server.limits import Limits
from kafka_jupyter.server.manager import Manager
from tests.server.raw import Server, Stalled, eventually, unsent
from tests.server.test_stream import begun, flood, has_rows, own_threads
from tests.support.playing import Player

HELD = 256 << 10  # bytes that a client which takes nothing may hold of ours
LINES = 20  # of a record of `flood`, 4000 characters each


@pytest.fixture(autouse=True)
def one_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the start: at the handover to its second reader the server has what the first one brought once more, for a moment."""
    monkeypatch.setattr(relay, "HANDOVER_S", 0.0)


async def stalled(server: Server, hub: Hub, count: int, last_id: str = "") -> list[Stalled]:
    before = hub.streams
    clients = [Stalled(server, last_id) for _ in range(count)]
    for client in clients:
        await client.ask()
    await eventually(lambda: hub.streams == before + count, "not all streams began")
    return clients


async def held_each(clients: list[Stalled], server: Server, http_server: Any, hub: Hub) -> tuple[float, float]:
    """Bytes that each of them holds: of this process, which it gives back when they go, and of the kernel for the server's socket."""
    rest = hub.streams - len(clients)
    await eventually(lambda: waiting(http_server) >= len(clients), "they take all they are given")
    gc.collect()
    with_them, queued = tracemalloc.get_traced_memory()[0], unsent(server.port)
    for client in clients:
        client.socket.close()
    await eventually(lambda: hub.streams == rest, "they were never noticed to be gone")
    gc.collect()
    return (with_them - tracemalloc.get_traced_memory()[0]) / len(clients), sum(queued) / len(clients)


def waiting(http_server: Any) -> int:
    """How many connections wait for their client: the kernel takes no more for it."""
    return sum(1 for connection in http_server._connections if len(connection.stream._write_buffer))


@contextlib.contextmanager
def traced() -> Any:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


@pytest.fixture
def traits(traits: dict[str, Any]) -> dict[str, Any]:
    return {**traits, "stall_s": 600.0}


async def place(server: Server) -> str:
    """A cursor that says here."""
    stream = await begun(server)
    await stream.close()
    return stream.last_id or ""


async def read(manager: Manager, player: Player) -> None:
    """Waits until the server has read the last row."""
    follower = (await manager.session()).follower

    def newest() -> int:
        history = follower.history_here(player.run_id)
        return history.lines[-1].seq if history is not None and history.lines else 0

    await eventually(lambda: newest() == player.seq, "the rows were never read")


def running(log: Log) -> Player:
    player = Player.new(log)
    player.submit()
    player.claim()
    player.start()
    return player


async def aside(work: Callable[..., None], *arguments: Any) -> None:
    """Not on the event loop, which is the server's."""
    await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


async def test_rows_that_nobody_takes_hold_little(server: Server, log: Log, manager: Manager, http_server: Any) -> None:
    hub, player = (await manager.session()).hub, running(log)
    with traced():
        clients = await stalled(server, hub, 20)
        await aside(flood, player, 30)
        await read(manager, player)
        ours, kernels = await held_each(clients, server, http_server, hub)
    assert ours <= HELD
    assert kernels <= 2 * manager.limits.socket_bytes


@pytest.mark.parametrize("remembered", [20_000, 20], ids=["in memory", "in Kafka"])
async def test_rows_that_were_missed_hold_little(server: Server, log: Log, manager: Manager, http_server: Any, remembered: int) -> None:
    manager.limits = dataclasses.replace(manager.limits, ring_records=remembered)
    hub, player, here = (await manager.session()).hub, running(log), await place(server)
    await aside(flood, player, 60)
    await read(manager, player)
    with traced():
        clients = await stalled(server, hub, 20, here)
        ours, _ = await held_each(clients, server, http_server, hub)
    assert ours <= HELD


async def test_of_many_that_come_back_no_more_than_two_are_read_for_at_once(
    server: Server, log: Log, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each needs memory for a moment, and the threads that read for them are those that write what people ask for."""
    manager.limits = dataclasses.replace(manager.limits, ring_records=20)
    player, here = running(log), await place(server)
    await aside(flood, player, 30)
    await read(manager, player)
    peak, now, lock, told = [0], [0], threading.Lock(), replay.told

    def counted(*arguments: Any) -> Any:
        with lock:
            now[0] += 1
            peak[0] = max(peak[0], now[0])
        try:
            return told(*arguments)
        finally:
            with lock:
                now[0] -= 1

    monkeypatch.setattr(replay, "told", counted)
    streams = await asyncio.gather(*(begun(server, "", here) for _ in range(8)))
    assert [has_rows(30 * LINES)(stream.seen) for stream in streams] == [True] * 8
    assert peak == [2]


def failures(log: Log, count: int) -> None:
    """Runs with tracebacks as long as they may be."""
    for i in range(count):
        run_id, place = f"long-{i:012x}", control.TaskPlace("task", 0, i)
        log.send_control(control.Submitted(run_id=run_id, task=place, name="long", owner="ada@test"))
        who: dict[str, Any] = {"run_id": run_id, "n": 1, "worker": "box-1", "nonce": "nonce"}
        log.send_control(control.Claimed(**who, task=place))
        text = "x" * 16_000
        log.send_control(
            control.Failed(**who, retryable=False, reason="exception", error="ValueError", message=text[:4000], traceback=text)
        )
    assert log.producer.flush(30) == 0


async def test_states_that_nobody_takes_hold_little(server: Server, log: Log, manager: Manager, http_server: Any) -> None:
    session, here = await manager.session(), await place(server)
    await aside(failures, log, 200)
    await eventually(lambda: sum(state.terminal for state in session.follower.states()) == 200, "they were never read")
    with traced():
        clients = await stalled(server, session.hub, 20, here)
        ours, _ = await held_each(clients, server, http_server, session.hub)
    assert ours <= HELD


async def test_of_100_that_take_nothing_20_others_notice_nothing_and_all_100_are_closed(
    server: Server, log: Log, manager: Manager, http_server: Any
) -> None:
    hub, player = (await manager.session()).hub, running(log)
    healthy = [await begun(server) for _ in range(20)]
    with traced():
        lazy = await stalled(server, hub, 100)
        await asyncio.gather(aside(flood, player, 10), *(stream.until(has_rows(10 * LINES), "all rows came") for stream in healthy))
        assert hub.streams == 120
        ours, _ = await held_each(lazy, server, http_server, hub)
    assert ours <= HELD
    manager.limits = dataclasses.replace(manager.limits, stall_s=0.5)  # of streams that begin now
    lazy = await stalled(server, hub, 100)
    await asyncio.gather(aside(flood, player, 10), *(stream.until(has_rows(20 * LINES), "all rows came") for stream in healthy))
    await eventually(lambda: hub.streams == 20, "those that took nothing were never closed")
    for stream in healthy:
        assert [row["seq"] for data in stream.of("log") for row in data["rows"]] == list(range(1, 20 * LINES + 1))
    for client in lazy:
        client.socket.close()


def kafka_clients() -> int:
    """Consumers and producers: each has one thread of librdkafka's with this name."""
    found = 0
    for file in pathlib.Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it ends while we look
            found += file.read_text().strip() == "rdk:main"
    return found


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def passes_by(server: Server, i: int, old: str) -> None:
    """One client of many kinds: it goes while it asks, at the first byte, or later; a tenth asks for what is only in Kafka."""
    last_id = old if i % 10 == 0 else ""
    if i % 5 == 1:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"GET {server.root}events HTTP/1.1\r\nHost: 127.0.0.1".encode())
        writer.transport.abort()
        return
    stream = await server.stream("", last_id)
    if i % 5 == 2:
        await stream.reader.read(1)
    elif i % 5 != 3:
        await stream.until(lambda seen: any(event.kind == "health" and event.id for event in seen), "it had begun")
    await stream.close()


async def test_2000_clients_that_come_and_go_leave_nothing_behind(server: Server, log: Log, manager: Manager) -> None:
    manager.limits = Limits(ring_records=5, stall_s=600)
    hub, player, old = (await manager.session()).hub, running(log), await place(server)
    for epoch in range(20):
        player.epoch(epoch)
    for i in range(20):  # from here on whatever is opened once is open
        await passes_by(server, i, old)
    await server.get("health")
    await eventually(lambda: hub.streams == 0, "the first streams were never noticed to be gone")
    tasks, threads, files, clients = len(asyncio.all_tasks()), own_threads(), open_files(), kafka_clients()
    for first in range(0, 2000, 100):
        await asyncio.gather(*(passes_by(server, i, old) for i in range(first, first + 100)))
    await eventually(lambda: hub.streams == 0, "some streams were never noticed to be gone")
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks, "tasks were left behind")
    # Clients of Kafka that stay may open connections of their own meanwhile.
    await eventually(lambda: open_files() <= files + clients, "files were left open")
    await eventually(lambda: kafka_clients() <= clients, "Kafka clients were left open")
    assert own_threads() <= threads


async def test_a_change_is_described_once_for_all_who_are_told_and_the_next_one_anew(
    server: Server, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    player = Player.new(log)
    player.submit()
    player.claim()
    player.start()
    streams = [await begun(server, f"?runs={player.run_id}") for _ in range(20)]
    described: list[str] = []
    card_state = view.card_state

    def noting(state: RunState, **more: Any) -> dict[str, Any]:
        described.append(state.state)
        return card_state(state, **more)

    monkeypatch.setattr(view, "card_state", noting)
    for request, state in (
        (control.PauseRequested, "PAUSING"),
        (control.ResumeRequested, "RUNNING"),
        (control.CancelRequested, "CANCELLING"),
    ):
        player.say(request(run_id=player.run_id, request_id=ids.new_request_id()))
        for stream in streams:
            await stream.until(lambda seen, state=state: [e for e in seen if e.kind == "run"][-1].data["state"] == state, f"it is {state}")
    assert len(described) <= 3 * 3, "once for each change, and once more where some streams were slower than a state may be old"
    told = {tuple(dict.fromkeys(data["state"] for data in stream.of("run"))) for stream in streams}
    assert told == {("RUNNING", "PAUSING", "CANCELLING")}, "a stream may pass over a state that was brief, no stream tells an old one"


async def test_no_change_is_lost_where_more_runs_change_than_states_are_kept(
    log: Log, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one stream has just had made another one is told as well, whatever is dropped in between."""
    monkeypatch.setattr(room, "SHOWN", 3)
    monkeypatch.setattr(room, "SHOWN_S", 60.0)
    players = [Player.new(log, f"net-{i}") for i in range(6)]
    for player in players:
        player.submit()
    names = [player.run_id for player in players]
    session = await manager.session()
    await eventually(lambda: len(session.follower.states()) == len(names), "the server has not heard of them")
    some, every = (session.hub.join(room.Wanted(frozenset(wanted)), None)[0] for wanted in (names[:4], names))
    for subscriber, wanted in ((some, names[:4]), (every, names)):
        told = b"".join(event.body for event in session.hub.states_for(subscriber))
        assert [name for name in names if name.encode() in told] == wanted
        session.hub.leave(subscriber)
