"""The local Kafka is signed from its first minute: the person's own key, made if there is none, and a trust file that lists it."""

from __future__ import annotations

import pathlib
import time

from kafka_jupyter.settings import Settings


def signed(settings: Settings, folder: pathlib.Path) -> Settings:
    """`settings` for the local Kafka in `folder`: nothing is read there that is not signed by a key of its trust file, so a person's own
    code may travel, and do what they can do themselves."""
    mine = {"trust": settings.trust or "code", "allow_code": True, "allow_network": True}
    return settings.replace(trust_file=folder / "trust.toml", trust_policy="require", **mine)


def provide(settings: Settings, folder: pathlib.Path, running: bool) -> None:
    """Sees to it that our newest key is trusted with everything. Raises TrustError, BadKey, BadTrustFile.

    `running`: other processes may have read the trust file already; all of them must know a new key before it counts.
    """
    from kafka_jupyter.trust import keeping
    from kafka_jupyter.trust.listed import Role

    settings, now_ms = signed(settings, folder), int(time.time() * 1000)
    key, _ = keeping.own_key(settings, now_ms)
    if key.kid not in keeping.trusted(settings):  # one that was revoked is there: that is for whoever did it to take back
        keeping.trust(settings, keeping.Exported(key.public, settings.owner), list(Role), now_ms, at_once=not running)
