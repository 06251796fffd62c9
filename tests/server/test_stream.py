"""The stream: what comes, for whom, and what a slow, silent or leaving client costs."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol.cursor import Cursor
from kafka_jupyter.protocol.rows import LogLine, RowBatch
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.server.limits import Limits
from kafka_jupyter.server.manager import Manager
from tests.server.raw import Event, Server, Stream, eventually
from tests.support.playing import Player


async def begun(server: Server, query: str = "", last_id: str | None = None) -> Stream:
    """A stream that has said where it is."""
    stream = await server.stream(query, last_id)
    await stream.until(lambda seen: any(event.kind == "health" and event.id for event in seen), "it had begun")
    return stream


def ended(run_id: str) -> Any:
    return lambda seen: any(event.kind == "run" and event.data["run_id"] == run_id and event.data["terminal"] for event in seen)


def has_rows(count: int) -> Any:
    return lambda seen: sum(len(event.data["rows"]) for event in seen if event.kind in ("metrics", "log")) >= count


async def test_a_run_is_told_from_its_first_state_to_its_last_row(server: Server, log: Log) -> None:
    stream = await begun(server)
    player = Player.new(log, epochs=3)
    player.submit()
    player.claim()
    player.start()
    player.line("hello")
    for epoch in range(3):
        player.epoch(epoch)
    player.succeed()
    await stream.until(ended(player.run_id), "the run ended")
    await stream.until(has_rows(4), "all rows were there")
    last = stream.of("run")[-1]
    assert (last["run_id"], last["state"], last["epochs_done"]) == (player.run_id, "SUCCEEDED", 3)
    assert isinstance(last["now_ms"], int)
    rows = [row for data in stream.of("metrics") for row in data["rows"]]
    assert [(row["type"], row["epoch"]) for row in rows] == [("epoch", 0), ("epoch", 1), ("epoch", 2)]
    assert stream.of("metrics")[0]["attempt"] == 1
    assert stream.of("log") == [{"run_id": player.run_id, "attempt": 1, "rows": [
        {"type": "line", "seq": 1, "epoch": 0, "step": 0, "text": "hello"}]}]  # fmt: skip
    await stream.close()


async def test_the_answer_may_be_neither_stored_nor_held_back(server: Server, log: Log) -> None:
    stream = await begun(server)
    assert stream.status == 200
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.headers["cache-control"] == "no-cache, no-transform"
    assert stream.headers["content-encoding"] == "identity"
    assert stream.headers["x-accel-buffering"] == "no"
    assert stream.parser.retry == 2000
    await eventually(lambda: reads_comments(stream), "no heartbeat came")
    await stream.close()


async def reads_comments(stream: Stream) -> int:
    await stream.read()
    return stream.parser.comments


async def test_a_stream_does_not_count_as_activity_of_a_person(server: Server, log: Log, jp_serverapp: Any) -> None:
    before = jp_serverapp.web_app.settings.get("api_last_activity")
    stream = await begun(server)
    await stream.close()
    for path in ("runs", "health", "workers"):
        await server.get(path)
    assert jp_serverapp.web_app.settings.get("api_last_activity") == before


async def test_a_page_with_cards_gets_the_states_of_those_first_and_nothing_else(server: Server, log: Log) -> None:
    await server.get("runs")
    shown, other = Player.new(log).whole(), Player.new(log)

    async def read() -> bool:
        answer = await server.get(f"runs/{shown.run_id}")
        return answer.status == 200 and answer.json["run"]["terminal"] is True

    await eventually(read, "the server never read the run")
    stream = await begun(server, f"?runs={shown.run_id}")
    assert [card["run_id"] for card in stream.of("run")] == [shown.run_id]
    other.whole()
    live = Player.new(log)
    both = await begun(server, f"?runs={shown.run_id},{live.run_id}")
    live.whole()
    await both.until(ended(live.run_id), "the followed run ended")
    assert {card["run_id"] for card in both.of("run")} == {shown.run_id, live.run_id}
    assert {data["run_id"] for data in both.of("metrics")} <= {live.run_id}
    for each in (stream, both):
        assert other.run_id not in str(each.seen)
        await each.close()


async def test_the_queue_is_told_when_it_moves_although_the_run_did_not(server: Server, log: Log) -> None:
    first, second = Player.new(log), Player.new(log)
    first.submit()
    second.submit()
    stream = await begun(server, f"?runs={second.run_id}")
    await stream.until(lambda seen: [e for e in seen if e.kind == "run" and e.data["queue"] == 2], "it was second")
    first.claim()
    await stream.until(lambda seen: [e for e in seen if e.kind == "run" and e.data["queue"] == 1], "it was first")
    await stream.close()


async def test_workers_come_go_and_fall_silent(server: Server, log: Log) -> None:
    stream = await begun(server)
    log.send_worker(WorkerInfo(worker_id="clean-1", name="clean"))
    log.send_worker(WorkerInfo(worker_id="silent-1", name="silent", period_s=0.3))
    log.producer.flush(10)
    await stream.until(lambda seen: len({e.data["worker_id"] for e in seen if e.kind == "worker"}) == 2, "both were there")
    log.bury("worker_state", "clean-1", "worker")
    gone = {"clean-1", "silent-1"}
    await stream.until(lambda seen: {e.data["worker_id"] for e in seen if e.kind == "worker" and e.data.get("gone")} == gone, "both went")
    await stream.close()


@pytest.mark.parametrize(
    "cursor", ["nonsense", "@00000000,c.0:1,l.0:1", "c.0:99999999", "l.7:0", "c.0:1+", "\u00fc", "c.0:" + "9" * 30, "l.0:1," * 9000]
)
async def test_a_cursor_that_is_none_of_ours_is_answered_with_reset(server: Server, log: Log, manager: Manager, cursor: str) -> None:
    manager.limits = Limits(catch_up_s=0.1)
    Player.new(log).whole()
    await server.get("runs")
    stream = await begun(server, "", cursor if cursor.isascii() else cursor.encode().decode("latin-1"))
    assert stream.seen[0].kind == "reset"
    player = Player.new(log)
    player.submit()
    await stream.until(lambda seen: player.run_id in str(seen), "it went on from there")
    await stream.close()


async def test_hostile_text_in_records_cannot_break_the_stream(server: Server, log: Log) -> None:
    text = "\n\nevent: bye\ndata: {}\n\n\r\r<script>\u2028\x00"
    stream = await begun(server)
    player = Player.new(log, name="x")
    player.name = text
    player.submit()
    player.claim()
    player.start()
    player.line(text)
    await stream.until(has_rows(1), "the line was there")
    assert stream.of("log")[0]["rows"][0]["text"] == text
    assert stream.of("run")[-1]["name"] == text
    assert stream.of("bye") == []
    await stream.close()


class TestWithLittlePatience:
    @pytest.fixture
    def traits(self, traits: dict[str, Any]) -> dict[str, Any]:
        return {**traits, "stall_s": 0.5}

    async def test_a_client_that_reads_nothing_is_closed_and_costs_little(self, server: Server, log: Log, manager: Manager) -> None:
        player = Player.new(log)
        player.submit()
        player.claim()
        player.start()
        hub = (await manager.session()).hub
        lazy = await begun(server)
        lazy.reader._transport.pause_reading()  # type: ignore[attr-defined]  # its kernel buffer fills, then nothing goes
        assert hub.streams == 1
        await asyncio.get_running_loop().run_in_executor(None, flood, player, 400)
        await eventually(lambda: hub.streams == 0, "the stalled client was never closed")
        assert hub.size <= manager.limits.ring_bytes
        lazy.cut()
        manager.limits = Limits(stall_s=60)
        assert await seqs_until(server, lazy, 400 * 20) == list(range(1, 400 * 20 + 1))


class TestWithASmallRing:
    async def test_a_client_that_falls_out_of_the_ring_is_closed_and_resumes(self, server: Server, log: Log, manager: Manager) -> None:
        manager.limits = Limits(ring_records=50, ring_bytes=100_000, stall_s=60)
        player = Player.new(log)
        player.submit()
        player.claim()
        player.start()
        hub = (await manager.session()).hub
        lazy = await begun(server)
        lazy.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.get_running_loop().run_in_executor(None, flood, player, 400)
        assert hub.size <= 100_000 + 20 * 4200
        lazy.reader._transport.resume_reading()  # type: ignore[attr-defined]
        while await lazy.read() is not None:
            pass
        assert await seqs_until(server, lazy, 400 * 20) == list(range(1, 400 * 20 + 1))


async def seqs_until(server: Server, first: Stream, count: int) -> list[int]:
    """What a page has been told in the end that went on from there: where it is too slow it is closed, and comes back."""
    seen, last_id = [*first.seen], first.last_id
    while not has_rows(count)(seen):
        stream = await server.stream("", last_id)
        while not has_rows(count)([*seen, *stream.seen]) and await stream.read() is not None:
            pass
        seen, last_id = [*seen, *stream.seen], stream.last_id
        await stream.close()
    return sorted(row["seq"] for event in seen if event.kind == "log" for row in event.data["rows"])


def flood(player: Player, records: int) -> None:
    """20 long lines a record: 80 kB each."""
    for _ in range(records):
        lines: list[Any] = [LogLine(player.next_seq(), 0, 0, "x" * 4000) for _ in range(20)]
        player.log.send_rows(RowBatch(player.run_id, player.n, player.worker, player.nonce, lines))
    assert player.log.producer.flush(30) == 0


def own_threads() -> set[threading.Thread]:
    """Of this process, without the pool that asks Kafka, which grows and stays. Tests before may have left connections."""
    names = {thread: thread.name for thread in threading.enumerate()}
    return {thread for thread, name in names.items() if name.startswith("kafka_jupyter") and not name.startswith("kafka_jupyter-server_")}


async def test_at_shutdown_every_stream_says_bye_and_every_thread_ends(
    server: Server, log: Log, manager: Manager, jp_serverapp: Any
) -> None:
    before = own_threads()
    streams = [await begun(server) for _ in range(3)]
    assert own_threads() > before
    Player.new(log).whole()
    await jp_serverapp.cleanup_extensions()
    for stream in streams:
        kinds = [event.kind async for event in stream.events()]
        assert kinds[-1] == "bye"
    await eventually(lambda: own_threads() <= before, "threads were left behind")
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("kafka_jupyter")]
    assert (await server.get("runs")).status == 503
    assert (await server.get("health")).json["status"] == "unavailable"


async def test_an_event_without_an_id_leaves_the_cursor_where_it_was(server: Server, log: Log) -> None:
    """What a cut between a state and the next row must not lose."""
    stream = await begun(server)
    start = Cursor.parse(stream.last_id or "")
    player = Player.new(log).whole()
    await stream.until(ended(player.run_id), "the run ended")
    cut: list[Event] = [event for event in stream.seen if event.kind == "run"][:1]
    assert cut
    again = await begun(server, "", str(start))
    await again.until(ended(player.run_id), "the state was told again")
    for each in (stream, again):
        await each.close()
