"""Tab completion, and the script that switches it on in a shell.

What a shell is given here it evaluates, and it asks at every press of a key: answers are made of a few plain characters only, they come
within about a second, and nothing is said where there is no Kafka.
"""

from __future__ import annotations

import contextlib
import enum
import os
import re
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kafka_jupyter.cli import say
from kafka_jupyter.cli.facts import GROUPS
from kafka_jupyter.runs.values import TERMINAL, State
from kafka_jupyter.settings import Settings, profiles

if TYPE_CHECKING:
    from kafka_jupyter.brokers.log import Log
    from kafka_jupyter.runs.state import RunState

NAME = "kafka-jupyter"
ASKED = "_KAFKA_JUPYTER_COMPLETE"  # set by the script below where a shell asks
PATIENCE_S = 1.0
OFFERED = 50
SETTINGS = ("lr=", "learning_rate=")

Offer = tuple[str, str]  # what is offered, and what some shells show beside it

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # nothing that a shell would expand, split or run
_FOR: dict[str, frozenset[State]] = {  # the states in which a command has something to do
    **dict.fromkeys(("stop", "cancel", "pause", "ctl"), frozenset(State) - TERMINAL),
    "resume": frozenset({State.PAUSED, State.PAUSING}),
    "retry": TERMINAL - {State.SUCCEEDED},
}


class Shell(enum.StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    ctx: typer.Context, shell: Annotated[Shell, typer.Argument(metavar="|".join(Shell), help="The shell that shall complete.")]
) -> None:
    """Print a script with which a shell completes commands, options, runs and states.

    In ~/.bashrc: source <(kafka-jupyter completion bash). In ~/.zshrc, behind compinit: source <(kafka-jupyter completion zsh).
    For fish: kafka-jupyter completion fish > ~/.config/fish/completions/kafka-jupyter.fish

    Example: kafka-jupyter completion bash
    """
    from typer.completion import shell_complete

    _make_shells_known()
    raise typer.Exit(shell_complete(ctx.find_root().command, {}, NAME, ASKED, f"source_{shell}"))


def begin() -> None:
    """What must be done before typer answers a shell. Nothing may appear behind its cursor, so that stderr goes nowhere."""
    _make_shells_known()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _make_shells_known() -> None:
    """To typer, which does so itself only where it has the options --install-completion and --show-completion."""
    from typer.completion import get_completion_inspect_parameters

    get_completion_inspect_parameters()


def runs(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Ids, and the names of my own runs, of the runs for which the command has something to do."""

    def ask(settings: Settings, log: Log) -> list[Offer]:
        from kafka_jupyter.brokers.follow import Follower

        follower = Follower(log, rows=False)
        follower.start(PATIENCE_S)
        return offers(follower.states(), _FOR.get(ctx.info_name or "", frozenset(State)), settings.owner, incomplete)

    return _asked(ctx, ask)


def offers(found: Iterable[RunState], states: frozenset[State], owner: str, incomplete: str) -> list[Offer]:
    """Newest first. Pure."""
    from kafka_jupyter.client import find  # late: it loads the Kafka client

    known: dict[str, str] = {}
    for state in sorted(found, key=find.newness, reverse=True):
        if state.state in states:
            names = [find.name_of(state)] if find.owner_of(state) == owner else []
            for word in (*names, state.run_id):
                if word.startswith(incomplete) and _PLAIN.fullmatch(word):
                    known.setdefault(word, f"{state.state} {say.ago(state.born_ms)}".strip())
    return list(known.items())[:OFFERED]


def letters(ctx: typer.Context, incomplete: str) -> list[Offer]:
    def ask(_settings: Settings, log: Log) -> list[Offer]:
        from kafka_jupyter.brokers import dead_letters

        return _plain(((buried.letter.run_id, say.ago(buried.time_ms)) for buried in dead_letters.newest(log, OFFERED)), incomplete)

    return _asked(ctx, ask)


def artifacts(ctx: typer.Context, incomplete: str) -> list[Offer]:
    def ask(settings: Settings, log: Log) -> list[Offer]:
        from kafka_jupyter.store import open_store

        stored = open_store(settings, log).ls()
        return _plain(((each.id, f"{each.kind} {say.size(each.size)}") for each in stored), incomplete)

    return _asked(ctx, ask)


def states(incomplete: str) -> list[str]:
    """Behind a comma the next one: `running,qu` → `running,queued`."""
    before, comma, word = incomplete.rpartition(",")
    given = before.lower().split(",")
    names = [name.lower() for name in (*State, *GROUPS) if name.lower() not in given]
    return [f"{before}{comma}{name}" for name in names if name.startswith(word.lower())]


def settings(incomplete: str) -> list[str]:
    return [name for name in SETTINGS if name.startswith(incomplete)]


def profile_names(incomplete: str) -> list[str]:
    return [name for name, _ in _plain(((name, "") for name in profiles()), incomplete)]


def _plain(found: Iterable[Offer], incomplete: str) -> list[Offer]:
    return [(word, text) for word, text in found if word.startswith(incomplete) and _PLAIN.fullmatch(word)][:OFFERED]


def _asked(ctx: typer.Context, ask: Callable[[Settings, Log], list[Offer]]) -> list[Offer]:
    """What `ask` finds in the log of the cluster that the command line names."""

    def work() -> list[Offer]:
        from kafka_jupyter.brokers import local
        from kafka_jupyter.brokers.kafka import Cluster
        from kafka_jupyter.brokers.log import Log
        from kafka_jupyter.brokers.topics import open_topics

        cluster = Cluster(local.resolve(_settings(ctx.params)))
        return ask(cluster.settings, Log(cluster, open_topics(cluster)))

    return in_time(work)


def in_time(work: Callable[[], list[Offer]]) -> list[Offer]:
    """Nothing where it fails or takes longer than PATIENCE_S: the person finds out why from the command itself."""
    found: list[Offer] = []

    def tried() -> None:
        with contextlib.suppress(Exception):
            found.extend(work())

    thread = threading.Thread(target=tried, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return list(found)


def _settings(given: dict[str, Any]) -> Settings:
    names = {"profile": "profile", "bootstrap_servers": "servers", "topic_prefix": "prefix", "store": "store", "insecure": "insecure"}
    return Settings.from_env(connect_timeout_s=PATIENCE_S, **{name: given.get(param) or None for name, param in names.items()})
