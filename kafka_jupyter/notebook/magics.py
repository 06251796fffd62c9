"""The magics: thin, each parses its line and asks client, capture or the local Kafka."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand

from kafka_jupyter.notebook.parsing import edits_of, magic, parsers
from kafka_jupyter.settings import Settings

if TYPE_CHECKING:
    from kafka_jupyter.client import Client, TrainingRun
    from kafka_jupyter.notebook.extension import Extension

_PARSERS = parsers()


@magics_class
class KafkaMagics(Magics):
    def __init__(self, shell: Any, extension: Extension) -> None:
        super().__init__(shell=shell)
        self.extension = extension

    @no_var_expand
    @line_cell_magic
    @magic(_PARSERS["kafka_train"])
    def kafka_train(self, args: argparse.Namespace) -> None:
        from kafka_jupyter.capture.options import Options

        self.extension.begin(Options(**vars(args)))

    @line_magic
    @magic(_PARSERS["kafka_runs"])
    def kafka_runs(self, args: argparse.Namespace) -> None:
        client = _client(args)
        owner = client.settings.owner if args.mine else None
        found = client.runs(state=args.state, name=args.name, owner=owner, limit=args.limit)
        print("\n".join(run.summary() for run in found) or "No run is in the log.")

    @line_magic
    @magic(_PARSERS["kafka_attach"])
    def kafka_attach(self, args: argparse.Namespace) -> TrainingRun:
        run = _client(args).attach(args.run)
        self.extension.show(run)
        return run

    @line_magic
    @magic(_PARSERS["kafka_stop"])
    def kafka_stop(self, args: argparse.Namespace) -> None:
        from kafka_jupyter.client import wishes

        print(wishes.stop(_client(args).attach(args.run), args.force))

    @line_magic
    @magic(_PARSERS["kafka_cancel"])
    def kafka_cancel(self, args: argparse.Namespace) -> None:
        from kafka_jupyter.client import wishes

        print(wishes.cancel(_client(args).attach(args.run), args.force))

    @line_magic
    @magic(_PARSERS["kafka_pause"])
    def kafka_pause(self, args: argparse.Namespace) -> None:
        run = _client(args).attach(args.run)
        run.pause(force=args.force)
        print(f"{run.id}: asked to pause. `%kafka_resume {run.short}` goes on.")

    @line_magic
    @magic(_PARSERS["kafka_resume"])
    def kafka_resume(self, args: argparse.Namespace) -> None:
        run = _client(args).attach(args.run)
        run.resume(force=args.force)
        print(f"{run.id}: asked to go on.")

    @line_magic
    @magic(_PARSERS["kafka_ctl"])
    def kafka_ctl(self, args: argparse.Namespace) -> None:
        from kafka_jupyter.client import wishes

        print(wishes.change(_client(args).attach(args.run), dict(args.settings), args.force, args.timeout))

    @line_magic
    @magic(_PARSERS["kafka_retry"])
    def kafka_retry(self, args: argparse.Namespace) -> TrainingRun:
        old = _client(args).attach(args.run)
        run = old.retry(force=args.force, **edits_of(args))
        print(f"{old.id} is retried as {run.id}.")
        self.extension.show(run)
        return run

    @line_magic
    @magic(_PARSERS["kafka_dlq"])
    def kafka_dlq(self, args: argparse.Namespace) -> TrainingRun | None:
        from kafka_jupyter.notebook import dead_letters

        client = _client(args)
        if args.action == "ls":
            print(dead_letters.listed(client, args.limit))
            return None
        if not args.run:
            _PARSERS["kafka_dlq"].error(f"{args.action} needs a RUN")
        if args.action == "show":
            print(dead_letters.shown(client, args.run))
            return None
        run = dead_letters.redriven(client, args.run, args.task, edits_of(args), args.force)
        self.extension.show(run)
        return run

    @line_magic
    @magic(_PARSERS["kafka_workers"])
    def kafka_workers(self, args: argparse.Namespace) -> None:
        workers = _client(args).workers()
        lines = [
            f"{worker.worker_id}  {worker.free} of {worker.slots} slots free, {worker.device}, {_versions(worker.versions)}"
            + (f", runs {', '.join(worker.running)}" if worker.running else "")
            + (f", takes nothing: {worker.unfit}" if worker.unfit else "")
            for worker in workers
        ]
        print("\n".join(lines) or "No worker is there. `kafka-jupyter worker` starts one, `%kafka_up` one in the background.")

    @line_magic
    @magic(_PARSERS["kafka_up"])
    def kafka_up(self, args: argparse.Namespace) -> None:
        from kafka_jupyter.brokers import local

        said: set[str] = set()

        def progress(text: str, _part: float | None) -> None:
            if text not in said:
                said.add(text)
                print(f"{text} …", flush=True)

        ready = local.provide(Settings.from_env(profile=args.profile), args.workers, args.brokers, progress)
        print(f"Kafka is ready at {ready.bootstrap_servers}. `%kafka_down` stops it and its workers; data stay.")

    @line_magic
    @magic(_PARSERS["kafka_down"])
    def kafka_down(self, args: argparse.Namespace) -> None:
        from kafka_jupyter.brokers import local

        stopped = local.down(Settings.from_env(profile=args.profile))
        print(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")


def _client(args: argparse.Namespace) -> Client:
    from kafka_jupyter.client import Client

    return Client(Settings.from_env(profile=args.profile))


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or "no Keras"
