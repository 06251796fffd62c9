"""What it costs that every record is signed by its writer and judged by each reader, beside what its bytes cost anyway."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable

from benchmarks.bench import FOLDER, Bench, say
from benchmarks.report import Chapter, Figure
from kafka_jupyter.protocol import codec, control
from kafka_jupyter.protocol.rows import EpochEnded, RowBatch
from kafka_jupyter.protocol.topics import CHUNK
from kafka_jupyter.settings import Settings
from kafka_jupyter.trust import keeping
from kafka_jupyter.trust.gate import Gate
from kafka_jupyter.trust.listed import Role

HOW = """No Kafka: `Gate.sign` and `Gate.origin` (statement, encoding, Ed25519, trust list), and beside them JSON of the same record there
and back (for a chunk: its SHA-256, which a store needs anyway). Medians of 7 rounds."""

ROUNDS, COUNT = 7, 400
AUD = "cluster/topic"


def measure(_bench: Bench) -> Chapter:
    say("signing")
    folder = FOLDER / "signing"
    settings = Settings(key_dir=folder / "keys", trust_file=folder / "trust.toml", data_dir=folder, cache_dir=folder)
    now_ms = int(time.time() * 1000)
    key, _ = keeping.own_key(settings, now_ms)
    if key.kid not in keeping.trusted(settings):
        keeping.trust(settings, keeping.Exported(key.public, "bench"), list(Role), now_ms, at_once=True)
    gate = Gate(settings)
    who = {"run_id": "digits-3f2a9c01b7d4", "n": 1, "worker": "cpu-1", "nonce": "00ff00ff00ff00ff"}
    rows = [EpochEnded(i, i, 10, {"loss": 0.1234, "accuracy": 0.9876, "val_loss": 0.2345, "val_accuracy": 0.9123}) for i in range(100)]
    figures: list[Figure] = []
    for what, record in (
        ("a heartbeat", control.Heartbeat(**who, epoch=3, beat=9)),
        ("100 rows of 4 metrics", RowBatch(*who.values(), rows)),
    ):
        value, type_ = codec.encode(record), str(record.__struct_config__.tag)
        plain = _median(lambda record=record: codec.encode(record)), _median(lambda value=value: codec.decode(value))
        figures += _figures(gate, what, type_, value, plain, "its JSON")
    chunk = bytes(CHUNK)
    hashed = _median(lambda: hashlib.sha256(chunk).digest(), 20)
    figures += _figures(gate, "a chunk of 512 KiB", "chunk", chunk, (hashed, hashed), "its SHA-256", 20)
    return Chapter("Signed records", HOW, figures)


def _figures(gate: Gate, what: str, type_: str, value: bytes, plain: tuple[float, float], beside: str, count: int = COUNT) -> list[Figure]:
    headers = gate.sign(type_, AUD, b"key", value)
    now_ms = int(time.time() * 1000)
    sign = _median(lambda: gate.sign(type_, AUD, b"key", value), count)
    judge = _median(lambda: gate.origin(headers, b"key", value, AUD, now_ms), count)
    return [
        Figure(f"{what}: sign / {beside}", f"{sign / plain[0]:.1f} × ({sign * 1e6:.0f} µs)"),
        Figure(f"{what}: judge / {beside}", f"{judge / plain[1]:.1f} × ({judge * 1e6:.0f} µs)"),
    ]


def _median(work: Callable[[], object], count: int = COUNT) -> float:
    """Seconds a call."""
    rounds = []
    for _ in range(ROUNDS):
        begin_s = time.perf_counter()
        for _ in range(count):
            work()
        rounds.append((time.perf_counter() - begin_s) / count)
    return statistics.median(rounds)
