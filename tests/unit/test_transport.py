"""What is said to Kafka is private, or somebody has allowed that it is not."""

from __future__ import annotations

import pathlib
import socket

import pytest

from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.errors import SettingsError
from kafka_jupyter.settings import Settings

TLS = {"security.protocol": "SASL_SSL"}


def cluster(servers: str, insecure: bool = False, **more: str) -> Cluster:
    kafka = {name.replace("_", "."): value for name, value in more.items()}
    return Cluster(Settings(bootstrap_servers=servers, insecure=insecure, kafka=kafka))


PRIVATE = [
    ("127.0.0.1:9092", {}), ("127.0.0.2:9092,[::1]:9092", {}), ("localhost:9092", {}), ("PLAINTEXT://localhost:9092", {}),
    ("kafka.localhost", {}), (socket.gethostname() + ":9092", {}), ("localhost:9092", {"security_protocol": "SASL_PLAINTEXT"}),
    ("kafka.example.org:9093", {"security_protocol": "SSL"}), ("kafka.example.org:9093", {"security_protocol": "sasl_ssl"}),
    ("kafka.example.org:9093", {"security_protocol": "SSL", "enable_ssl_certificate_verification": "true"}),
    ("localhost:9092", {"sasl_oauthbearer_token_endpoint_url": "http://localhost:8080/token"}),
]  # fmt: skip
OPEN = [
    ("kafka.example.org:9092", {}, "elsewhere"),
    ("kafka:9092", {}, "elsewhere"),
    ("10.0.0.7:9092", {}, "elsewhere"),
    ("localhost:9092,kafka.example.org:9092", {}, "kafka.example.org:9092"),
    ("localhost.example.org:9092", {}, "elsewhere"),
    ("localhost:9092", {"sasl_oauthbearer_token_endpoint_url": "http://[broken"}, "https"),
    ("notlocalhost:9092", {}, "elsewhere"),
    ("127.0.0.1.example.org:9092", {}, "elsewhere"),
    ("[2001:db8::1]:9092", {}, "elsewhere"),
    ("[::1:9092", {}, "elsewhere"),
    ("PLAINTEXT://kafka.example.org:9092", {}, "elsewhere"),
    ("kafka.example.org:9092", {"security_protocol": "SASL_PLAINTEXT"}, "SASL_SSL"),
    ("localhost:9092", {"bootstrap_servers": "kafka.example.org:9092"}, "elsewhere"),
    ("localhost:9092", {"metadata_broker_list": "kafka.example.org:9092"}, "elsewhere"),
    ("localhost:9093", {"security_protocol": "SSL", "enable_ssl_certificate_verification": "false"}, "pass for this Kafka"),
    ("kafka.example.org:9093", {"security_protocol": "SSL", "enable_ssl_certificate_verification": "F"}, "pass for this Kafka"),
    ("kafka.example.org:9093", {"security_protocol": "SSL", "ssl_endpoint_identification_algorithm": "None"}, "pass for this Kafka"),
    (
        "kafka.example.org:9093",
        {"security_protocol": "SASL_SSL", "sasl_oauthbearer_token_endpoint_url": "http://x.example.org/t"},
        "https",
    ),
]


@pytest.mark.parametrize(("servers", "more"), PRIVATE)
def test_what_stays_here_or_is_encrypted_needs_no_word(servers: str, more: dict[str, str]) -> None:
    assert cluster(servers, **more).servers == servers


@pytest.mark.parametrize(("servers", "more", "said"), OPEN)
def test_what_others_could_read_is_refused_with_the_way_out_unless_it_is_allowed(servers: str, more: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        cluster(servers, **more)
    assert said in str(raised.value)
    assert "--insecure" in str(raised.value)
    assert cluster(servers, insecure=True, **more).servers == servers


def test_a_profile_and_the_environment_can_allow_it(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "profiles.toml"
    file.write_text('[default]\nbootstrap_servers = "kafka.example.org:9092"\ninsecure = true\n')
    assert Cluster(Settings.from_env({}, file)).servers
    environ = {"KAFKA_JUPYTER_BOOTSTRAP_SERVERS": "kafka.example.org:9092"}
    with pytest.raises(SettingsError, match="elsewhere"):
        Cluster(Settings.from_env(environ, tmp_path / "none"))
    assert Cluster(Settings.from_env({**environ, "KAFKA_JUPYTER_INSECURE": "1"}, tmp_path / "none")).servers
