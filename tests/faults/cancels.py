"""R15: a cancel from the notebook's handle, from the command line and over REST: the child is gone, the run is CANCELLED, once."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.faults.crew import alive
from tests.faults.figures import Budget, Figure, percentile
from tests.faults.stage import Stage
from tests.support.cli import cli
from tests.support.jupyter_server import JupyterServer, jupyter_server

GONE_S = 3.0
AT_A_TIME = 3


def cancels(stage: Stage, seed: int, budget: Budget) -> list[Figure]:
    chance, tiny, begin_s = random.Random(seed), stage.endless("cancelled"), stage.clock.now_s
    took_s: dict[str, list[float]] = {}
    cancelled: list[str] = []
    folder = stage.folder / "server"
    with jupyter_server(folder, stage.crew.environment(folder) | {"KAFKA_JUPYTER_OWNER": stage.settings.owner}) as server:
        ways = _ways(stage, server)
        while len(cancelled) < budget.count and (len(took_s) < len(ways) or stage.clock.now_s - begin_s < budget.seconds):
            runs = [stage.submit(tiny.one()) for _ in range(AT_A_TIME)]
            for run_id in runs:
                stage.running(run_id)
            for run_id, way in zip(runs, chance.sample(list(ways), len(ways)), strict=True):
                child, asked_s = stage.child_of(run_id), stage.clock.now_s
                ways[way](run_id)
                stage.until(lambda i=run_id, pid=child: stage.ended(i) and not alive(pid), f"{run_id} lives on after {way}", 30.0)  # type: ignore[misc]
                took_s.setdefault(way, []).append(stage.clock.now_s - asked_s)
                cancelled.append(run_id)
    verdict = stage.judge()
    ends = [verdict.runs[run_id].state for run_id in cancelled]
    once = [sum(entry.type == "cancelled" for entry in verdict.runs[run_id].accepted) for run_id in cancelled]
    values = [value for each in took_s.values() for value in each]
    p99 = percentile(values)
    ways_told = ", ".join(f"{way} {max(values):.2f} s" for way, values in sorted(took_s.items()))
    right = set(ends) == {"CANCELLED"} and set(once) == {1}
    count = f"{len(cancelled)} cancels (slowest: {ways_told})"
    return [
        Figure("R15", "cancel → child gone and CANCELLED, p99", f"≤ {GONE_S:g} s", f"{p99:.2f} s", count, p99 <= GONE_S),
        Figure("R15", "cancelled runs that are not CANCELLED once", "0", str(sum(n != 1 for n in once)), count, right),
    ]


def _ways(stage: Stage, server: JupyterServer) -> dict[str, Callable[[str], None]]:
    def by_hand(run_id: str) -> None:
        stage.client.attach(run_id).cancel()

    def by_command(run_id: str) -> None:
        said = cli("cancel", run_id, settings=stage.settings)
        assert said.code == 0, said

    def over_rest(run_id: str) -> None:
        status, answer = server.post(f"runs/{run_id}/cancel")
        assert status == 202, answer

    return {"notebook": by_hand, "CLI": by_command, "REST": over_rest}
