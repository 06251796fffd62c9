"""Three real brokers for all fault tests; whole again before each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.brokers import Brokers, three_brokers_with_gates

SEED = 20  # of the plans in `make test`; the soak takes another one each time


# To pytest a folder is a package only by its __init__.py; without one this would last as long as the session, at an eighth of a core.
@pytest.fixture(scope="package")
def all_brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    with three_brokers_with_gates(tmp_path_factory.mktemp("faults")) as brokers:
        yield brokers


@pytest.fixture
def brokers(all_brokers: Brokers) -> Iterator[Brokers]:
    all_brokers.whole()
    yield all_brokers
    for gate in all_brokers.gates:
        gate.heal()


@pytest.fixture
def seed() -> int:
    return SEED
