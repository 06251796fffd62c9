"""What the keeper of a trust file does to it, and what a person does with keys. Every change is dated so that all readers agree on it.

A process reads the file again within `trust_reload_s`. So what begins or ends a key lies two reload periods ahead: by then everybody knows,
and no record is judged by one reader with the change and by another without it. What was stolen is different: it is distrusted from a time
that may lie in the past, and everybody reads the log once more.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Iterable

from kafka_jupyter.errors import BadKey, TrustError
from kafka_jupyter.settings import Settings
from kafka_jupyter.trust import edit
from kafka_jupyter.trust.file import TrustFile
from kafka_jupyter.trust.keys import KeyFolder, OwnKey, encoded, kid_of, public_of
from kafka_jupyter.trust.listed import NAME_LIMIT, Role, TrustedKey

PUBLIC_LIMIT = 16 << 10  # bytes of an exported key
DAY_MS = 86_400_000
MARGIN_MS = 60_000


@dataclasses.dataclass(frozen=True)
class Exported:
    """The public half of a key, as it is handed to whoever keeps a trust file."""

    public: bytes
    name: str

    @property
    def kid(self) -> str:
        return kid_of(self.public)

    def text(self) -> str:
        name = "".join(c for c in self.name if c.isprintable() and c not in '"\\')
        return (
            "# A public key for kafka_jupyter. Who keeps the trust file: kafka-jupyter keys trust THIS_FILE --role submitter\n"
            f'kid = "{self.kid}"\npublic = "{encoded(self.public)}"\nname = "{name}"\n'
        )


def exported(text: str, source: str) -> Exported:
    """What `Exported.text` wrote. Raises BadKey."""
    try:
        table = tomllib.loads(text[:PUBLIC_LIMIT])
        public, name = public_of(table.get("public", "")), table.get("name", "")
        if not isinstance(name, str) or not name.isprintable() or len(name) > NAME_LIMIT:
            raise ValueError(f"its name must be printable text of at most {NAME_LIMIT} characters")
    except (tomllib.TOMLDecodeError, TypeError, AttributeError, ValueError, RecursionError) as why:
        raise BadKey(file=source, why=f"it is not what `kafka-jupyter keys export` writes ({why})") from why
    found = Exported(public, name)
    if table.get("kid") != found.kid:
        raise BadKey(file=source, why=f"the kid of its public key is {found.kid}, not {table.get('kid')}")
    return found


def trusted(settings: Settings) -> dict[str, TrustedKey]:
    """By kid; nothing where there is no trust file. Raises BadTrustFile."""
    return TrustFile(settings.trust_file, 0.0).current().keys if settings.trust_file.exists() else {}


def agreed_ms(settings: Settings, now_ms: int) -> int:
    """By when every reader knows of a change that is made now, to the second."""
    return math.ceil(now_ms / 1000 + 2 * settings.trust_reload_s) * 1000


def earlier_ms(settings: Settings, now_ms: int) -> int:
    """From when a key counts that is there before anybody reads: Kafka's clock may be behind ours."""
    return now_ms - int(settings.clock_skew_s * 1000) - MARGIN_MS


def trust(
    settings: Settings, key: Exported, roles: Iterable[Role], now_ms: int, not_after_ms: int | None = None, at_once: bool = False
) -> int:
    """Since when it counts. `at_once`: nobody reads this file yet. Raises TrustError, BadTrustFile."""
    first = at_once or not settings.trust_file.exists()
    since_ms = earlier_ms(settings, now_ms) if first else agreed_ms(settings, now_ms)
    edit.add(settings.trust_file, key.public, key.name, roles, since_ms, not_after_ms)
    return since_ms


def revoke(settings: Settings, kid: str, now_ms: int) -> int:
    """From when nothing that it signs is read. What it has signed by then stays. Raises TrustError, BadTrustFile."""
    at_ms = agreed_ms(settings, now_ms)
    edit.end(settings.trust_file, kid, "revoked_at", at_ms)
    return at_ms


def distrust(settings: Settings, kid: str, from_ms: int) -> None:
    """Of a stolen key: what was appended from then on is forgotten by everybody. Raises TrustError, BadTrustFile."""
    edit.end(settings.trust_file, kid, "distrusted_from", from_ms)


@dataclasses.dataclass(frozen=True)
class Rotation:
    """`until_ms`: when the old key ends; None where no trust file of ours lists it."""

    old: OwnKey
    new: OwnKey
    until_ms: int | None


def rotate(settings: Settings, name: str, now_ms: int, in_s: float, keep_days: float) -> Rotation:
    """A new key that takes the place of the newest. Where our trust file lists that one, the new one gets its roles and counts as soon as
    everybody knows it, and the old one for `keep_days` more, for what runs. Else it is used in `in_s` seconds: until then somebody has to
    list it. Raises TrustError, BadKey, BadTrustFile."""
    folder = KeyFolder(settings.key_dir)
    keys = folder.all()
    if not keys:
        raise TrustError(detail=f"there is no key in {folder.folder} yet. `kafka-jupyter keys init` makes one")
    old, known = keys[-1], trusted(settings).get(keys[-1].kid)
    if known is None:
        return Rotation(old, folder.make(now_ms + int(in_s * 1000)), None)
    since_ms = agreed_ms(settings, now_ms)
    roles = known.roles_at(since_ms)
    if not roles:
        raise TrustError(detail=f"the key {old.kid} is not trusted any more: the new one has to be trusted by whoever keeps the trust file")
    new = folder.make(since_ms)
    edit.add(settings.trust_file, new.public, name, roles, since_ms)
    until_ms = since_ms + int(keep_days * DAY_MS)
    edit.end(settings.trust_file, old.kid, "not_after", until_ms)
    return Rotation(old, new, until_ms)


def own_key(settings: Settings, now_ms: int) -> tuple[OwnKey, bool]:
    """The newest of ours, and whether it had to be made. Raises BadKey, TrustError."""
    folder = KeyFolder(settings.key_dir)
    keys = folder.all()
    return (keys[-1], False) if keys else (folder.make(now_ms), True)
