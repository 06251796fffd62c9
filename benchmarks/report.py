"""Figures → a table: the ratio first where there is one, the absolute figure behind it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Sequence

import psutil

PICTURE = "results.svg"
PACKAGES = ("keras", "tensorflow-cpu", "tensorflow", "numpy", "confluent-kafka", "msgspec", "distributed", "ray", "ipyparallel")


@dataclasses.dataclass(frozen=True)
class Figure:
    """`met`: None where there is no target."""

    what: str
    value: str
    target: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        return f"| {self.what} | {self.value} | {self.target} | {'' if self.met is None else 'yes' if self.met else '**no**'} |"


@dataclasses.dataclass(frozen=True)
class Chapter:
    """What one file measures. `how` says what was done, `after` may hold a further table."""

    title: str
    how: str
    figures: list[Figure]
    after: str = ""
    picture: Callable[[pathlib.Path], None] | None = None  # draws itself into a file

    def __str__(self) -> str:
        rows = "\n".join(map(str, self.figures))
        table = f"| figure | value | target | met? |\n|---|---|---|---|\n{rows}"
        shown = f"![{self.title}]({PICTURE})" if self.picture is not None else ""
        return "\n\n".join(filter(None, (f"## {self.title}", self.how, table, shown, self.after)))


def percentile(values: Sequence[float], percent: float) -> float:
    """By linear interpolation between the closest ranks."""
    ordered = sorted(values)
    at = (len(ordered) - 1) * percent / 100
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)


def spread(seconds: Sequence[float]) -> str:
    """`412 ms (398 … 450)`: the median, and where the single measurements lie."""
    return f"{statistics.median(seconds) * 1000:.0f} ms ({min(seconds) * 1000:.0f} … {max(seconds) * 1000:.0f})"


def p50_p99(seconds: Sequence[float]) -> str:
    return f"p50 {percentile(seconds, 50) * 1000:.1f} ms, p99 {percentile(seconds, 99) * 1000:.1f} ms ({len(seconds)} measured)"


def write(file: pathlib.Path, chapters: Sequence[Chapter], command: str, load: float) -> None:
    """And the pictures beside it."""
    parts = ["# Benchmarks", _machine(command, load), *map(str, chapters)]
    file.write_text("\n\n".join(parts) + "\n", "utf-8")
    draw(chapters, file.parent)


def draw(chapters: Sequence[Chapter], folder: pathlib.Path) -> list[pathlib.Path]:
    drawn = []
    for chapter in chapters:
        if chapter.picture is not None:
            drawn.append(folder / PICTURE)
            chapter.picture(drawn[-1])
    return drawn


def _machine(command: str, load: float) -> str:
    memory = psutil.virtual_memory().total / (1 << 30)
    versions = [f"{name} {found}" for name in PACKAGES if (found := _version(name))]
    return (
        f"`{command}`, {time.strftime('%Y-%m-%d')}. {os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB, {platform.system()} "
        f"{platform.release()}; Python {platform.python_version()}, {', '.join(versions)}, Apache Kafka {_kafka()} (one broker, "
        f"`acks=all`, tasks and control records flushed to the disk). Load of the machine before the start: {load:.1f}.\n\n"
        "What is compared was measured in turns (A B A B …) in one run, after a warm-up of each; figures are medians. Everything, broker "
        "and worker included, shares the cores above, so ratios say more than milliseconds."
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _kafka() -> str:
    from kafka_jupyter.brokers.local_jars import KAFKA_VERSION

    return KAFKA_VERSION


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
