"""How long streams wait and how much is kept for them: each with its unit and reason."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    heartbeat_s: float = 10.0  # a comment in a silent stream: proxies close what is silent for longer
    stall_s: float = 20.0  # a client that takes nothing for so long is closed; it resumes where it was
    pulse_s: float = 2.0  # queue places and Kafka's health are looked at so often while somebody listens
    catch_up_s: float = 5.0  # a cursor may be so far ahead of our reader before it counts as foreign
    goodbye_s: float = 2.0  # streams have so long to say `bye` at shutdown
    retry_ms: int = 2000  # what a client is told to wait before it connects again
    ring_records: int = 20_000  # records of `training_log` kept in memory for streams; who is further behind reads Kafka
    ring_bytes: int = 16 << 20
    replay_records: int = 50_000  # a cursor further back than this is answered with `reset`
    replay_bytes: int = 32 << 20  # of rows that are read again from Kafka for one client; more of them, and it is `reset`
    replays: int = 2  # at once: each may need several times its bytes for a moment, and whoever asks for a stop needs a thread too
    batch_bytes: int = 64 << 10  # of states, and of rows, that one turn of a stream takes
    batch_runs: int = 100  # states that are looked at for one turn
    chunk_bytes: int = 64 << 10  # written at once
    socket_bytes: int = 128 << 10  # of the kernel for one stream; Linux doubles it for its own needs
    streams: int = 200  # at once
