"""What `import kafka_jupyter` and `%load_ext kafka_jupyter` cost: fresh processes with and without them, in turns."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.bench import Bench, say
from benchmarks.report import Chapter, Figure

HOW = """Wall time of fresh Python processes, with and without; the difference of the medians. `%load_ext` runs in an IPython shell whose
process has loaded ipykernel, as every kernel has."""

SHELL = "import ipykernel.zmqshell; from IPython.core.interactiveshell import InteractiveShell; shell = InteractiveShell.instance()"
CASES = (
    ("`import kafka_jupyter`", "pass", "import kafka_jupyter", 30),
    ("`%load_ext kafka_jupyter`", SHELL, SHELL + "; shell.run_line_magic('load_ext', 'kafka_jupyter')", 150),
)


def measure(bench: Bench) -> Chapter:
    figures = []
    for what, without, with_it, target in CASES:
        say(f"{what}, {bench.scale.processes} processes of each kind")
        times: dict[str, list[float]] = {without: [], with_it: []}
        for i in range(bench.scale.processes + 1):
            for code in times:
                took = _process(code)
                if i:  # the first one writes bytecode and fills the disk's cache
                    times[code].append(took)
        bare, whole = (statistics.median(times[code]) * 1000 for code in (without, with_it))
        value = f"{whole - bare:.0f} ms ({whole:.0f} ms against {bare:.0f} ms)"
        figures.append(Figure(what, value, f"≤ {target} ms", whole - bare <= target))
    return Chapter("Start-up", HOW, figures)


def _process(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started
