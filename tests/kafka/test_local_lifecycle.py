"""The local Kafka is started, found, killed, started again and stopped; each test on one of its own."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import psutil
import pytest

from kafka_jupyter.brokers import daemons, local, local_nodes
from kafka_jupyter.brokers.admin import Admin
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.local_nodes import Ports
from kafka_jupyter.errors import BrokerUnreachable, LocalKafkaBroken, LocalKafkaError
from kafka_jupyter.settings import Settings
from tests.support import local as support
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka


@pytest.fixture
def own(bare_settings: Settings) -> Iterator[Settings]:
    """Settings whose local Kafka is this test's alone; nothing of it is left at the end."""
    with support.stopped_at_the_end(bare_settings):
        yield bare_settings


def test_nothing_runs_before_the_first_start(own: Settings) -> None:
    assert local.endpoint(own) is None
    assert local.down(own) == []
    with pytest.raises(BrokerUnreachable, match="kafka-jupyter up"):
        local.resolve(own)


def test_records_and_cluster_id_survive_down_and_up(own: Settings) -> None:
    first = local.up(own)
    offset = support.write(own, b"kept")
    assert local.down(own) == ["node-1"]
    assert local.endpoint(own) is None
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in first.pids)

    second = local.up(own)
    assert second.cluster_id == first.cluster_id
    assert second.servers == first.servers
    assert support.read(own, offset) == b"kept"


def test_up_leaves_a_running_kafka_alone(own: Settings) -> None:
    told: list[str] = []
    first = local.up(own)
    assert local.up(own, progress=lambda text, part: told.append(text)) == first
    assert local.endpoint(own) == first
    assert told == []


def test_two_processes_that_start_at_once_make_one_kafka(own: Settings) -> None:
    env = support.environment(own)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: support.run_python(support.UP, env), range(2)))
    found = local.endpoint(own)
    assert found is not None
    assert answers == [found.servers, found.servers]


def test_it_outlives_the_shell_that_started_it(own: Settings) -> None:
    env = support.environment(own)
    shell = subprocess.run(["/bin/sh", "-c", f'"{sys.executable}" -c "{support.UP}"; echo $$'], env=env, capture_output=True, text=True)
    servers, shell_pid = shell.stdout.split()
    found = local.endpoint(own)
    assert found is not None
    assert found.servers == servers
    assert not psutil.pid_exists(int(shell_pid))
    assert os.getsid(found.pids[0]) not in (os.getsid(0), int(shell_pid)), "a hang-up of the terminal would end it"
    assert Admin(Cluster(local.resolve(own))).info().brokers == 1


def test_a_killed_broker_is_seen_and_the_next_up_recovers_what_was_acked(own: Settings) -> None:
    first = local.up(own)
    offset = support.write(own, b"acked")
    os.kill(first.pids[0], signal.SIGKILL)
    wait_until(lambda: local.endpoint(own) is None, "the killed broker still counts as running")
    recorded = local.recorded(own)
    assert recorded is not None
    assert [node.id for node in recorded.dead] == [1]

    second = local.up(own)
    assert second.pids != first.pids
    assert second.servers == first.servers
    assert support.read(own, offset) == b"acked"


def test_a_stale_pid_that_is_somebody_elses_now_is_left_alone(own: Settings) -> None:
    first = local.up(own)
    local.down(own)
    innocent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        node = first.nodes[0]
        earlier = node.daemon.started - 60  # before a reboot, say: up and down again here may take less time than start times tell apart
        stale = msgspec.structs.replace(node, daemon=msgspec.structs.replace(node.daemon, pid=innocent.pid, started=earlier))
        file = local.folder_of(own) / "endpoint.json"
        file.write_bytes(msgspec.json.encode(msgspec.structs.replace(first, nodes=(stale,))))
        assert local.endpoint(own) is None
        assert local.up(own).pids != (innocent.pid,)
        local.down(own)
        assert innocent.poll() is None
    finally:
        innocent.communicate(b"\n")


def test_a_kafka_that_nobody_wrote_down_is_replaced_not_doubled(own: Settings) -> None:
    first = local.up(own)
    offset = support.write(own, b"kept")
    (local.folder_of(own) / "endpoint.json").unlink()
    second = local.up(own)
    assert second.pids != first.pids
    assert not first.nodes[0].daemon.alive
    assert support.read(own, offset) == b"kept"


def test_a_start_that_was_killed_half_way_is_finished_by_the_next_up(own: Settings) -> None:
    env = support.environment(own)
    starting = subprocess.Popen([sys.executable, "-c", support.UP], env=env, stdout=subprocess.PIPE)
    with starting:
        half = wait_until(lambda: local.recorded(own), "the start wrote nothing down", within=30)
        starting.kill()
    if not half.ready:  # it is, if the kill came too late
        assert local.endpoint(own) is None, "nobody has seen it answer yet"
    whole = local.up(own)
    assert whole.ready
    assert whole.pids == half.pids
    assert support.read(own, support.write(own, b"fine")) == b"fine"


def test_a_folder_that_cannot_be_written_is_named(own: Settings) -> None:
    own.data_dir.write_text("a file where the folder should be")
    with pytest.raises(LocalKafkaError, match="KAFKA_JUPYTER_DATA_DIR"):
        local.up(own)


@pytest.mark.parametrize("junk", [b"", b"{", b'{"cluster_id": 7}', b"\xff\x00"])
def test_an_unreadable_endpoint_file_means_that_nothing_runs(own: Settings, junk: bytes) -> None:
    folder = local.folder_of(own)
    folder.mkdir(parents=True)
    (folder / "endpoint.json").write_bytes(junk)
    assert local.endpoint(own) is None


def test_ports_that_somebody_else_has_taken_are_chosen_anew(own: Settings) -> None:
    first = local.up(own)
    offset = support.write(own, b"moved")
    local.down(own)
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", first.nodes[0].ports.broker))
        squatter.listen()
        second = local.up(own)
        assert second.servers != first.servers
        assert second.nodes[0].ports.controller == first.nodes[0].ports.controller
        assert support.read(own, offset) == b"moved"


def test_another_kafka_that_was_quicker_at_the_port_is_not_taken_for_ours(
    own: Settings, kafka: local.Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([True])  # that the port is free, once: then the other one had it
    other, is_free = kafka.nodes[0].ports.broker, local_nodes._is_free
    monkeypatch.setattr(local_nodes, "_is_free", lambda port: next(looks, False) if port == other else is_free(port))
    local.folder_of(own).mkdir(parents=True)
    (local.folder_of(own) / "ports.json").write_bytes(msgspec.json.encode([Ports(other, 0)]))
    found = local.up(own)
    assert found.servers != kafka.servers
    assert Admin(Cluster(own.replace(bootstrap_servers=found.servers))).info().cluster_id == found.cluster_id != kafka.cluster_id
    assert found.nodes[0].daemon.alive


def test_notebooks_that_seed_chance_alike_do_not_choose_the_same_ports() -> None:
    chosen = set()
    for _ in range(5):
        random.seed(812)
        chosen.add(tuple(local_nodes.choose_ports(3, [])))
    assert len(chosen) == 5


def test_a_broker_that_does_not_come_up_says_why_and_leaves_no_process(own: Settings) -> None:
    local.up(own)
    local.down(own)
    meta = local.folder_of(own) / "node-1" / "meta.properties"
    meta.write_text(meta.read_text().replace("node.id=1", "node.id=7"))
    with pytest.raises(LocalKafkaBroken, match=r"node-1: it ended.*meta\.properties.*Its log is .*node-1\.log"):
        local.up(own)
    assert local.recorded(own) is None
    assert not [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(local.folder_of(own))]


def test_another_number_of_brokers_is_refused_while_there_are_data(own: Settings) -> None:
    local.up(own)
    with pytest.raises(LocalKafkaError, match=r"those of 1 broker, not 3.*--delete-data"):
        local.up(own, brokers=3)
    local.down(own, delete_data=True)
    assert local.brokers_formatted(own) == 0


def test_a_second_start_needs_no_network(own: Settings) -> None:
    local.up(own)
    local.down(own)
    nowhere = "http://127.0.0.1:9"
    env = support.environment(own, HTTP_PROXY=nowhere, HTTPS_PROXY=nowhere, http_proxy=nowhere, https_proxy=nowhere)
    assert "127.0.0.1" in support.run_python(support.UP, env | {"KAFKA_JUPYTER_MAVEN_URL": nowhere})


def test_a_path_with_spaces_commas_and_umlauts_is_a_good_place(own: Settings, tmp_path: pathlib.Path) -> None:
    odd = own.replace(data_dir=tmp_path / "Übungen, Woche 1")
    with support.stopped_at_the_end(odd):
        local.up(odd)
        assert support.read(odd, support.write(odd, b"here")) == b"here"


def test_a_java_that_is_not_there_is_named(own: Settings) -> None:
    with pytest.raises(LocalKafkaError, match="no Java at /no/such/java"):
        local.up(own.replace(java="/no/such/java"))


def test_daemons_start_without_the_settings_of_a_notebook_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    assert not {"JPY_PARENT_PID", "MPLBACKEND"} & set(daemons.python_environment())
