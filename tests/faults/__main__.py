"""The soak: every scenario for as long as asked, and the table of what was measured.

    SOAK_MINUTES=30 python -m tests.faults --out soak.md
    python -m tests.faults --only R1,R5 --minutes 5

A short soak covers a part of the counts that the properties ask for: every line says how much it rests on. The exit code is 1 if a line
does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator

from tests.faults.broker_kills import broker_kills
from tests.faults.brokers import Brokers, three_brokers_with_gates
from tests.faults.cancels import cancels
from tests.faults.crashes import careful_workers, crashes, hangs, tidy
from tests.faults.figures import Budget, Figure, table
from tests.faults.junk import WHOLE, junk
from tests.faults.line import line
from tests.faults.poison import poison
from tests.faults.store_faults import store_faults
from tests.faults.storm import storms
from tests.faults.takeovers import kills, two_workers, zombies
from tests.faults.twins import WHOLE as TRIALS
from tests.faults.twins import twins
from tests.support import simulator

Scenario = Callable[[Brokers, pathlib.Path, int, float], list[Figure]]
ENDLESS = 10**9


def _takeovers(play: Callable[..., list[Figure]], count: int) -> Scenario:
    def scenario(brokers: Brokers, folder: pathlib.Path, seed: int, seconds: float) -> list[Figure]:
        with two_workers(brokers, folder, seed) as stage:
            return play(stage, seed, Budget(count, seconds, count))

    return scenario


def _of(play: Callable[..., list[Figure]], count: int) -> Scenario:
    return lambda brokers, folder, seed, seconds: play(brokers, folder, seed, Budget(count, seconds, count))


def _careful(brokers: Brokers, folder: pathlib.Path, seed: int, seconds: float) -> list[Figure]:
    with careful_workers(brokers, folder, seed) as stage:
        found = tidy(stage, seed, Budget(200, seconds / 4, 200))
        found += hangs(stage, seed, Budget(20, seconds / 4, 20))
        return found + crashes(stage, seed, Budget(100, seconds / 2, 100))


def _fold(brokers: Brokers, folder: pathlib.Path, seed: int, seconds: float) -> list[Figure]:
    """The simulator of the fold: no Kafka, many histories."""
    begin_s, first, total = time.monotonic(), seed % 1000 * 1_000_000, 0
    violations: list[str] = []
    while time.monotonic() - begin_s < seconds:
        violations += simulator.violations_of(simulator.tally(range(first + total, first + total + 200)))
        total += 200
    return [Figure("fold", "violations in simulated histories", "0", str(len(violations)), f"{total} histories", not violations)]


# Rows → (scenario, its share of the time)
SCENARIOS: dict[str, tuple[Scenario, float]] = {
    "R1 R2 R16": (_of(storms, 1000), 6),
    "R3": (_takeovers(zombies, 280), 5),
    "R5": (_takeovers(kills, 200), 3),
    "R6 disk stall": (_careful, 3),
    "R7": (_of(twins, TRIALS), 10),
    "R9": (_of(broker_kills, ENDLESS), 4),
    "R10": (_of(poison, 130), 4),
    "R12": (_of(store_faults, 500), 3),
    "R14 R16": (_of(line, 50), 1),
    "R15": (_takeovers(cancels, 99), 1),
    "junk": (_of(junk, 10 * WHOLE), 1),
    "fold": (_fold, 3),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("SOAK_MINUTES", "30")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED", random.SystemRandom().randrange(1_000_000))))
    parser.add_argument("--only", default="", help="rows, with commas between them: R1,R5,fold")
    parser.add_argument("--out", type=pathlib.Path, help="a file for the table")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # brokers and workers are ended all the same
    only = {row for row in options.only.split(",") if row}
    unknown = only - {row for rows in SCENARIOS for row in rows.split()}
    if unknown:
        parser.error(f"there is no row {', '.join(sorted(unknown))} (known: {' '.join(SCENARIOS)})")
    chosen = {rows: how for rows, how in SCENARIOS.items() if not only or only & set(rows.split())}
    began = time.strftime("%Y-%m-%d %H:%M:%S")
    figures = list(_played(chosen, options.minutes * 60, options.seed))
    text = f"Soak of {options.minutes:g} minutes from {began}, seed {options.seed}, {os.cpu_count()} cores\n\n{table(figures)}\n"
    print(text)
    if options.out:
        options.out.write_text(text)
    return 0 if all(figure.holds for figure in figures) else 1


def _played(chosen: dict[str, tuple[Scenario, float]], seconds: float, seed: int) -> Iterator[Figure]:
    whole = sum(share for _, share in chosen.values())
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder, contextlib.ExitStack() as closing:
        root = pathlib.Path(folder)
        brokers = closing.enter_context(three_brokers_with_gates(root / "brokers"))
        for number, (rows, (scenario, share)) in enumerate(chosen.items()):
            brokers.whole()
            try:
                found = scenario(brokers, root / f"{number}", seed, seconds * share / whole)
            except Exception as failure:  # noqa: BLE001  # the other rows are still worth their time
                traceback.print_exc()
                found = [Figure(rows, "the scenario", "plays", str(failure).partition("\n")[0][:200], "see above", False)]
            for figure in found:
                print(table([figure]).splitlines()[-1], flush=True)
            yield from found


if __name__ == "__main__":
    sys.exit(main())
