"""`runs`, `show`, `workers`: what is in the log, as tables or JSON."""

from __future__ import annotations

import enum
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kafka_jupyter.cli import completing, facts, options, say
from kafka_jupyter.protocol.rows import EpochEnded
from kafka_jupyter.runs import figures
from kafka_jupyter.runs.values import State
from kafka_jupyter.settings import env_name

if TYPE_CHECKING:
    from kafka_jupyter.client import Client, TrainingRun

COLUMNS = ("run", "state", "progress", "metric", "worker", "submitted", "owner")

States = Annotated[
    str | None,
    typer.Option(
        "--state",
        envvar=env_name("state"),
        metavar="STATE,…",
        autocompletion=completing.states,
        help="Only those in one of these states, e.g. running,queued; `active` and `ended` mean several.",
    ),
]


class Sort(enum.StrEnum):
    NEWEST = "newest"
    OLDEST = "oldest"
    NAME = "name"
    STATE = "state"


def add_to(app: typer.Typer) -> None:
    for command in (runs, show, workers):
        app.command()(command)


def runs(
    state: States = None,
    name: Annotated[str | None, typer.Option(envvar=env_name("run_name"), help="Only those of this name.")] = None,
    owner: Annotated[str | None, typer.Option(envvar=env_name("run_owner"), help="Only those of this person.")] = None,
    mine: Annotated[bool, typer.Option("--mine", envvar=env_name("mine"), help="Only my own.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", envvar=env_name("limit"), min=1, help="At most so many.")] = 30,
    sort: Annotated[Sort, typer.Option(envvar=env_name("sort"), help="What comes first.")] = Sort.NEWEST,
    watch: Annotated[bool, typer.Option("--watch", "-w", envvar=env_name("watch"), help="Stay, and show it as it changes.")] = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """List the runs, newest first.

    Example: kafka-jupyter runs --mine --state running,queued
    """
    wanted = states_of(state)
    if mine and owner is not None:
        raise typer.BadParameter("it says already whose; leave --owner out", param_hint="--mine")
    if watch and (as_json or not say.moves()):
        raise typer.BadParameter("it needs a terminal; `follow --json` tells a program what happens", param_hint="--watch")
    with options.client_of(profile, servers, prefix, insecure) as client:

        def listed() -> list[tuple[dict[str, Any], facts.Rows]]:
            found = client.runs(state=wanted, name=name, owner=client.settings.owner if mine else owner)
            cards = [run.card() for run in in_order(found, sort)[:limit]]
            return [(card, _rows_here(client, card)) for card in cards]

        if watch:
            from kafka_jupyter.cli import live

            live.watch(lambda: say.grid(COLUMNS, [_row(card, rows) for card, rows in listed()]))
        elif as_json:
            now_ms = time.time() * 1000
            say.json([facts.run_json(card, rows, now_ms) for card, rows in listed()])
        elif found := listed():
            say.table(COLUMNS, [_row(card, rows) for card, rows in found])
        else:
            say.line("no runs")


def states_of(text: str | None) -> frozenset[str] | None:
    """`running,Queued` → RUNNING and QUEUED. Raises a usage error that names the states."""
    words = [word.strip().upper() for word in (text or "").split(",") if word.strip()]
    unknown = [word for word in words if word not in facts.GROUPS and word not in State.__members__]
    if unknown:
        known = ", ".join(word.lower() for word in (*State.__members__, *facts.GROUPS))
        raise typer.BadParameter(f"there is no state {unknown[0].lower()!r} (there are {known})", param_hint="--state")
    return frozenset(str(state) for word in words for state in facts.GROUPS.get(word, (word,))) or None


def in_order(found: list[TrainingRun], sort: Sort) -> list[TrainingRun]:
    """`found`: the newest first, and so within a name or a state."""
    if sort is Sort.NEWEST:
        return found
    return found[::-1] if sort is Sort.OLDEST else sorted(found, key=lambda run: str(getattr(run, sort)))


def _rows_here(client: Client, card: dict[str, Any]) -> facts.Rows:
    """Those in memory: of runs that have not ended, as far back as a follower looks when it begins. No run is read for a list."""
    history = client.connection().follower().history_here(card["run_id"])
    return history.rows if history is not None else ()


def _row(card: dict[str, Any], rows: facts.Rows) -> tuple[object, ...]:
    epochs, batch = facts.epochs_of(rows), facts.batch_of(rows)
    far = facts.far(card, epochs, batch, time.time() * 1000)
    return (card["run_id"], card["state"], far, _metric(card, epochs), card["worker"], say.ago(card["submitted_ms"]), card["owner"])


def _metric(card: dict[str, Any], epochs: list[figures.Row]) -> str:
    """`val_accuracy 0.9744 @12`: the best value and its epoch; without its epoch, the last one: of a run that ended long ago."""
    best = facts.headline(epochs) or facts.headline([{"epoch": 0, "metrics": card["metrics"]}])
    return f"{best.name} {figures.metric(best.best)}" + (f" @{best.best_epoch}" if epochs else "") if best else ""


def show(
    run: options.Run,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """Show one run: its state, every epoch, and the error if it failed.

    Example: kafka-jupyter show digits-3f2a
    """
    with options.client_of(profile, servers, prefix, insecure) as client:
        found = client.attach(run)
        if as_json:
            rows = found.rows()
            told = [{"attempt": attempt, **say.whole(row)} for attempt, row in rows]
            say.json({"run": facts.run_json(found.card(), rows, time.time() * 1000), "rows": told})
        else:
            _show(found)


def workers(
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """List the workers that are alive.

    Example: kafka-jupyter workers
    """
    with options.client_of(profile, servers, prefix, insecure) as client:
        found = client.workers()
    if as_json:
        say.json(found)
    elif not found:
        say.line("no workers. `kafka-jupyter worker` starts one")
    else:
        columns = ("worker", "host", "slots", "free", "device", "keras", "memory", "code", "running")
        say.table(columns, [_worker(info) for info in found])


def _worker(info: Any) -> tuple[object, ...]:
    doing = ", ".join(info.running) or info.unfit
    keras = info.versions.get("keras", "")
    return (info.name, info.host, info.slots, info.free, info.device, keras, say.size(info.memory), "yes" if info.code else "no", doing)


def _show(run: TrainingRun) -> None:
    card = run.card()
    say.line(f"{run.id} {card['state']}, {run.progress}")
    facts_ = {
        "owner": card["owner"],
        "submitted": say.when(card["submitted_ms"]),
        "took": _took(card),
        "worker": " ".join(filter(None, (card["worker"], card.get("host"), card["device"]))),
        "attempt": card["attempt"] if card["attempt"] > 1 else "",
        "notebook": card["notebook"],
        "queue": f"place {card['queue']}" if card["queue"] else "",
        "waiting": card["waiting"],
        "retry of": card.get("retry_of", ""),
        "files": ", ".join(card["files"]),
    }
    for name, value in facts_.items():
        if value:
            say.line(f"  {name:9} {say.plain(value)}")
    epochs = [row for _, row in run.rows() if isinstance(row, EpochEnded)]
    names = list(dict.fromkeys(name for row in epochs for name in row.metrics))
    if epochs:
        say.table(("epoch", *names), [(row.epoch + 1, *(number(row.metrics.get(name)) for name in names)) for row in epochs])
    error = card["error"]
    if error:
        say.line(f"{error['error']}: {error['message']}")
        for text in error["traceback"].splitlines():
            say.line(f"  {text}")


def number(value: float | None) -> str:
    return "nan" if value is None else f"{value:.4g}"


def _took(card: dict[str, Any]) -> str:
    if not card["started_ms"]:
        return ""
    return say.duration((card["ended_ms"] or time.time() * 1000) / 1000 - card["started_ms"] / 1000)
