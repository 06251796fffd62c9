"""The plan of a fault run: a pure function of its seed. The same seed gives the same faults at the same times."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Fault:
    """At `at_s` after the start `kind` befalls `target`, the number of a worker or a broker, for `for_s` where it passes."""

    at_s: float
    kind: str
    target: int
    for_s: float = 0.0

    def __str__(self) -> str:
        lasts = f" for {self.for_s:.1f} s" if self.for_s else ""
        return f"{self.at_s:7.1f} s  {self.kind} {self.target}{lasts}"


WORKER_FAULTS = ("kill", "freeze", "terminate", "nap", "echo")
BROKER_FAULTS = ("broker", "leaders")


def plan(
    seed: int, seconds: float, every_s: float, kinds: Sequence[str], workers: int, ttl_s: float = 3.0, brokers: int = 3
) -> list[Fault]:
    """A fault every `every_s`, the kinds in random order but each as often as the others."""
    chance = random.Random(seed)
    faults: list[Fault] = []
    bag: list[str] = []
    for i in range(int(seconds / every_s)):
        if not bag:
            bag = chance.sample(list(kinds), len(kinds))
        kind = bag.pop()
        at_s = (i + 1) * every_s + chance.uniform(-0.3, 0.3) * every_s
        target = chance.randrange(brokers) if kind in BROKER_FAULTS else chance.randrange(workers)
        faults.append(Fault(round(at_s, 3), kind, target, round(_lasting(kind, chance, ttl_s), 3)))
    return faults


def _lasting(kind: str, chance: random.Random, ttl_s: float) -> float:
    """`freeze` is longer than two leases, `nap` shorter than one; a broker is back before the next one dies."""
    match kind:
        case "freeze" | "cut" | "deaf":
            return chance.uniform(2.1, 3.0) * ttl_s
        case "nap":
            return chance.uniform(0.2, 0.7) * ttl_s
        case "broker":
            return chance.uniform(1.0, 3.0)
    return 0.0
