"""Which waiting run a free slot takes, and which slot is first."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.task import Requirements
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.runs import choose
from kafka_jupyter.runs.state import RunState
from tests.support.records import RUN, claimed, fold, of_attempt, submitted

WORKERS = st.lists(st.text("abcdef0123456789-", min_size=1, max_size=8), min_size=1, max_size=20, unique=True)


@given(st.text(max_size=10), WORKERS)
def test_workers_that_see_each_other_have_different_ranks(run_id: str, workers: list[str]) -> None:
    assert sorted(choose.rank(run_id, worker, workers) for worker in workers) == list(range(len(workers)))


@given(st.text(max_size=10), WORKERS, st.randoms())
def test_a_rank_depends_on_who_is_there_and_not_on_their_order(run_id: str, workers: list[str], chance: Any) -> None:
    shuffled = chance.sample(workers, len(workers))
    assert [choose.rank(run_id, w, workers) for w in workers] == [choose.rank(run_id, w, shuffled) for w in workers]
    for worker in workers:
        without = [other for other in workers if other != worker]
        assert choose.rank(run_id, worker, without) == choose.rank(run_id, worker, workers), "oneself does not count"
        for other in without:
            assert choose.rank(run_id, other, without) <= choose.rank(run_id, other, workers), "others only move up when one goes"


def test_ranks_spread_runs_over_workers() -> None:
    workers = [f"cpu-{i}" for i in range(4)]
    first = [next(w for w in workers if choose.rank(f"run-{i}", w, workers) == 0) for i in range(400)]
    assert min(first.count(worker) for worker in workers) > 60


def test_the_owner_claims_at_once_and_the_others_by_rank_with_a_limit() -> None:
    assert choose.claim_delay(True, 9, 0.05) == 0.0
    assert choose.claim_delay(False, 0, 0.05) == 0.05
    assert choose.claim_delay(False, 3, 0.05) == pytest.approx(0.11)
    assert choose.claim_delay(False, 10_000, 0.05) == pytest.approx(2.05)


def _waiting(run_id: str, first_ms: int, priority: str | None) -> RunState:
    announced = None if priority is None else msgspec.structs.replace(submitted(), priority=priority)
    return RunState(run_id, first_ms=first_ms, submitted=announced)


def test_waiting_runs_are_taken_by_priority_and_then_by_append_time() -> None:
    waiting = [
        _waiting("low", 1, "low"), _waiting("late", 9, "normal"), _waiting("b", 5, "normal"), _waiting("unknown", 6, None),
        _waiting("strange", 7, "asap"), _waiting("high", 99, "high"), _waiting("a", 5, "normal"),
    ]  # fmt: skip
    assert [state.run_id for state in choose.order(waiting)] == ["high", "a", "b", "unknown", "strange", "late", "low"]


GPU = WorkerInfo(
    "gpu-1", "gpu", device="gpu", memory=8 << 30, versions={"keras": "3.15.1", "backend": "tensorflow", "tensorflow": "2.21.0"}
)
CPU = msgspec.structs.replace(GPU, worker_id="cpu-1", device="cpu", free=1)


@pytest.mark.parametrize(
    ("needs", "lack"),
    [
        ({}, ""),
        ({"keras": "3.15.0", "backend": "tensorflow", "backend_version": "2.21.3", "memory": 8 << 30}, ""),
        ({"keras": "3.16.0"}, "keras 3.16 (it has 3.15.1)"),
        ({"backend": "jax"}, "the backend jax (it has tensorflow)"),
        ({"backend": "tensorflow", "backend_version": "2.20.0"}, "tensorflow 2.20 (it has 2.21.0)"),
        ({"device": "gpu"}, "a GPU"),
        ({"memory": 16 << 30}, "16.0 GiB of memory (it has 8.0)"),
    ],
)
def test_a_worker_says_what_it_lacks(needs: dict[str, Any], lack: str) -> None:
    assert choose.unmet(Requirements(**needs), CPU) == lack


def test_a_worker_with_a_gpu_lacks_none_and_one_without_keras_lacks_everything() -> None:
    assert choose.unmet(Requirements(device="gpu"), GPU) == ""
    bare = WorkerInfo("w", "w")
    assert choose.unmet(Requirements(keras="3.15.1"), bare) == "keras 3.15 (it has none)"
    assert choose.unmet(Requirements(backend="jax"), bare) == "the backend jax (it has none)"
    assert choose.unmet(Requirements(memory=1 << 40), bare) == "", "it does not say how much memory it has"
    assert choose.unmet(Requirements(), msgspec.structs.replace(GPU, unfit="Keras cannot be imported")) == "Keras cannot be imported"


def test_a_waiting_run_says_what_it_waits_for() -> None:
    state = fold([submitted(requirements=Requirements(device="gpu"))])
    anything = fold([claimed(), of_attempt(control.Released, reason="unfit", detail="cpu-1 has too little memory")])
    busy = msgspec.structs.replace(CPU, free=0)
    other = msgspec.structs.replace(CPU, worker_id="cpu-2")
    assert choose.waiting_reason(state, []) == "Waiting for a worker: none is there. `kafka-jupyter worker` starts one."
    assert choose.waiting_reason(state, [CPU]) == "Waiting: no worker has a GPU. 1 worker is there."
    assert choose.waiting_reason(state, [CPU, other]) == "Waiting: no worker has a GPU. 2 workers are there."
    assert choose.waiting_reason(state, [CPU, GPU]) == "Waiting for a free slot: 1 worker is busy."
    assert choose.waiting_reason(anything, [CPU]) == "Waiting for another worker: cpu-1 has too little memory."
    assert choose.waiting_reason(anything, [CPU, other]) == ""
    assert (
        choose.waiting_reason(fold([submitted()]), [busy, msgspec.structs.replace(other, free=0)])
        == "Waiting for a free slot: 2 workers are busy."
    )
    unlucky = RunState(RUN, unfit=("cpu-1",))
    assert choose.waiting_reason(unlucky, [CPU]) == "Waiting for another worker: those there cannot run it."


CODE = Requirements(code=True, python="3.12.4", packages={"scikit-learn": "1.6.1", "keras": "==3.15.1"})
ABLE = WorkerInfo("w", "w", code=True, versions={"python": "3.12.9"}, packages={"scikit-learn": "1.6.0", "keras": "3.15.1"})


@pytest.mark.parametrize(
    ("changes", "lacks"),
    [
        ({}, ""),
        ({"code": False}, "been started to run code of tasks (`kafka-jupyter worker --allow-code`)"),
        ({"versions": {"python": "3.11.9"}}, "Python 3.12 (it has 3.11.9)"),
        ({"versions": {}}, "Python 3.12 (it has an unknown one)"),
        ({"packages": {"keras": "3.15.1"}}, "scikit-learn 1.6.1 (it has none)"),
        ({"packages": {"scikit-learn": "1.7.0", "keras": "3.15.1"}}, "scikit-learn 1.6.1 (it has 1.7.0)"),
        ({"packages": {"scikit-learn": "1.6.9", "keras": "3.15.2"}}, "keras 3.15.1 (it has 3.15.2)"),
    ],
)
def test_code_needs_a_worker_that_runs_it_with_the_same_python_and_packages(changes: dict[str, Any], lacks: str) -> None:
    assert choose.unmet(CODE, msgspec.structs.replace(ABLE, **changes)) == lacks


def test_packages_are_found_however_their_names_are_spelled() -> None:
    found = choose.normal_packages([("Scikit_Learn", "1.6.1"), ("ruamel.yaml", "0.18"), ("", "1")])
    assert found == {"scikit-learn": "1.6.1", "ruamel-yaml": "0.18"}
    needs = Requirements(packages={"scikit_learn": "1.6.0", "RUAMEL-yaml": "0.18.1"})
    assert choose.unmet(needs, WorkerInfo("w", "w", packages=found)) == ""


def test_a_training_that_speaks_to_somebody_needs_a_worker_that_lets_it() -> None:
    needs = Requirements(network=True)
    assert "--allow-network" in choose.unmet(needs, WorkerInfo("w", "w", network=False))
    assert choose.unmet(needs, WorkerInfo("w", "w")) == ""


def test_a_run_that_no_worker_believes_says_what_is_to_be_done() -> None:
    unsigned, signed = fold([submitted()]), msgspec.structs.replace(fold([submitted()]), submitter="00000000000000aa")
    strict = WorkerInfo("w", "w", free=1, policy="require")
    refusing = msgspec.structs.replace(strict, refused=["00000000000000aa"])
    assert "take signed tasks only. `kafka-jupyter keys init`" in choose.waiting_reason(unsigned, [strict])
    assert "no worker trusts the key 00000000000000aa" in choose.waiting_reason(signed, [refusing])
    assert choose.waiting_reason(signed, [refusing, strict]) == ""
    assert choose.waiting_reason(unsigned, [strict, WorkerInfo("o", "o", free=1, policy="off")]) == ""
