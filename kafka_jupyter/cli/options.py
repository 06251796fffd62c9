"""The options that several commands share. Each has its KAFKA_JUPYTER_* twin, which typer shows in --help."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kafka_jupyter.settings import Settings, env_name

Profile = Annotated[
    str | None, typer.Option("--profile", "-p", envvar=env_name("profile"), metavar="NAME", help="Table of the profile file to use.")
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
Json = Annotated[bool, typer.Option("--json", envvar=env_name("json"), help="Print JSON.")]


def settings_from(profile: str | None = None, servers: str | None = None, prefix: str | None = None, **more: Any) -> Settings:
    """Settings of a command line: its options, then the environment, then the profile."""
    return Settings.from_env(profile=profile, bootstrap_servers=servers, topic_prefix=prefix, **more)
