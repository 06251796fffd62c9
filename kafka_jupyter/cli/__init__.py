"""The command `kafka-jupyter`."""

from __future__ import annotations


def main() -> None:
    from kafka_jupyter.cli.app import run

    run()
