"""The checks of `doctor` that look at Kafka and at the workers."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator

from kafka_jupyter.brokers import local, local_daemons
from kafka_jupyter.brokers import topics as broker_topics
from kafka_jupyter.brokers.admin import Admin
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.cli.checks import FAIL, OK, WARN, Finding, version_of
from kafka_jupyter.errors import BrokerError, SettingsError
from kafka_jupyter.protocol import topics as spec
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.settings import Settings

_LOOSE = {"network": "the network", "secrets": "its user's keys", "memory": "all of the memory"}
_SLOW_MS = 100.0  # a broker so far away makes the card feel slow
_SKEW_S = 5.0  # clocks of two machines are shown, never compared: a difference only makes ages look odd


def daemons(settings: Settings) -> Iterator[Finding]:
    """What was started in the background and has ended without `down`."""
    last = local.recorded(settings)
    for node in last.dead if last else ():
        yield Finding(WARN, f"{node.daemon.name} of the local Kafka has ended; its log is {node.daemon.log}", "kafka-jupyter up")
    for daemon in local_daemons.recorded(local.folder_of(settings)):
        if not daemon.alive:
            yield Finding(WARN, f"{daemon.name} has ended; its log is {daemon.log}", "kafka-jupyter up")


def broker(settings: Settings) -> Iterator[Finding]:
    running = local.endpoint(settings)
    servers = settings.bootstrap_servers or (running.servers if running else "")
    if not servers:
        yield Finding(
            FAIL, "no Kafka: none is configured and no local one runs", "kafka-jupyter up, or set KAFKA_JUPYTER_BOOTSTRAP_SERVERS"
        )
        return
    try:
        cluster = Cluster(settings.replace(bootstrap_servers=servers))
    except SettingsError as error:
        yield Finding(FAIL, str(error), "see the settings of the profile")
        return
    if cluster.weakness is not None:
        yield Finding(WARN, f"{cluster.weakness.fields['name']}: {cluster.weakness.fields['why']}", "TLS; this is allowed by `insecure`")
    try:
        info = Admin(cluster).info()
    except BrokerError as error:
        logs = local.folder_of(settings) / "logs"
        way_out = (
            "see the settings of the profile" if settings.bootstrap_servers else f"its logs are in {logs}; kafka-jupyter down, then up"
        )
        yield Finding(FAIL, str(error), way_out)
        return
    yield Finding(OK, f"Kafka at {servers} answers: {info.brokers} broker{'s' * (info.brokers != 1)}, cluster {info.cluster_id}")


def topics(settings: Settings) -> Iterator[Finding]:
    differences = broker_topics.check(Cluster(settings))
    for difference in differences:
        if difference.what == "missing":
            yield Finding(FAIL, str(difference), "kafka-jupyter topics init")
        else:
            yield Finding(WARN, str(difference), "change the topic, or our setting: kafka-jupyter topics init --help")
    if not differences:
        yield Finding(OK, f"all {len(spec.table())} topics are as they should be")


def round_trip(settings: Settings) -> Iterator[Finding]:
    """A record there and back: a tombstone of an upload that never was, which nobody minds."""
    with contextlib.closing(Log.open(Cluster(settings))) as log:
        key = f"upload/doctor-{secrets.token_hex(4)}"
        place = log.topics.place(spec.ARTIFACT_INDEX, key)
        log.bury(spec.ARTIFACT_INDEX, key, "artifact")  # the first one also opens connections
        before = time.time()
        started = time.perf_counter()
        offset = log.bury(spec.ARTIFACT_INDEX, key, "artifact")
        took_ms = (time.perf_counter() - started) * 1000
        message = next(log.read_range(place, offset, offset + 1))
    skew = message.time_ms / 1000 - (before + took_ms / 2000)
    text = f"a record is acknowledged in {took_ms:.1f} ms"
    yield Finding(OK, text) if took_ms < _SLOW_MS else Finding(WARN, text, "a broker nearer by makes cards move sooner")
    if abs(skew) > _SKEW_S:
        yield Finding(WARN, f"this clock and Kafka's differ by {skew:+.1f} s", "set both by NTP; ages in cards are wrong until then")
    else:
        yield Finding(OK, f"this clock and Kafka's differ by {abs(skew) * 1000:.0f} ms")


def trust(settings: Settings) -> Iterator[Finding]:
    """Whether anybody would read what we write."""
    from kafka_jupyter.trust.gate import Gate
    from kafka_jupyter.trust.judge import Policy

    gate = Gate(settings)
    own, roles = gate.signer.current(), ", ".join(sorted(gate.signer.roles()))
    if gate.policy is Policy.OFF:
        text = "nobody asks who has written a record (trust_policy is off): whoever may write to the topics may submit and steer runs"
        yield Finding(WARN, text, "docs/security.md; kafka-jupyter keys init makes a key")
    elif own is None or not roles:
        text = f"our key {own.kid} is not trusted" if own else "we have no key"
        way_out = "kafka-jupyter keys export, for whoever keeps that file" if own else "kafka-jupyter keys init"
        yield Finding(FAIL, f"{text} by {settings.trust_file}: what we write is not read", way_out)
    else:
        yield Finding(OK, f"records are judged by {settings.trust_file} ({gate.policy}); our key {own.kid} is trusted as {roles}")


def _caged(info: WorkerInfo) -> Iterator[Finding]:
    """What a worker that runs other people's code cannot forbid it."""
    loose = [what for part, what in _LOOSE.items() if part not in info.cage and not (part == "network" and info.network)]
    if info.code and loose and info.policy:
        text = f"worker {info.name} on {info.host} runs code of tasks and cannot keep it from {' and '.join(loose)}"
        yield Finding(WARN, text, "a platform with user namespaces, or a container that holds nothing else: docs/security.md")


def workers(settings: Settings) -> Iterator[Finding]:
    from kafka_jupyter.client import Client

    with contextlib.closing(Client(settings)) as client:
        found = client.workers()
    if not found:
        yield Finding(WARN, "no worker is there: runs wait", "kafka-jupyter worker, or kafka-jupyter up")
    ours = version_of("keras")
    for info in found:
        theirs = info.versions.get("keras", "")
        text = f"worker {info.name} on {info.host}: {info.free} of {info.slots} slots free, keras {theirs or 'unknown'}"
        if info.unfit:
            yield Finding(FAIL, f"worker {info.name} on {info.host} takes nothing: {info.unfit}", "repair it there, then start it again")
        elif ours and theirs and ours != theirs:
            yield Finding(WARN, f"{text}; here it is {ours}", f"install the same: pip install keras=={ours}")
        else:
            yield Finding(OK, text)
        yield from _caged(info)
