"""`topics init` and `topics check`: our topics on any cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from kafka_jupyter.cli import options, say
from kafka_jupyter.cli.exits import Code
from kafka_jupyter.settings import env_name

if TYPE_CHECKING:
    from kafka_jupyter.brokers.kafka import Cluster
    from kafka_jupyter.brokers.topics import Difference

app = typer.Typer(name="topics", help="Create and check the topics.", no_args_is_help=True)

Partitions = Annotated[
    int | None, typer.Option(envvar=env_name("partitions"), min=1, help="Of the keyed topics; can never be changed later.")
]
Replication = Annotated[
    int | None, typer.Option(envvar=env_name("replication"), min=0, max=9, help="0: three where there are three brokers.")
]
KeepDays = Annotated[float | None, typer.Option(envvar=env_name("keep_days"), help="How long the log of a run is kept.")]


@app.command()
def init(
    partitions: Partitions = None,
    replication: Replication = None,
    keep_days: KeepDays = None,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """Create the topics that are missing; say exactly how existing ones differ (exit code 1), and change none of them.

    Example: kafka-jupyter topics init --profile work --topic-prefix team1.
    """
    from kafka_jupyter.brokers import topics

    cluster = _cluster(profile, servers, prefix, insecure, partitions, replication, keep_days)
    created, differences = topics.init(cluster)
    _tell(differences, "all topics are there" if created else "all topics were there, as they should be", as_json, created)


@app.command()
def check(
    partitions: Partitions = None,
    replication: Replication = None,
    keep_days: KeepDays = None,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """Say exactly how the topics differ from what they must be; exit code 1 if they do. Changes nothing.

    Example: kafka-jupyter topics check --profile team1
    """
    from kafka_jupyter.brokers import topics

    cluster = _cluster(profile, servers, prefix, insecure, partitions, replication, keep_days)
    _tell(topics.check(cluster), "all topics are as they should be", as_json)


def _cluster(
    profile: str | None,
    servers: str | None,
    prefix: str | None,
    insecure: bool,
    partitions: int | None,
    replication: int | None,
    keep_days: float | None,
) -> Cluster:
    from kafka_jupyter.brokers import local
    from kafka_jupyter.brokers.kafka import Cluster

    settings = options.settings_from(
        profile, servers, prefix, insecure, partitions=partitions, replication=replication, keep_days=keep_days
    )
    return Cluster(local.resolve(settings))


def _tell(differences: Sequence[Difference], fine: str, as_json: bool, created: Sequence[str] = ()) -> None:
    if as_json:
        say.json({"created": created, "differences": [dataclasses.asdict(difference) for difference in differences]})
    else:
        for text in (*(f"created {name}" for name in created), *map(str, differences)):
            say.line(text)
    if differences:
        raise typer.Exit(Code.ERROR)
    if not as_json:
        say.line(fine)
