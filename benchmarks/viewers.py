"""Two hundred who watch one run: what each sees and when, and that its training and the broker do not notice."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import statistics
import time

import psutil

import kafka_jupyter
from benchmarks import work
from benchmarks.bench import FOLDER, Bench, Stack, environment, say
from benchmarks.report import Chapter, Figure, percentile
from kafka_jupyter import errors
from kafka_jupyter.brokers import local
from kafka_jupyter.client.handle import TrainingRun
from kafka_jupyter.server.limits import Limits
from tests.server.raw import Server, Stream
from tests.support.jupyter_server import TOKEN, JupyterServer, jupyter_server

HOW = """The quickstart's MLP trains on a worker; in turns, {phase:g} s each, nobody watches and {viewers} streams of one Jupyter server do,
all of them from one more process, on the same two cores. *Epoch end → event*: the clock in the row, which is the child's, against that of
the process that has parsed the event; of each viewer its own p99. *Load*: CPU seconds of the worker with its children, and of the broker,
by epoch and by second; the median of the phases with viewers against that of those without."""

PHASE_S = 20.0
SETTLE_S = 2.0  # until all have been told what there was
P99_S, CHANGE = 0.250, 0.05


@dataclasses.dataclass
class Load:
    """CPU seconds of a phase: of worker and server by epoch, of the broker by second, for it is never quite idle."""

    worker: float
    broker: float
    server: float


def measure(bench: Bench) -> Chapter:
    stack = bench.stack
    stack.idle_worker()
    phases = 4 if bench.scale.rounds > 3 else 1
    viewers = Limits().streams if phases > 1 else 40
    with jupyter_server(FOLDER / "viewers", environment(stack.settings)) as process:
        with kafka_jupyter.train("watched", background=True, settings=stack.settings):
            run = work.mlp().fit(*work.digits(), epochs=1_000_000)
        try:
            scene = Scene(stack, process, run)
            stack.follower.wait(lambda: scene.epochs() >= 20, 120)
            alone, crowded, lags = asyncio.run(scene.play(viewers, phases))
        finally:
            run.cancel()
            with contextlib.suppress(errors.KafkaJupyterError):
                run.result()
    return _chapter(alone, crowded, lags)


class Scene:
    def __init__(self, stack: Stack, process: JupyterServer, run: TrainingRun) -> None:
        self._stack, self._process, self._run = stack, process, run
        endpoint = local.endpoint(stack.settings)
        assert endpoint is not None
        self._meters = [psutil.Process(pid) for pid in (stack.worker.pid, endpoint.nodes[0].daemon.pid, process.pid)]

    def epochs(self) -> int:
        history = self._stack.follower.history_here(self._run.id)
        return len(history.epochs) if history is not None else 0

    async def play(self, viewers: int, phases: int) -> tuple[list[Load], list[Load], list[list[float]]]:
        """Loads without and with viewers, and of each viewer the seconds that it saw each epoch late."""
        server = Server(self._process.port, "/", {"Authorization": f"token {TOKEN}"})
        alone: list[Load] = []
        crowded: list[Load] = []
        lags: list[list[float]] = [[] for _ in range(viewers)]
        for i in range(2 * phases):
            watching = viewers if i % 2 else 0
            say(f"{watching} viewers")
            streams = [await server.stream(f"?runs={self._run.id}") for _ in range(watching)]
            tasks = [asyncio.create_task(_watch(stream, lags[j])) for j, stream in enumerate(streams)]
            await asyncio.sleep(SETTLE_S)
            if i == 1:  # they came one after the other, and the first ones were told while others still connected
                for lag in lags:
                    lag.clear()
            (crowded if watching else alone).append(await self._load())
            for task in tasks:
                assert not task.done(), task.exception()
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for stream in streams:
                await stream.close()
        return alone, crowded, lags

    async def _load(self) -> Load:
        before, epochs = [_cpu(meter) for meter in self._meters], self.epochs()
        await asyncio.sleep(PHASE_S)
        done = self.epochs() - epochs
        worker, broker, server = (_cpu(meter) - cpu for meter, cpu in zip(self._meters, before, strict=True))
        return Load(worker / done, broker / PHASE_S, server / done)


async def _watch(stream: Stream, lags: list[float]) -> None:
    async for event in stream.events():
        if event.kind == "metrics":
            now = time.time()
            lags.extend(now - row["at_ms"] / 1000 for row in event.data["rows"])
        stream.seen.clear()
    raise ConnectionError("a viewer was cut off")


def _cpu(process: psutil.Process) -> float:
    """Seconds of it and of the processes that it has now."""
    total = 0.0
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(each.cpu_times()[:2])
    return total


def _chapter(alone: list[Load], crowded: list[Load], lags: list[list[float]]) -> Chapter:
    viewers = len(lags)
    p99s = [percentile(each, 99) for each in lags]
    everything = [lag for each in lags for lag in each]
    late = f"p50 {percentile(everything, 50) * 1000:.0f} ms, p99 of the worst {max(p99s) * 1000:.0f} ms ({len(everything)} measured)"
    figures = [Figure(f"epoch end → event, {viewers} viewers", late, "p99 of each ≤ 250 ms", max(p99s) <= P99_S)]
    for name, unit in (("worker", "an epoch"), ("broker", "a second")):
        without, with_them = (statistics.median(getattr(load, name) for load in loads) for loads in (alone, crowded))
        ratio = with_them / without
        value = f"{ratio:.3f} × that without: {with_them * 1000:.0f} ms of CPU {unit} against {without * 1000:.0f} ms"
        figures.append(Figure(f"load of the {name}", value, "± 5 %", abs(ratio - 1) <= CHANGE))
    server = statistics.median(load.server for load in crowded)
    figures.append(Figure("load of the server", f"{server / viewers * 1e6:.0f} µs of CPU an epoch and viewer"))
    return Chapter("Many who watch", HOW.format(phase=PHASE_S, viewers=viewers), figures)
