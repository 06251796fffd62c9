"""Whether others can read or change what is said to Kafka on its way. Judged by what librdkafka will be told, before it is.

Only the addresses to begin with are known here: to which hosts Kafka then sends its clients, its own configuration says.
"""

from __future__ import annotations

import ipaddress
import socket
import urllib.parse
from collections.abc import Mapping

from kafka_jupyter.errors import SettingsError

_OFF = ("false", "0", "f", "no", "n")
_OPEN = ("plaintext", "sasl_plaintext")
_WAY_OUT = "or allow it: `insecure = true` in the profile, --insecure in a shell"


def weakness(config: Mapping[str, object]) -> SettingsError | None:
    """What is not private under librdkafka's settings, if anything: the error for who has not allowed it (the setting `insecure`)."""
    told = {name: str(value).strip().lower() for name, value in config.items()}
    if told.get("enable.ssl.certificate.verification") in _OFF:
        return _refused("enable.ssl.certificate.verification", "false", "anybody could pass for this Kafka: name its CA in ssl.ca.location")
    if told.get("ssl.endpoint.identification.algorithm") == "none":
        return _refused("ssl.endpoint.identification.algorithm", "none", "whoever has a certificate of that CA could pass for this Kafka")
    protocol = told.get("security.protocol", "plaintext")
    if protocol in _OPEN:  # what librdkafka does not know it refuses itself
        for server in filter(None, f"{told.get('bootstrap.servers', '')},{told.get('metadata.broker.list', '')}".split(",")):
            if not _is_here(_host(server)):
                why = f"{server.strip()} is elsewhere, and whoever sits in between could read and change all that is said to it"
                return _refused("security.protocol", protocol, f"{why}: set it to SSL or SASL_SSL")
    token = told.get("sasl.oauthbearer.token.endpoint.url", "")
    if token.startswith("http:") and not _is_here(_host(token)):
        return _refused("sasl.oauthbearer.token.endpoint.url", token, "the client's secret would be sent there in clear: use https")
    return None


def _refused(name: str, value: str, why: str) -> SettingsError:
    return SettingsError(name=f"{name}={value}", why=f"{why}, {_WAY_OUT}", source="the settings for Kafka")


def _host(server: str) -> str:
    """Of `host:port`, `[v6]:port` or `PROTOCOL://host:port`, as librdkafka takes them."""
    try:
        return urllib.parse.urlsplit("//" + server.strip().rpartition("://")[2]).hostname or ""
    except ValueError:
        return server


def _is_here(host: str) -> bool:
    """Whether what is sent there never leaves this machine. By its name alone: what a name server says may change."""
    if host == "localhost" or host.endswith(".localhost") or host == socket.gethostname().lower():
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
