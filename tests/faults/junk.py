"""Any bytes at all in any topic, while a worker, a server and a client are at work; then a worker that has to read past all of it."""

from __future__ import annotations

import contextlib
import json
import pathlib
import random
import re
from collections.abc import Iterator

from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.log import LOGGED_JUNK
from kafka_jupyter.protocol import ids, topics
from tests.faults.brokers import Brokers
from tests.faults.crew import Post
from tests.faults.figures import Budget, Figure
from tests.faults.rawlog import Raw, read_recent
from tests.faults.stage import Stage, Tiny
from tests.support.jupyter_server import jupyter_server
from tests.support.raw import signed

WHOLE = 10_000
SAMPLES = 200  # true records of each partition, to be mutated
SMALL = 600  # bytes: of what is larger, mutants are made of its beginning too, or the topics would be full of tasks


def junk(brokers: Brokers, folder: pathlib.Path, seed: int, budget: Budget) -> list[Figure]:
    chance, tiny = random.Random(seed), Tiny()
    with contextlib.ExitStack() as closing:
        stage = closing.enter_context(contextlib.closing(Stage("junk", brokers, folder, [Post()], seed)))
        stage.workers_there()
        server = closing.enter_context(jupyter_server(folder / "server", stage.crew.environment(folder / "server")))
        before = [stage.submit(tiny.one()) for _ in range(5)]
        stage.until(lambda: all(map(stage.ended, before)), "the first runs do not end", 60.0)
        samples = {base: _samples(stage, base) for base in _bases()}
        going = stage.submit(stage.endless("going").one())
        stage.running(going)
        with server.events() as events:
            written = _spill(stage, samples, chance, budget)
            epochs = len(stage.follower.history(going).epochs)
            stage.until(lambda: len(stage.follower.history(going).epochs) > epochs + 2, f"{going} stands still", 60.0)
            stage.client.attach(going).stop()
            after = stage.submit(tiny.one())
            stage.until(lambda: stage.ended(going) and stage.ended(after), "runs do not end beside junk", 60.0)
            told = [event.get("state") for event in events if event.get("run_id") == after]
            stage.until(lambda: "SUCCEEDED" in (event.get("state") for event in events if event.get("run_id") == after), str(told), 60.0)
        problems = [*stage.crew.died(), *_late(stage, tiny)]
        if server.get("health")[1]["status"] != "ok":
            problems.append(f"the server says {server.get('health')}")
        ends = {run_id: str(getattr(stage.state(run_id), "state", None)) for run_id in (*before, going, after)}
        problems += [f"{run_id} is {state}" for run_id, state in ends.items() if state != "SUCCEEDED"]
        logged = [problem for log in (stage.crew.now[0].log, server.log) for problem in _logged_twice(stage, log)]
        if problems or logged:
            stage.note("; ".join(problems + logged))
            raise AssertionError("\n".join([*problems, *logged, stage.told(), server.log[-3000:]]))
        counted = sum(stage.client.connection().log.junk.values())
        count = f"{written} of {WHOLE} random and mutated records in {len(samples)} topics; the client counted {counted} as junk"
        return [Figure("junk", "workers, servers and clients that junk stopped", "0", str(len(problems)), count, not problems)]


def _bases() -> list[str]:
    return [spec.name for spec in topics.table()]


def _samples(stage: Stage, base: str) -> list[Raw]:
    return read_recent(stage.settings.bootstrap_servers, stage.settings.topic_prefix + base, SAMPLES)


def _spill(stage: Stage, samples: dict[str, list[Raw]], chance: random.Random, budget: Budget) -> int:
    """Round by round over all topics, so that junk stands between true records everywhere."""
    written, begin_s = 0, stage.clock.now_s
    producer = stage.log.producer
    while written < budget.count and stage.clock.now_s - begin_s < budget.seconds:
        for base, found in samples.items():
            places = stage.log.topics.all_places(base)
            for key, value in _some(chance, found, 20):
                topic, partition = chance.choice(places)
                if key is None and base in _COMPACTED:  # the broker itself refuses those
                    key = b"\x00"
                producer.send(topic, partition, key, value, signed(stage.log, topic, key, value))
                written += 1
        assert producer.flush(60) == 0
    return written


_COMPACTED = frozenset(spec.name for spec in topics.table() if spec.cleanup == "compact")


def _some(chance: random.Random, samples: list[Raw], count: int) -> Iterator[tuple[bytes | None, bytes]]:
    for _ in range(count):
        raw = chance.choice(samples) if samples and chance.random() < 0.7 else None
        if raw is None or not raw.value:
            yield chance.choice([None, chance.randbytes(12), b"\xff\xfe"]), _random(chance)
        else:
            key = raw.key if chance.random() < 0.8 else chance.randbytes(8)
            value = raw.value if len(raw.value) <= SMALL or chance.random() < 0.05 else raw.value[:SMALL]
            yield key, mutant(chance, value)


def _random(chance: random.Random) -> bytes:
    kind = chance.randrange(6)
    if kind == 0:
        return b'{"type":' + b"[" * chance.randrange(1, 5000)
    if kind == 1:
        return json.dumps({"type": chance.choice(["claimed", "rows", "task", "?"]), "v": 99, "run_id": ids.new_run_id("x")}).encode()
    if kind == 2:
        return json.dumps(chance.choice([None, 7, "text", [1, "two"], {"type": None}, {"run_id": "a", "type": []}])).encode()
    return chance.randbytes(chance.randrange(0, 1500))


def mutant(chance: random.Random, value: bytes) -> bytes:
    """A true record with a few bytes changed, lost, doubled or swapped, or with one of its values of another type."""
    data = bytearray(value)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                del data[at : at + chance.randrange(1, 20)]
            case 2:
                data[at:at] = chance.randbytes(chance.randrange(1, 8))
            case 3:
                del data[at:]
            case 4:
                data[at:at] = data[at : at + 30]
            case _:
                new = chance.choice([b":null", b":-1", b":1e999", b":[]", b":{}", b":true", b':"\\ud800"', b":99999999999999999999"])
                data = bytearray(re.sub(rb":[^,{}\[\]]+", lambda _, new=new: new, bytes(data), count=chance.randrange(1, 3)))
    return bytes(data)


def _late(stage: Stage, tiny: Tiny) -> list[str]:
    """A reader and a worker that come afterwards read past everything."""
    late = Follower(stage.log)
    try:
        late.start(60)
    finally:
        late.close()
    stage.crew.kill(0)
    run_id = stage.submit(tiny.one())
    stage.until(lambda: stage.ended(run_id), f"a worker that starts behind all the junk does not train {run_id}", 90.0)
    state = stage.state(run_id)
    return [] if state is not None and state.state == "SUCCEEDED" else [f"{run_id} is {state}"]


def _logged_twice(stage: Stage, text: str) -> list[str]:
    """Each record is logged once, with topic, partition and offset, and of many only the first ones of a topic."""
    found = []
    for base in _bases():
        name = stage.settings.topic_prefix + base
        told = re.findall(rf"passed over: {re.escape(name)}\[(\d+)\]@(\d+) ", text)
        if len(told) != len(set(told)) or len(told) > LOGGED_JUNK:
            found.append(f"{name}: {len(told)} lines for {len(set(told))} records")
    return found
