"""`python -m benchmarks`: measures, prints, and writes benchmarks/results.md (where nothing was left out)."""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
from collections.abc import Callable

from benchmarks import (
    bench,
    checkpoint,
    cuts,
    firstuse,
    lag,
    long,
    metrics,
    page,
    report,
    scale,
    signing,
    small,
    startup,
    store,
    streams,
    submit,
    train,
    viewers,
)


def peers(what: str) -> Callable[[bench.Bench], report.Chapter]:
    """A chapter of ahead.py, which needs the extra `bench`."""

    def measured(running: bench.Bench) -> report.Chapter:
        from benchmarks import ahead

        return getattr(ahead, what)(running)

    return measured


CHAPTERS = {
    "startup": startup.measure,
    "firstuse": firstuse.measure,
    "submit": submit.measure,
    "train": train.measure,
    "checkpoint": checkpoint.measure,
    "lag": lag.measure,
    "metrics": metrics.measure,
    "signing": signing.measure,
    "page": page.measure,
    "small": small.measure,
    "store": store.measure,
    "streams": streams.measure,
    "cuts": cuts.measure,
    "history": scale.measure,
    "long": long.measure,
    "viewers": viewers.measure,
    "ahead": peers("measure"),
    "many": peers("small"),
}
RESULTS = pathlib.Path(__file__).with_name("results.md")


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks", description="Measures kafka_jupyter on a local Kafka of its own.")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it works, not to be quoted")
    parser.add_argument("--only", choices=CHAPTERS, metavar="NAME", help=f"one of {', '.join(CHAPTERS)}; nothing is written then")
    parser.add_argument("--runs", type=int, help="how many tiny runs the worker's memory is watched over (500)")
    chosen = parser.parse_args()
    load = os.getloadavg()[0]
    size = bench.QUICK if chosen.quick else bench.Scale()
    if chosen.runs is not None:
        size = dataclasses.replace(size, runs=chosen.runs)
    bench.quiet_keras()
    running = bench.Bench(size)
    chapters = []
    try:
        for name in [chosen.only] if chosen.only else CHAPTERS:
            bench.say(name)
            chapters.append(CHAPTERS[name](running))
            print(f"{chapters[-1]}\n", flush=True)
    finally:
        running.close()
    if chosen.only:
        for file in report.draw(chapters, bench.FOLDER.parent):
            bench.say(f"drawn: {file}")
    else:
        command = "make bench" if size == bench.Scale() else "python -m benchmarks --quick (not to be quoted)"
        report.write(RESULTS, chapters, command, load)
        bench.say(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
