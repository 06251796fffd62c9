"""The Jupyter server extension. Nothing is opened before the first request: a server starts as fast with it as without."""

from __future__ import annotations

import pathlib

from jupyter_server.extension.application import ExtensionApp
from traitlets import Bool, Float, Int, Unicode

from kafka_jupyter.server.handlers import MANAGER, routes
from kafka_jupyter.server.limits import Limits
from kafka_jupyter.server.manager import Manager
from kafka_jupyter.settings import Settings

_DEFAULTS = Limits()


class KafkaJupyterApp(ExtensionApp):
    """Runs, their rows and their control over REST and server-sent events, under `<base_url>/kafka-jupyter/`.

    Traits that are empty leave a setting to the environment and the profile (see kafka_jupyter.settings).
    """

    name = "kafka_jupyter"

    profile = Unicode("", help="The table of the profile file to use.").tag(config=True)
    profile_file = Unicode("", help="The profile file (TOML); empty means profiles.toml in the user's configuration folder.").tag(
        config=True
    )
    bootstrap_servers = Unicode("", help='Where Kafka is: "host:port,…". Empty means the local Kafka.').tag(config=True)
    insecure = Bool(False, help="A Kafka elsewhere may be spoken to without TLS, or without a look at its certificate.").tag(config=True)
    topic_prefix = Unicode("", help='"team1." keeps two teams apart on one cluster.').tag(config=True)
    owner = Unicode("", help="Whose runs are steered without force; the hub's user, else user@host.").tag(config=True)
    local_kafka_dir = Unicode("", help="Where the local Kafka keeps its state.").tag(config=True)
    heartbeat_s = Float(_DEFAULTS.heartbeat_s, min=0.05, help="Seconds between two comments in a silent stream.").tag(config=True)
    retry_ms = Int(_DEFAULTS.retry_ms, min=1, help="Milliseconds that a page waits before it comes back after a cut.").tag(config=True)
    stall_s = Float(_DEFAULTS.stall_s, min=0.05, help="Seconds after which a stream that takes nothing is closed.").tag(config=True)

    def initialize_settings(self) -> None:
        limits = Limits(heartbeat_s=self.heartbeat_s, stall_s=self.stall_s, retry_ms=self.retry_ms)
        self.manager = Manager(self._settings, limits)
        self.settings[MANAGER] = self.manager

    def initialize_handlers(self) -> None:
        self.handlers.extend(routes())

    async def stop_extension(self) -> None:
        await self.manager.close()

    def _settings(self) -> Settings:
        return Settings.from_env(
            config_file=pathlib.Path(self.profile_file) if self.profile_file else None,
            profile=self.profile or None,
            bootstrap_servers=self.bootstrap_servers or None,
            topic_prefix=self.topic_prefix or None,
            insecure=self.insecure or None,
            owner=self.owner or None,
            data_dir=self.local_kafka_dir or None,
        )
