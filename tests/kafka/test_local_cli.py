"""`up`, `down`, `status`, `doctor`, `topics`, `store` against a real local Kafka."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from kafka_jupyter.brokers import local
from kafka_jupyter.brokers.admin import Admin
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.topics import Topics
from kafka_jupyter.errors import ArtifactMissing
from kafka_jupyter.protocol import topics as spec
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import open_store
from kafka_jupyter.trust.keys import KeyFolder
from tests.support.cli import cli, documented
from tests.support.local import environment as child_environment
from tests.support.local import stopped_at_the_end
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka


@pytest.mark.timeout(600)  # a worker loads TensorFlow
def test_up_starts_kafka_and_a_worker_and_down_stops_them(bare_settings: Settings) -> None:
    with stopped_at_the_end(bare_settings):
        done = subprocess.run(
            [sys.executable, "-m", "kafka_jupyter.cli", "up", "--json"],
            env=child_environment(bare_settings), capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "Formatting the data folder (once) …" in done.stderr
        started = json.loads(done.stdout)
        assert set(started) == documented("status") | {"lab"}
        said = cli("up", settings=bare_settings).out
        assert f"is ready at {started['servers']} (1 broker)" in said
        assert f"worker local-1: pid {started['background'][0]['pid']}, log " in said

        status = json.loads(cli("status", "--json", settings=bare_settings).out)
        assert status["answers"]
        assert [(d["name"], d["alive"]) for d in status["background"]] == [("local-1", True)]
        assert [n["alive"] for n in status["brokers"]] == [True]
        assert all(os.path.exists(d["log"]) for d in status["brokers"] + status["background"])

        workers = json.loads(cli("workers", "--json", settings=bare_settings).out)
        assert [w["name"] for w in workers] == ["local-1"]
        said = cli("doctor", settings=bare_settings)
        assert said.code == 0, said.out
        assert "ok    worker local-1 on" in said.out

        assert cli("down", settings=bare_settings).out == "stopped: local-1, node-1\n"
        assert cli("down", settings=bare_settings).out == "nothing was running\n"


def test_status_tells_of_a_killed_broker_and_the_way_out(bare_settings: Settings) -> None:
    with stopped_at_the_end(bare_settings):
        found = local.up(bare_settings)
        assert cli("status", settings=bare_settings).out.startswith(f"The local Kafka runs at {found.servers}")
        os.kill(found.pids[0], signal.SIGKILL)
        wait_until(lambda: local.endpoint(bare_settings) is None, "the killed broker still counts as running")

        said = cli("status", settings=bare_settings)
        assert said.code == 4
        assert "node-1: ended without `down`" in said.out
        assert "`kafka-jupyter up` starts what has ended again" in said.out
        assert found.logs[0] in said.out
        said = cli("doctor", settings=bare_settings)
        assert said.code == 1
        assert "warn  node-1 of the local Kafka has ended" in said.out
        assert "fail  no Kafka" in said.out


def test_doctor_finds_nothing_to_repair_on_a_good_cluster(topics: Topics, settings: Settings) -> None:
    said = cli("doctor", settings=settings)
    assert said.code == 0, said.out
    for text in ("answers: 1 broker", "all 8 topics are as they should be", "a record is acknowledged in", "clock", "no worker is there",
                 "is trusted as code, submitter, worker"):  # fmt: skip
        assert text in said.out


def test_doctor_says_what_is_allowed_that_is_not_private(
    topics: Topics, settings: Settings, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "profiles.toml").write_text('[default.kafka]\n"enable.ssl.certificate.verification" = "false"\n')
    monkeypatch.setenv("KAFKA_JUPYTER_CONFIG", str(tmp_path / "profiles.toml"))
    refused = cli("doctor", settings=settings)
    assert (refused.code, "fail  The setting enable.ssl.certificate.verification=false" in refused.out) == (1, True), refused.out
    allowed = cli("doctor", "--insecure", settings=settings)
    assert (allowed.code, "warn  enable.ssl.certificate.verification=false: anybody could pass for this" in allowed.out) == (0, True)
    assert "a record is acknowledged in" in allowed.out


def test_doctor_names_missing_topics_and_an_unwritable_cache(settings: Settings) -> None:
    settings.cache_dir.write_text("a file where the folder should be")
    said = cli("doctor", settings=settings)
    assert said.code == 1
    assert f"fail  {settings.topic_prefix}task: missing" in said.out
    assert "→ kafka-jupyter topics init" in said.out
    assert f"fail  the cache {settings.cache_dir} cannot be written" in said.out


def test_doctor_says_whether_anybody_would_read_what_we_write(
    topics: Topics, settings: Settings, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_JUPYTER_KEY_DIR", str(tmp_path / "keys"))
    said = cli("doctor", settings=settings)
    assert (said.code, "fail  we have no key by" in said.out, "→ kafka-jupyter keys init" in said.out) == (1, True, True)
    key = KeyFolder(tmp_path / "keys").make(0)
    said = cli("doctor", settings=settings)
    assert (said.code, f"fail  our key {key.kid} is not trusted by" in said.out) == (1, True)
    monkeypatch.setenv("KAFKA_JUPYTER_TRUST_POLICY", "off")
    said = cli("doctor", settings=settings)
    assert (said.code, "warn  nobody asks who has written a record" in said.out) == (0, True)


def test_doctor_names_what_a_worker_that_runs_code_cannot_keep_it_from(log: Log, settings: Settings) -> None:
    all_of_it = ["network", "secrets", "privileges", "memory"]
    for name, cage, network in (("good", all_of_it, False), ("open", all_of_it[1:], True), ("loose", all_of_it[2:], False)):
        log.send_worker(WorkerInfo(f"{name}-1", name, host="box", code=True, cage=cage, network=network, policy="require"))
    assert log.producer.flush(10) == 0
    said = cli("doctor", settings=settings)
    assert said.out.count("cannot keep it from") == 1
    assert "warn  worker loose on box runs code of tasks and cannot keep it from the network and its user's keys" in said.out


def test_doctor_says_when_nobody_answers(bare_settings: Settings) -> None:
    said = cli("doctor", settings=bare_settings.replace(bootstrap_servers="127.0.0.1:9"))
    assert said.code == 1
    assert "fail  No Kafka broker answered at 127.0.0.1:9" in said.out


def test_topics_are_made_checked_and_differences_named(settings: Settings) -> None:
    assert cli("topics", "check", settings=settings).code == 1
    said = cli("topics", "init", settings=settings)
    assert said.code == 0
    assert f"created {settings.topic_prefix}run_control" in said.out
    assert cli("topics", "check", settings=settings).out == "all topics are as they should be\n"
    said = cli("topics", "init", "--partitions", "5", settings=settings)
    assert said.code == 1
    assert f"{settings.topic_prefix}task: partitions is 3, should be 5" in said.out


def test_topics_init_says_exactly_what_differs_and_changes_nothing(settings: Settings, topics: Topics) -> None:
    admin, name = Admin(Cluster(settings)), topics.name(spec.TASK_DLQ)
    admin.delete([name])
    wait_until(lambda: name not in admin.info().partitions, "the topic is still there")
    admin.create([(name, 3, 1, {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime", "retention.ms": "7776000000"})])
    wait_until(lambda: name in admin.info().partitions, "the topic is not there")
    said = cli("topics", "init", settings=settings)
    assert (said.code, said.out) == (1, f"{name}: cleanup.policy is compact, should be delete\n")
    said = cli("topics", "init", "--replication", "2", "--keep-days", "7", settings=settings)
    assert said.code == 1
    expected = []
    for each in spec.table():
        expected.append(f"{topics.name(each.name)}: replication is 1, should be 2")
        if each.name == spec.TASK_DLQ:
            expected.append(f"{name}: cleanup.policy is compact, should be delete")
        elif each.cleanup == "delete":
            expected.append(f"{topics.name(each.name)}: retention.ms is 2592000000, should be 604800000")
    assert said.out.splitlines() == expected
    assert cli("topics", "check", settings=settings).out == f"{name}: cleanup.policy is compact, should be delete\n"


def test_the_store_is_listed_and_artifacts_are_deleted(topics: Topics, settings: Settings) -> None:
    with contextlib.closing(Log(Cluster(settings), topics)) as log, contextlib.closing(open_store(settings, log)) as store:
        store.put("weights", 5, iter([b"bytes"]))
    listed = json.loads(cli("store", "ls", "--json", settings=settings).out)
    assert [(s["name"], s["size"]) for s in listed] == [("weights", 5)]
    assert "1 artifact, 5 B" in cli("store", "ls", settings=settings).out
    assert cli("store", "rm", listed[0]["id"], settings=settings).out == f"deleted {listed[0]['id']}\n"
    assert json.loads(cli("store", "ls", "--json", settings=settings).out) == []
    assert isinstance(cli("store", "rm", listed[0]["id"], settings=settings).error, ArtifactMissing)


def test_a_lab_is_started_for_each_folder_and_all_are_stopped_with_kafka(bare_settings: Settings, tmp_path: pathlib.Path) -> None:
    env = child_environment(bare_settings, BROWSER="true")
    books = {name: tmp_path / name / "deep" / f"{name}.ipynb" for name in ("one", "other")}
    for name, book in books.items():
        book.parent.mkdir(parents=True)
        book.write_text(json.dumps({"cells": [], "metadata": {"name": name}, "nbformat": 4, "nbformat_minor": 5}))

    def address(*words: str, cwd: pathlib.Path) -> str:
        command = [sys.executable, "-m", "kafka_jupyter.cli", "up", "--workers", "0", "--lab", *words]
        done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("JupyterLab: ")]
        return line.removeprefix("JupyterLab: ")

    def shown(link: str) -> str:
        """The name in the notebook that the link opens."""
        url = link.replace("/lab/tree/", "/api/contents/")
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(json.loads(answer.read())["content"]["metadata"]["name"])

    with stopped_at_the_end(bare_settings):
        whole = address(cwd=tmp_path / "one")
        assert re.fullmatch(r"http://localhost:\d+/lab\?token=\w+", whole)
        inside = address("--notebook", str(books["one"]), cwd=tmp_path)
        assert inside == whole.replace("/lab?", "/lab/tree/deep/one.ipynb?"), "the one that shows this folder was not taken"
        assert shown(inside) == "one"
        assert shown(address("--notebook", str(books["other"]), cwd=tmp_path)) == "other"
        assert set(local.down(bare_settings)) == {"lab", "lab-2", "node-1"}


def test_settings_of_the_command_line_win_over_the_environment(kafka: local.Endpoint, settings: Settings) -> None:
    said = cli("topics", "init", "--bootstrap-servers", kafka.servers, settings=settings.replace(bootstrap_servers="127.0.0.1:9"))
    assert said.code == 0, said.error
