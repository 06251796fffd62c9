"""R1, R2: tiny runs without a pause while something breaks every few seconds; submits and deliveries come twice as well."""

from __future__ import annotations

import contextlib
import pathlib
import random

from tests.faults.brokers import Brokers
from tests.faults.crew import Post
from tests.faults.doing import Doer
from tests.faults.figures import Budget, Figure
from tests.faults.plan import BROKER_FAULTS, WORKER_FAULTS, plan
from tests.faults.stage import Stage, Tiny, told_faults

EVERY_S = 5.0
OPEN = 10  # runs that wait or train at a time
TWICE = 0.2  # of the submits


def storm(brokers: Brokers, folder: pathlib.Path, seed: int, budget: Budget, every_s: float = EVERY_S) -> list[Figure]:
    posts = (Post(), Post())
    faults = plan(seed, budget.seconds * 2, every_s, WORKER_FAULTS + BROKER_FAULTS, len(posts))
    with contextlib.closing(Stage("storm", brokers, folder, posts, seed)) as stage:
        chance = random.Random(seed)
        kinds = [Tiny(), Tiny("small", epochs=30)]
        stage.note("planned:\n" + told_faults(faults))
        stage.workers_there()
        begin_s = stage.clock.now_s
        with Doer(stage, faults) as doer:
            while len(stage.run_ids) < budget.count and stage.clock.now_s - begin_s < budget.seconds:
                task = chance.choices(kinds, (3, 1))[0].one()
                stage.submit(task)
                if chance.random() < TWICE:
                    stage.submit(task)
                stage.follower.wait(lambda: len(stage.open_runs()) < OPEN, 30.0)
            lasted_s = stage.clock.now_s - begin_s
        verdict = stage.judge()
        succeeded = verdict.states()["SUCCEEDED"]
        runs, broken = len(verdict.runs), sum(doer.done.values())
        attempts = sum(len(run.spans) for run in verdict.runs.values())
        twice = sum(sum(entry.type == "succeeded" for entry in run.accepted) > 1 for run in verdict.runs.values())
        copies = sum(len(log.tasks) > 1 for log in verdict.logs.values())
        faults_done = f"{broken} faults in {lasted_s:.0f} s ({', '.join(f'{n} {kind}' for kind, n in sorted(doer.done.items()))})"
        count = f"{runs} of {budget.whole or budget.count} runs, {copies} submitted twice, {attempts} attempts, {faults_done}"
        return [
            Figure("R1", "runs lost", "0", str(len(stage.run_ids) - succeeded), count, succeeded == len(stage.run_ids)),
            Figure("R2", "runs with more than one accepted result", "0", str(twice), count, not twice),
        ]
