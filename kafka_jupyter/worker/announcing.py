"""What a worker says of itself in `worker_state`."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import psutil

from kafka_jupyter.protocol import frames
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.worker import environment
from kafka_jupyter.worker.site import Site

PERIOD_S = 5.0  # between two announcements


def info_of(
    site: Site, name: str, equipment: frames.Equipment, free: int, running: Iterable[str], unfit: str, refused: list[str]
) -> WorkerInfo:
    """`running`: run ids. `refused`: keys whose tasks were not read lately."""
    settings = site.settings
    return WorkerInfo(
        site.worker_id,
        name,
        host=site.host,
        pid=psutil.Process().pid,
        slots=site.slots,
        free=free,
        device=equipment.device,
        devices=equipment.devices,
        memory=psutil.virtual_memory().total,
        versions=equipment.versions,
        running=sorted(running),
        period_s=PERIOD_S,
        started_ms=int(psutil.Process().create_time() * 1000),
        network=settings.allow_network or "network" not in equipment.cage,
        cage=equipment.cage,
        code=settings.allow_code,
        packages=_packages() if settings.allow_code else {},
        policy=str(site.log.gate.policy),
        refused=refused,
        unfit=unfit,
    )


@functools.cache
def _packages() -> dict[str, str]:
    return environment.packages()
