"""R1, R2, R16: tiny runs without a pause while something breaks every few seconds; submits and deliveries come twice as well, and some
runs are paused, resumed and stopped. With each group protocol: what was not stopped comes out the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import random

from tests.faults.brokers import Brokers
from tests.faults.checker import Verdict
from tests.faults.crew import Post
from tests.faults.doing import Doer
from tests.faults.figures import Budget, Figure
from tests.faults.line import PROTOCOLS, weights
from tests.faults.pauses import Pauses
from tests.faults.plan import BROKER_FAULTS, WORKER_FAULTS, plan
from tests.faults.stage import Stage, Tiny, told_faults

EVERY_S = 5.0
OPEN = 10  # runs that wait or train at a time
TWICE = 0.2  # of the submits
SHARES = {"tiny": 6, "small": 2, "paused": 1}


def storm(brokers: Brokers, folder: pathlib.Path, seed: int, budget: Budget, every_s: float = EVERY_S) -> list[Figure]:
    return _one(brokers, folder, seed, budget, _kinds(), every_s).figures


def storms(brokers: Brokers, folder: pathlib.Path, seed: int, budget: Budget) -> list[Figure]:
    """One with each protocol, of half the time, with the same faults and the same runs."""
    half = Budget(budget.count // 2, budget.seconds / 2, budget.whole // 2)
    kinds = _kinds()
    played = [_one(brokers, folder / protocol, seed, half, kinds, protocol=protocol) for protocol in PROTOCOLS]
    classic, consumer = (each.results for each in played)
    both = classic.keys() & consumer.keys()
    different = [name for name in both if classic[name] != consumer[name]]
    count = f"{len(both)} runs of both storms, their ends and weights"
    what = "results that differ between classic and consumer in a storm"
    return [*(figure for each in played for figure in each.figures), Figure("R16", what, "0", str(len(different)), count, not different)]


@dataclasses.dataclass(frozen=True)
class _Storm:
    """`results`: the name of a run that was not stopped → how it ended, and its weights."""

    figures: list[Figure]
    results: dict[str, tuple[str, str]]


def _kinds() -> dict[str, Tiny]:
    """Each with its own first weights."""
    return {"tiny": Tiny(), "small": Tiny("small", epochs=30), "paused": Tiny("paused", rows=512, epochs=60, batch_size=16)}


def _one(
    brokers: Brokers, folder: pathlib.Path, seed: int, budget: Budget, kinds: dict[str, Tiny], every_s: float = EVERY_S, protocol: str = ""
) -> _Storm:
    posts = (Post(), Post())
    faults = plan(seed, budget.seconds * 2, every_s, WORKER_FAULTS + BROKER_FAULTS, len(posts))
    env = {"KAFKA_JUPYTER_GROUP_PROTOCOL": protocol} if protocol else {}
    with contextlib.closing(Stage("storm", brokers, folder, posts, seed, env)) as stage:
        chance, pauses = random.Random(seed), Pauses(stage, random.Random(seed))
        stage.note("planned:\n" + told_faults(faults))
        stage.workers_there()
        begin_s = stage.clock.now_s
        with Doer(stage, faults) as doer:
            while len(stage.run_ids) < budget.count and stage.clock.now_s - begin_s < budget.seconds:
                kind = chance.choices(list(SHARES), list(SHARES.values()))[0]
                number = len(stage.run_ids)
                task = kinds[kind].one(name=f"{kind}-{number}", seed=number)
                stage.submit(task)
                if chance.random() < TWICE:
                    stage.submit(task)
                if kind == "paused":
                    pauses.watch(task.run_id)
                _until_there_is_room(stage, pauses)
            lasted_s = stage.clock.now_s - begin_s
        pauses.settle()
        verdict = stage.judge()
        told = f"{sum(doer.done.values())} faults in {lasted_s:.0f} s ({', '.join(f'{n} {kind}' for kind, n in sorted(doer.done.items()))})"
        told += f", {len(pauses.paused)} paused, {len(pauses.resumed)} resumed, {len(pauses.stopped)} stopped"
        return _Storm(_figures(verdict, stage, pauses, told, budget, protocol), _results(verdict, pauses))


def _until_there_is_room(stage: Stage, pauses: Pauses) -> None:
    """What rests takes no room."""
    deadline_s = stage.clock.now_s + 30.0
    while stage.clock.now_s < deadline_s and len(stage.open_runs()) >= OPEN:
        pauses.look()
        stage.follower.wait(lambda: len(stage.open_runs()) < OPEN, 0.5)
    pauses.look()


def _figures(verdict: Verdict, stage: Stage, pauses: Pauses, told: str, budget: Budget, protocol: str) -> list[Figure]:
    right = {run_id: ("SUCCEEDED", "CANCELLED") if run_id in pauses.stopped else ("SUCCEEDED",) for run_id in stage.run_ids}
    lost = sum(verdict.runs[run_id].state not in right[run_id] for run_id in stage.run_ids)
    attempts = sum(len(run.spans) for run in verdict.runs.values())
    twice = sum(sum(entry.type == "succeeded" for entry in run.accepted) > 1 for run in verdict.runs.values())
    copies = sum(len(log.tasks) > 1 for log in verdict.logs.values())
    wanted = budget.whole or budget.count
    count = f"{len(verdict.runs)} of {wanted} runs, {copies} submitted twice, {attempts} attempts, {told}"
    with_it = f", {protocol}" if protocol else ""
    return [
        Figure("R1", f"runs lost{with_it}", "0", str(lost), count, not lost),
        Figure("R2", f"runs with more than one accepted result{with_it}", "0", str(twice), count, not twice),
    ]


def _results(verdict: Verdict, pauses: Pauses) -> dict[str, tuple[str, str]]:
    left = {run_id: run for run_id, run in verdict.runs.items() if run_id not in pauses.stopped}
    return {run_id.rpartition("-")[0]: (run.state, weights(verdict, run_id)) for run_id, run in left.items()}
