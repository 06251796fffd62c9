"""`worker_state`: who is there and what they can do; a tombstone on clean exit."""

from __future__ import annotations

import msgspec

from kafka_jupyter.protocol.ids import version_1


class WorkerInfo(msgspec.Struct, frozen=True, tag_field="type", tag="worker", omit_defaults=True):
    worker_id: str
    name: str
    v: int = msgspec.field(default_factory=version_1)
    host: str = ""
    pid: int = 0
    slots: int = 1
    free: int = 0
    device: str = "cpu"  # "cpu" or "gpu"
    devices: list[str] = []
    memory: int = 0  # bytes in the machine
    versions: dict[str, str] = {}
    running: list[str] = []  # run ids
    period_s: float = 5.0  # the record is renewed this often; alive = renewed within three periods of the reader's clock
    started_ms: int = 0
    code: bool = False  # it runs code of tasks (`--allow-code`)
    packages: dict[str, str] = {}  # what is installed, distribution → version; told by those that run code
    network: bool = True  # its trainings may use it
    cage: list[str] = []  # what else they may not do (training/cage.py)
    policy: str = ""  # of its trust: require | warn | off
    refused: list[str] = []  # keys whose tasks it did not read lately; "" for those of nobody
    unfit: str = ""  # why it takes nothing, e.g. Keras cannot be imported
