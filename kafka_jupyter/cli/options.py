"""What several commands share: arguments, options and the client. Each option has its KAFKA_JUPYTER_* twin, which typer shows in --help."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kafka_jupyter.cli import completing
from kafka_jupyter.settings import Settings, env_name

if TYPE_CHECKING:
    from kafka_jupyter.client import Client

Run = Annotated[
    str,
    typer.Argument(metavar="RUN", autocompletion=completing.runs, help="An id, a unique beginning of one, or my newest run of that name."),
]
Force = Annotated[bool, typer.Option("--force", help="Another person's run; it needs its whole id.")]
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        "-p",
        envvar=env_name("profile"),
        metavar="NAME",
        autocompletion=completing.profile_names,
        help="Table of the profile file to use.",
    ),
]
Servers = Annotated[
    str | None,
    typer.Option(
        "--bootstrap-servers", envvar=env_name("bootstrap_servers"), metavar="HOST:PORT,…", help="Kafka to use instead of the local one."
    ),
]
Prefix = Annotated[
    str | None, typer.Option("--topic-prefix", envvar=env_name("topic_prefix"), metavar="TEXT", help="What our topics' names begin with.")
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        envvar=env_name("insecure"),
        help="Speak to a Kafka elsewhere without TLS, or without looking at its certificate.",
    ),
]
Json = Annotated[bool, typer.Option("--json", envvar=env_name("json"), help="Print JSON.")]


def settings_from(
    profile: str | None = None, servers: str | None = None, prefix: str | None = None, insecure: bool = False, **more: Any
) -> Settings:
    """Settings of a command line: its options, then the environment, then the profile."""
    return Settings.from_env(profile=profile, bootstrap_servers=servers, topic_prefix=prefix, insecure=insecure or None, **more)


@contextlib.contextmanager
def client_of(profile: str | None, servers: str | None, prefix: str | None, insecure: bool) -> Iterator[Client]:
    from kafka_jupyter.client import Client  # late: --help needs no Kafka client

    with contextlib.closing(Client(settings_from(profile, servers, prefix, insecure))) as client:
        yield client
