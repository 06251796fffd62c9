"""Which waiting run a free slot takes, and after which delay (design §2.3). Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from kafka_jupyter.protocol.task import Requirements
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.runs.state import RunState

PRIORITIES = {"high": 0, "normal": 1, "low": 2}
RANK_STEP_S = 0.02  # between the ranks of two workers: one round trip of a claim, so that the next sees it
RANK_CAP_S = 2.0


def rank(run_id: str, worker_id: str, others: Iterable[str]) -> int:
    """This worker's place (0 is first) in the rendezvous order of (run_id, worker_id) among the live free workers."""
    mine = _weight(run_id, worker_id)
    return sum(1 for other in others if other != worker_id and _weight(run_id, other) > mine)


def _weight(run_id: str, worker_id: str) -> bytes:
    return hashlib.blake2b(f"{run_id}/{worker_id}".encode(), digest_size=8).digest()


def claim_delay(owner: bool, place: int, grace_s: float) -> float:
    """Seconds after which a worker claims a waiting run: at once for the owner of its task's partition, else grace + rank × 20 ms."""
    return 0.0 if owner else grace_s + min(place * RANK_STEP_S, RANK_CAP_S)


def order(waiting: Iterable[RunState]) -> list[RunState]:
    """By priority class, then append time. Strict: `low` may starve."""
    return sorted(waiting, key=lambda s: (PRIORITIES.get(s.submitted.priority if s.submitted else "normal", 1), s.first_ms, s.run_id))


def unmet(needs: Requirements, worker: WorkerInfo) -> str:
    """What this worker lacks for these requirements, in words; empty if nothing.

    Keras and backend must have the same major and minor version (a config may use what an older one does not know); the patch
    may differ. Memory is what the machine has.
    """
    if worker.unfit:
        return worker.unfit
    if needs.keras and not _same_minor(needs.keras, worker.versions.get("keras", "")):
        return f"keras {_minor(needs.keras)} (it has {worker.versions.get('keras') or 'none'})"
    if needs.backend and needs.backend != worker.versions.get("backend", ""):
        return f"the backend {needs.backend} (it has {worker.versions.get('backend') or 'none'})"
    if needs.backend_version and not _same_minor(needs.backend_version, worker.versions.get(needs.backend, "")):
        return f"{needs.backend} {_minor(needs.backend_version)} (it has {worker.versions.get(needs.backend) or 'none'})"
    if needs.device == "gpu" and worker.device != "gpu":
        return "a GPU"
    if needs.network and not worker.network:
        return "let its trainings use the network, as RemoteMonitor must (`kafka-jupyter worker --allow-network`)"
    if lack := _lacks_for_code(needs, worker):
        return lack
    if needs.memory and worker.memory and needs.memory > worker.memory:
        return f"{needs.memory / (1 << 30):.1f} GiB of memory (it has {worker.memory / (1 << 30):.1f})"
    return ""


def _lacks_for_code(needs: Requirements, worker: WorkerInfo) -> str:
    if needs.code and not worker.code:
        return "been started to run code of tasks (`kafka-jupyter worker --allow-code`)"
    if needs.python and not _same_minor(needs.python, worker.versions.get("python", "")):
        return f"Python {_minor(needs.python)} (it has {worker.versions.get('python') or 'an unknown one'})"
    for name, version in needs.packages.items():
        found = worker.packages.get(_normal(name), "")
        fits = found == version[2:] if version.startswith("==") else bool(found) and _same_minor(version, found)
        if not fits:
            return f"{name} {version.removeprefix('==')} (it has {found or 'none'})"
    return ""


def _normal(distribution: str) -> str:
    """The name under which a distribution is known however it is spelled (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def normal_packages(found: Iterable[tuple[str, str]]) -> dict[str, str]:
    """As a worker tells them: name as in PEP 503 → version."""
    return {_normal(name): version for name, version in found if name}


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _same_minor(wanted: str, found: str) -> bool:
    return _minor(wanted) == _minor(found)


def waiting_reason(state: RunState, workers: list[WorkerInfo]) -> str:
    """Why a waiting run waits, in one sentence for its card. `workers`: the live ones."""
    if not workers:
        return "Waiting for a worker: none is there. `kafka-jupyter worker` starts one."
    if state.submitted is not None and all(_disbelieves(worker, state.submitter) for worker in workers):
        if not state.submitter:
            return "Waiting: the workers there take signed tasks only. `kafka-jupyter keys init` makes a key, which they have to trust."
        return (
            f"Waiting: no worker trusts the key {state.submitter} that has submitted it (`kafka-jupyter keys trust FILE --role submitter`)."
        )
    needs = state.submitted.requirements if state.submitted else Requirements()
    lacks = [unmet(needs, worker) for worker in workers]
    if all(lacks):
        return f"Waiting: no worker has {lacks[0]}. {_are(len(workers))} there."
    able = [worker for worker, lack in zip(workers, lacks, strict=True) if not lack and worker.worker_id not in state.unfit]
    if not able:
        return f"Waiting for another worker: {state.last_release.detail if state.last_release else 'those there cannot run it'}."
    if all(worker.free == 0 for worker in able):
        return f"Waiting for a free slot: {_are(len(able))} busy."
    return ""


def _disbelieves(worker: WorkerInfo, kid: str) -> bool:
    return worker.policy == "require" and (not kid or kid in worker.refused)


def _are(count: int) -> str:
    return "1 worker is" if count == 1 else f"{count} workers are"
