"""`doctor`: looks at everything a run needs and says, line by line, what is well, what is not, and the way out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import typer

from kafka_jupyter.cli import options, say
from kafka_jupyter.cli.exits import Code
from kafka_jupyter.errors import KafkaJupyterError
from kafka_jupyter.settings import Settings

if TYPE_CHECKING:
    from kafka_jupyter.cli.checks import Finding


def add_to(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """Check Python, Java, Kafka, topics, workers, disks and clocks; exit code 1 if something must be repaired.

    Example: kafka-jupyter doctor
    """
    settings = options.settings_from(profile, servers, prefix, insecure)
    findings = list(examine(settings))
    if as_json:
        say.json([dataclasses.asdict(finding) for finding in findings])
    else:
        for finding in findings:
            say.line(f"{finding.level:5} {finding.text}")
            if finding.way_out:
                say.line(f"      → {finding.way_out}")
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(Code.ERROR)


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, in order. What needs Kafka is looked at only if it answers; a check that breaks is a finding too."""
    from kafka_jupyter.brokers import local
    from kafka_jupyter.cli import checks, checks_kafka

    for check in (checks.python, checks.extras, checks.java, checks.jars, checks.disk, checks.cache, checks_kafka.daemons):
        yield from _tried(check, settings)
    found = list(checks_kafka.broker(settings))
    yield from found
    if not any(finding.level == checks.FAIL for finding in found):
        reachable = local.resolve(settings)
        for check in (checks_kafka.topics, checks_kafka.trust, checks_kafka.round_trip, checks_kafka.workers):
            yield from _tried(check, reachable)


def _tried(check: Callable[[Settings], Iterator[Finding]], settings: Settings) -> Iterator[Finding]:
    from kafka_jupyter.cli import checks

    try:
        yield from check(settings)
    except KafkaJupyterError as error:
        yield checks.Finding(checks.FAIL, str(error))
