"""A log with months of work in it: how soon whoever comes new knows all of it, and what it costs to keep."""

from __future__ import annotations

import dataclasses
import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil

from benchmarks.bench import FOLDER, Bench, environment, python, say
from benchmarks.report import Chapter, Figure, p50_p99, percentile, spread
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.settings import Settings
from tests.support.crowd import Member, play
from tests.support.jupyter_server import TOKEN, jupyter_server
from tests.support.scribe import scribe

HOW = """{ended:,} runs that have ended (1 in 4 failed or cancelled), each of 20 epochs, 6 heartbeats and 3 checkpoints, 40 that are
running, one of them since before all others, and 260 that wait; snapshots as a worker writes them. *New*: a fresh process, from the call
of `Client.runs()` until it has returned all of them, without its imports. *Command*: `kafka-jupyter runs --json`, the whole process, less
the same over an empty log. *Server*: a Jupyter server in a process of its own, from the first request to its answer; its memory against
that of one over an empty log, both after {asked} answers. `GET runs` asks for pages of 50, as the sidebar does."""

RUNNING, WAITING = 40, 260
STEP = 500  # runs that are played before a worker looks whether snapshots are due
ASKED = 300
CATCH_UP_S, MEMORY, ANSWER_S = 2.0, 150 << 20, 0.020
NEW = """
import json, sys, time, psutil
from kafka_jupyter import Client
from kafka_jupyter.settings import Settings
settings = Settings.from_env()
rss = psutil.Process().memory_info().rss
began = time.perf_counter()
client = Client(settings)
runs = client.runs()
print(json.dumps([time.perf_counter() - began, len(runs), psutil.Process().memory_info().rss - rss]))
"""


def measure(bench: Bench) -> Chapter:
    full, empty = bench.kafka.replace(topic_prefix="scale."), bench.kafka.replace(topic_prefix="scale-empty.")
    Log.open(Cluster(empty), create=True).close()
    log = Log.open(Cluster(full), create=True)
    try:
        count = fill(log, bench.scale.history)
    finally:
        log.close()
    say("new processes, commands, servers")
    _new(full)
    new = [_new(full) for _ in range(bench.scale.rounds)]
    assert {seen.runs for seen in new} == {count}, new
    commands = [[_command(settings) for _ in range(bench.scale.rounds)] for settings in (empty, full)]
    servers = [_server(settings) for settings in (empty, full)]
    assert servers[1].total == count
    return _chapter(count, bench.scale.history, new, commands, servers)


def _chapter(count: int, ended: int, new: list[Seen], commands: list[list[float]], servers: list[Served]) -> Chapter:
    known = statistics.median(seen.seconds for seen in new)
    memory = statistics.median(seen.memory for seen in new)
    bare, command = map(statistics.median, commands)
    quiet, busy = servers
    more, p99 = busy.memory - quiet.memory, percentile(busy.answers, 99)
    lists = f"{command - bare:.2f} s ({command:.2f} s against {bare:.2f} s)"
    first = f"{busy.first:.2f} s ({quiet.first:.2f} s over an empty log)"
    figures = [
        Figure(f"a new process knows {count:,} runs", spread([seen.seconds for seen in new]), "≤ 2 s", known <= CATCH_UP_S),
        Figure("its memory for them", f"{memory / (1 << 20):.0f} MiB"),
        Figure("`runs --json` over them", lists, "≤ 2 s", command - bare <= CATCH_UP_S),
        Figure("a server's first answer", first, "≤ 2 s", busy.first <= CATCH_UP_S),
        Figure("a server's memory for them", f"{more / (1 << 20):.0f} MiB", "≤ 150 MiB", more <= MEMORY),
        Figure("`GET runs`, 50 of them", p50_p99(busy.answers), "p99 ≤ 20 ms", p99 <= ANSWER_S),
    ]
    return Chapter("A long history", HOW.format(ended=ended, asked=ASKED), figures)


def fill(log: Log, ended: int) -> int:
    """Plays them all, with the snapshots that a worker would have written; how many there are now."""
    played = 0
    with scribe(log) as writer:
        for members in ([_running("marathon", 100_000)], *_past(ended), _late()):
            play(log, members)
            writer.round()
            played += len(members)
            say(f"{played:,} runs in the log")
    return played


def _running(name: str, epochs: int = 100) -> Member:
    return Member(name, epochs=epochs, done=20, ends=None, beats=6, checkpoints=3)


def _late() -> list[Member]:
    return [*(_running(f"search-{i}") for i in range(RUNNING - 1)), *(Member(f"later-{i}", waits=True) for i in range(WAITING))]


def _past(ended: int) -> Iterator[list[Member]]:
    ways = ("Succeeded", "Succeeded", "Failed", "Succeeded", "Succeeded", "Cancelled", "Succeeded", "Succeeded")
    labels = {"study": "widths", "team": "vision"}
    for first in range(0, ended, STEP):
        numbers = range(first, min(first + STEP, ended))
        yield [Member(f"net-{i}", epochs=20, ends=ways[i % 8], beats=6, checkpoints=3, labels=labels) for i in numbers]


@dataclasses.dataclass
class Seen:
    """Of one who came new: seconds until it knew all runs, how many, and by how many bytes its memory grew."""

    seconds: float
    runs: int
    memory: int


def _new(settings: Settings) -> Seen:
    return Seen(*json.loads(python(NEW, settings)))


def _command(settings: Settings) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "kafka_jupyter.cli", "runs", "--json"]
    subprocess.run(command, env=environment(settings), check=True, stdout=subprocess.DEVNULL, cwd=FOLDER)
    return time.perf_counter() - began


@dataclasses.dataclass
class Served:
    """`first`: seconds of the first answer, `answers` of the others; `memory`: bytes resident after them."""

    first: float
    answers: list[float]
    memory: int
    total: int


def _server(settings: Settings) -> Served:
    with jupyter_server(FOLDER / settings.topic_prefix, environment(settings)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        first, total = _ask(connection, 0)
        answers = [_ask(connection, 50 * i % max(50, total))[0] for i in range(ASKED)]
        connection.close()
        return Served(first, answers, psutil.Process(server.pid).memory_info().rss, total)


def _ask(connection: http.client.HTTPConnection, offset: int) -> tuple[float, int]:
    began = time.perf_counter()
    connection.request("GET", f"/kafka-jupyter/runs?limit=50&offset={offset}", headers={"Authorization": f"token {TOKEN}"})
    answer = connection.getresponse()
    body = answer.read()
    took = time.perf_counter() - began
    assert answer.status == 200, body
    return took, json.loads(body)["total"]
