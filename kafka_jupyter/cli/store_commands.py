"""`store ls` and `store rm`: the artifacts that nobody deletes by himself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from kafka_jupyter.cli import completing, options, say
from kafka_jupyter.settings import env_name

if TYPE_CHECKING:
    from kafka_jupyter.store import Store

app = typer.Typer(name="store", help="List and delete stored artifacts.", no_args_is_help=True)

StoreUrl = Annotated[
    str | None, typer.Option("--store", envvar=env_name("store"), metavar="URL", help="kafka: or an fsspec URL such as s3://bucket/path.")
]


@app.command("ls")
def list_(
    as_json: options.Json = False,
    store: StoreUrl = None,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """List what is stored, with sizes.

    Example: kafka-jupyter store ls
    """
    with _opened(profile, servers, prefix, insecure, store) as opened:
        found = opened.ls()
    if as_json:
        say.json([{"kind": s.kind, "id": s.id, "name": s.name, "size": s.size, "stored_ms": s.stored_ms} for s in found])
        return
    say.table(("kind", "id", "size", "stored", "name"), [(s.kind, s.id, say.size(s.size), say.when(s.stored_ms), s.name) for s in found])
    say.line(f"{len(found)} artifact{'s' * (len(found) != 1)}, {say.size(sum(s.size for s in found))}")


@app.command("rm")
def remove(
    ids: Annotated[
        list[str],
        typer.Argument(metavar="ID…", autocompletion=completing.artifacts, help="As `store ls` prints them: a sha256 or an upload id."),
    ],
    as_json: options.Json = False,
    store: StoreUrl = None,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """Delete artifacts. Runs that still need them will say that they are missing.

    Example: kafka-jupyter store rm 3f2a9c01b7d4
    """
    with _opened(profile, servers, prefix, insecure, store) as opened:
        deleted = []
        try:
            for name in ids:
                opened.rm(name)
                deleted.append(name)
        finally:  # what went before the one that is not there is gone all the same
            if as_json:
                say.json({"deleted": deleted})
            else:
                for name in deleted:
                    say.line(f"deleted {name}")


@contextlib.contextmanager
def _opened(profile: str | None, servers: str | None, prefix: str | None, insecure: bool, store: str | None) -> Iterator[Store]:
    from kafka_jupyter.brokers import local
    from kafka_jupyter.brokers.kafka import Cluster
    from kafka_jupyter.brokers.log import Log
    from kafka_jupyter.store import open_store

    settings = local.resolve(options.settings_from(profile, servers, prefix, insecure, store=store))
    with contextlib.closing(Log.open(Cluster(settings))) as log, contextlib.closing(open_store(settings, log)) as opened:
        yield opened
