"""All settings in one frozen value: name, default, unit and reason stand side by side.

Sources, the later wins: the defaults below, the profile (a table of the TOML file `config_file`), the environment
(`KAFKA_JUPYTER_<NAME>`), explicit arguments. The environment is an argument, so tests need no monkeypatching.

    # profiles.toml
    [default]
    bootstrap_servers = "kafka.example.org:9093"
    topic_prefix = "team1."
    [default.kafka]                      # handed to librdkafka as it is
    "security.protocol" = "SASL_SSL"
    "sasl.mechanism" = "SCRAM-SHA-512"
    "sasl.username" = "ada"
    "sasl.password" = "..."
"""

from __future__ import annotations

import dataclasses
import functools
import getpass
import math
import os
import pathlib
import re
import socket
import tomllib
import typing
from collections.abc import Mapping
from typing import Any

import platformdirs

from kafka_jupyter import redact
from kafka_jupyter.errors import SettingsError

PREFIX = "KAFKA_JUPYTER_"
APP = "kafka-jupyter"

_SIZES = {"": 1, "b": 1, "k": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mib": 1 << 20, "g": 1 << 30, "gib": 1 << 30}


def _default_owner() -> str:
    """The hub's user where there is a hub, else user@host: a label, not a proof of identity."""
    hub = os.environ.get("JUPYTERHUB_USER")
    if hub:
        return hub
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's uid without a passwd entry
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


@dataclasses.dataclass(frozen=True, repr=False)
class Settings:
    """Everything that can be set. Durations are seconds (`_s`) or days (`_days`), sizes are bytes (`4GiB` is understood)."""

    profile: str = "default"  # the table of the profile file
    bootstrap_servers: str = ""  # "host:port,…"; empty means the local Kafka
    kafka: Mapping[str, str] = dataclasses.field(default_factory=redact.Guarded)  # librdkafka settings, passed through
    insecure: bool = False  # a Kafka elsewhere may be spoken to without TLS, or without a look at its certificate
    topic_prefix: str = ""  # "team1." keeps two teams apart on one cluster
    partitions: int = 3  # of the keyed topics; cannot change later, the same run would move
    replication: int = 0  # 0: three where there are three brokers, else one
    keep_days: float = 30.0  # how long the log of a run is kept
    group_protocol: str = "auto"  # consumer (KIP-848) where the broker has it, else classic

    owner: str = dataclasses.field(default_factory=_default_owner)
    data_dir: pathlib.Path = dataclasses.field(default_factory=lambda: platformdirs.user_data_path(APP))  # local Kafka, logs
    cache_dir: pathlib.Path = dataclasses.field(default_factory=lambda: platformdirs.user_cache_path(APP))  # artifacts, memory-mapped
    cache_limit: int = 8 << 30  # bytes; the least recently used artifacts go first
    store: str = "kafka:"  # or an fsspec URL: file:///shared, s3://bucket/path
    store_limit: int = 1 << 30  # bytes of one part of a submit in `kafka:`; a broker is no file server

    key_dir: pathlib.Path = dataclasses.field(default_factory=lambda: platformdirs.user_config_path(APP) / "keys")  # our own keys
    trust_file: pathlib.Path = dataclasses.field(default_factory=lambda: platformdirs.user_config_path(APP) / "trust.toml")
    trust_policy: str = ""  # require | warn | off; empty: require where there is a trust file (the local Kafka always has one), else off
    trust_reload_s: float = 60.0  # a change of the trust file or of our keys is known after this
    trust: str = ""  # what travels with a `fit`: data, or code too; empty: code to the local Kafka, else data
    allow_code: bool = False  # a worker runs code of tasks, if a key with the role `code` has signed them
    allow_network: bool = False  # trainings may use the network, where the platform could forbid it; those of the local Kafka may
    child_memory: int = 0  # bytes that a training may write to; 0: what the machine has, and 8 GiB
    clock_skew_s: float = 300.0  # how far a writer's clock may be from Kafka's; the same for all readers of a Kafka

    lease_ttl_s: float = 30.0  # silence after which an attempt may be expired; heartbeats every ttl/6
    claim_grace_s: float = 0.05  # how long others wait for the worker that owns the task's partition
    outage_grace_s: float = 900.0  # a training goes on for so long without Kafka; outages of ten minutes are to be survived
    stall_timeout_s: float = 600.0  # a child that makes no step for so long is killed, and the run tried again; or a store, no byte
    checkpoint_every_s: float = 30.0  # in the middle of an epoch; at the end of each epoch there is one anyway
    checkpoint_gap_s: float = 1.0  # but not so soon after the last one; 0: at the end of every epoch
    checkpoint_share: float = 0.05  # of a training's time that may go into writing them; 1: no limit
    cancel_grace_s: float = 1.0  # between SIGTERM and SIGKILL of a child
    delivery_timeout_s: float = 10.0  # of one record
    connect_timeout_s: float = 5.0  # "broker unreachable" is said after this
    queue_timeout_s: float = 0.0  # 0: wait for ever with a person present, 5 minutes when headless
    on_interrupt: str = "detach"  # detach | stop | cancel
    auto_start: bool = True  # the first submit starts the local Kafka and a worker when nothing is configured
    java: str = ""  # of the local Kafka: empty for the one of the extra `local`, "system", or the path of a java of at least 17
    maven_url: str = "https://repo.maven.apache.org/maven2"  # or a mirror: where Kafka's jars are fetched from, once

    def __post_init__(self) -> None:
        object.__setattr__(self, "kafka", redact.Guarded(self.kafka))
        redact.know(self.kafka)
        for address in (self.store, self.maven_url):
            redact.know_address(address)

    def __repr__(self) -> str:
        said = (f"{field.name}={redact.clean(repr(getattr(self, field.name)))}" for field in dataclasses.fields(self))
        return f"Settings({', '.join(said)})"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, config_file: pathlib.Path | None = None, **overrides: Any) -> Settings:
        """Settings from profile file, environment and `overrides` (None values are passed over).

        Raises SettingsError naming the setting, the reason and where it came from.
        """
        env = os.environ if environ is None else environ
        overrides = {k: v for k, v in overrides.items() if v is not None}
        redact.know(env, redact.LEAST_FOREIGN)
        file = config_file or _file_of(env)
        profile = str(overrides.get("profile") or env.get(PREFIX + "PROFILE") or "default")
        values = _from_profile(file, profile)
        for field in dataclasses.fields(cls):
            text = env.get(PREFIX + field.name.upper())
            if text is not None and field.name != "kafka":
                values[field.name] = _convert(field.name, text, f"the environment variable {PREFIX}{field.name.upper()}")
        for name, value in overrides.items():
            values[name] = _convert(name, value, "an argument")
        settings = cls(**values)
        settings._check()
        return settings

    def replace(self, **changes: Any) -> Settings:
        return dataclasses.replace(self, **changes)

    def _check(self) -> None:
        bad = [
            (field.name, not (math.isfinite(getattr(self, field.name)) and getattr(self, field.name) >= 0), "must be a number from 0 on")
            for field in dataclasses.fields(self)
            if field.name.endswith(("_s", "_days", "_limit"))
        ] + [
            ("partitions", not 1 <= self.partitions <= 1000, "must be between 1 and 1000"),
            ("replication", not 0 <= self.replication <= 10, "must be between 0 (automatic) and 10"),
            ("keep_days", self.keep_days < 3, "must be at least 3: a run is ended 2 days before its log goes"),
            ("checkpoint_share", not 0 < self.checkpoint_share <= 1, "must be above 0 and at most 1"),
            ("stall_timeout_s", self.stall_timeout_s <= 0, "must be above 0"),
            ("lease_ttl_s", self.lease_ttl_s < 0.5, "must be at least 0.5 s"),
            ("group_protocol", self.group_protocol not in ("auto", "consumer", "classic"), "must be auto, consumer or classic"),
            ("trust_policy", self.trust_policy not in ("", "require", "warn", "off"), "must be require, warn or off"),
            ("trust", self.trust not in ("", "data", "code"), "must be data or code"),
            ("on_interrupt", self.on_interrupt not in ("detach", "stop", "cancel"), "must be detach, stop or cancel"),
            (
                "topic_prefix",
                not re.fullmatch(r"[A-Za-z0-9._-]{0,80}", self.topic_prefix),
                "may hold letters, digits, '.', '_' and '-' only",
            ),
        ]
        for name, is_bad, why in bad:
            if is_bad:
                raise SettingsError(name=f"{name}={getattr(self, name)!r}", why=why, source="the settings")


def env_name(setting: str) -> str:
    """The environment variable of a setting: every CLI flag shows its twin."""
    return PREFIX + setting.upper()


def profiles(environ: Mapping[str, str] | None = None) -> list[str]:
    """The names in the profile file; none where it cannot be read."""
    try:
        tables = tomllib.loads(_file_of(os.environ if environ is None else environ).read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError):
        return []
    return [name for name, table in tables.items() if isinstance(table, dict)]


def _file_of(environ: Mapping[str, str]) -> pathlib.Path:
    return pathlib.Path(environ.get(PREFIX + "CONFIG") or platformdirs.user_config_path(APP) / "profiles.toml")


def parse_size(text: str) -> int:
    """`"4GiB"` → 4294967296. Raises ValueError."""
    found = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", text)
    if not found or found[2].lower() not in _SIZES:
        raise ValueError("write a size such as 500MiB or 4GiB")
    return int(float(found[1]) * _SIZES[found[2].lower()])


def _from_profile(file: pathlib.Path, profile: str) -> dict[str, Any]:
    try:
        tables = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        if profile != "default":
            raise SettingsError(name=f"profile={profile!r}", why=f"there is no profile file {file}", source="the profile") from None
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(name="the profile file", why=str(error), source=str(file)) from error
    if profile not in tables:
        if profile == "default":
            return {}
        raise SettingsError(name=f"profile={profile!r}", why=f"the file knows {', '.join(tables) or 'no profiles'}", source=str(file))
    table = tables[profile]
    if not isinstance(table, dict):
        raise SettingsError(name=profile, why="a profile is a table: [name]", source=str(file))
    return {name: _convert(name, value, str(file)) for name, value in table.items()}


@functools.cache
def _kinds() -> dict[str, Any]:
    return typing.get_type_hints(Settings)


def _convert(name: str, value: Any, source: str) -> Any:
    kinds = _kinds()
    if name not in kinds:
        known = ", ".join(sorted(kinds))
        raise SettingsError(name=name, why=f"there is no such setting (known: {known})", source=source)
    kind = kinds[name]
    try:
        if kind is bool:
            return _boolean(value)
        if kind is int:
            return value if isinstance(value, int) else parse_size(value)
        if kind is float:
            return float(value)
        if kind is pathlib.Path:
            return pathlib.Path(value).expanduser()
        if name == "kafka":
            return {str(k): str(v).lower() if isinstance(v, bool) else str(v) for k, v in dict(value).items()}
        return str(value)
    except (TypeError, ValueError) as error:
        raise SettingsError(name=f"{name}={value!r}", why=str(error), source=source) from error


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("write true or false")
