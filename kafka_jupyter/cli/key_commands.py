"""`keys`: our own keys, and whom a trust file trusts. What is decided is in trust/keeping."""

from __future__ import annotations

import datetime
import pathlib
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kafka_jupyter.cli import options, say
from kafka_jupyter.errors import TrustError
from kafka_jupyter.settings import Settings, env_name

if TYPE_CHECKING:
    from kafka_jupyter.trust.listed import TrustedKey

app = typer.Typer(name="keys", help="Keys that sign what we write, and whom we trust.", no_args_is_help=True)

ROLES = ("submitter", "worker", "code")  # as in trust.listed, which --help does not load
TrustFileOption = Annotated[
    pathlib.Path | None,
    typer.Option("--trust-file", envvar=env_name("trust_file"), dir_okay=False, help="Another than that of the Kafka that is meant."),
]
Kid = Annotated[str, typer.Argument(metavar="KID", help="A key's short name: 16 digits, as `keys list` shows it.")]


@app.command()
def init(as_json: options.Json = False, profile: options.Profile = None) -> None:
    """Make a key of our own, if there is none; `kafka-jupyter up` does that too.

    Example: kafka-jupyter keys init
    """
    from kafka_jupyter.trust import keeping

    settings = options.settings_from(profile)
    key, made = keeping.own_key(settings, _now_ms())
    if as_json:
        say.json({"kid": key.kid, "file": str(key.file), "made": made})
        return
    say.line(f"{'made' if made else 'there is'} the key {key.kid}, in {key.file}")
    say.line("Nobody else may have that file. `kafka-jupyter keys export` prints the half that others need.")


@app.command("list")
def list_(
    as_json: options.Json = False, profile: options.Profile = None, servers: options.Servers = None, trust_file: TrustFileOption = None
) -> None:
    """List our own keys and those that the trust file lists.

    Example: kafka-jupyter keys list --json
    """
    from kafka_jupyter.trust import gate, keeping
    from kafka_jupyter.trust.keys import KeyFolder

    settings, now_ms = _settings(profile, servers, trust_file), _now_ms()
    trusted = keeping.trusted(settings)
    own: list[dict[str, Any]] = [
        {"kid": key.kid, "from_ms": key.from_ms, "file": str(key.file), "trusted": key.kid in trusted}
        for key in KeyFolder(settings.key_dir).all()
    ]
    theirs = [_facts(key, now_ms) for key in trusted.values()]
    policy = str(gate.policy_of(settings))
    if as_json:
        say.json({"own": own, "trusted": theirs, "trust_file": str(settings.trust_file), "policy": policy})
        return
    say.line(f"our own, in {settings.key_dir}:" if own else f"no key of our own in {settings.key_dir}: kafka-jupyter keys init")
    if own:
        say.table(["KID", "FROM", "TRUSTED"], [[key["kid"], _when(key["from_ms"]), "yes" if key["trusted"] else "no"] for key in own])
    say.line()
    say.line(
        f"trusted, in {settings.trust_file} (policy {policy}):" if theirs else f"no trust file {settings.trust_file} (policy {policy})"
    )
    if theirs:
        rows = [[key["kid"], key["name"], ", ".join(key["roles"]) or "-", _when(key["from_ms"]), key["state"]] for key in theirs]
        say.table(["KID", "NAME", "ROLES NOW", "FROM", "STATE"], rows)


@app.command()
def export(
    kid: Annotated[str | None, typer.Argument(metavar="[KID]", help="One of our keys; the newest if not given.")] = None,
    as_json: options.Json = False,
    profile: options.Profile = None,
) -> None:
    """Print the public half of a key of ours, for whoever keeps the trust file. It is no secret.

    Example: kafka-jupyter keys export > ada.toml
    """
    from kafka_jupyter.trust import keeping
    from kafka_jupyter.trust.keys import KeyFolder, encoded

    settings = options.settings_from(profile)
    keys = KeyFolder(settings.key_dir).all()
    found = next((key for key in reversed(keys) if kid in (None, key.kid)), None)
    if found is None:
        raise TrustError(detail=f"{settings.key_dir} has no key{f' {kid}' if kid else ''}. `kafka-jupyter keys init` makes one")
    half = keeping.Exported(found.public, settings.owner)
    if as_json:
        say.json({"kid": half.kid, "public": encoded(half.public), "name": half.name})
    else:
        say.line(half.text().rstrip())


@app.command()
def trust(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `keys export` printed; `-` reads it from stdin.")],
    role: Annotated[
        list[str],
        typer.Option(
            "--role",
            envvar=env_name("role"),
            metavar="|".join(ROLES),
            help="What it is trusted with; may be given several times. `code`: its tasks may bring Python code.",
        ),
    ],
    not_after: Annotated[
        str | None, typer.Option("--not-after", envvar=env_name("not_after"), metavar="TIME", help="Until when, such as 2027-12-31.")
    ] = None,
    at_once: Annotated[
        bool, typer.Option("--at-once", envvar=env_name("at_once"), help="Nobody reads this trust file yet: it counts from now on.")
    ] = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    trust_file: TrustFileOption = None,
) -> None:
    """Trust a key: from when every process has read the trust file again.

    Compare the fingerprint with whoever sent the file before you trust it.

    Example: kafka-jupyter keys trust ada.toml --role submitter --role code
    """
    from kafka_jupyter.trust import keeping
    from kafka_jupyter.trust.keys import fingerprint
    from kafka_jupyter.trust.listed import Role

    if unknown := [one for one in role if one not in ROLES]:
        raise typer.BadParameter(f"there is no role {unknown[0]!r}: {', '.join(ROLES)}", param_hint="--role")
    settings = _settings(profile, servers, trust_file)
    key = keeping.exported(_read(file), file)
    until_ms = None if not_after is None else _time_ms(not_after, "--not-after")
    since_ms = keeping.trust(settings, key, map(Role, role), _now_ms(), until_ms, at_once)
    if as_json:
        say.json({"kid": key.kid, "roles": role, "from_ms": since_ms, "until_ms": until_ms, "trust_file": str(settings.trust_file)})
        return
    say.line(f"{key.kid} ({key.name or 'no name'}) is trusted as {' and '.join(role)} {_since(since_ms)}")
    say.line(f"its fingerprint: {fingerprint(key.public)}")
    say.line(f"in {settings.trust_file}: every worker, notebook and server that reads this Kafka needs the same file")


@app.command()
def revoke(
    kid: Kid,
    distrust_from: Annotated[
        str | None,
        typer.Option(
            "--distrust-from",
            envvar=env_name("distrust_from"),
            metavar="TIME",
            help="It was stolen: forget all that it signed from then on, such as 2026-12-01T08:00.",
        ),
    ] = None,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    trust_file: TrustFileOption = None,
) -> None:
    """Stop trusting a key. What it has signed until then stays, unless it was stolen.

    Example: kafka-jupyter keys revoke 5f0c2a9be1d47730
    """
    from kafka_jupyter.trust import keeping

    settings = _settings(profile, servers, trust_file)
    if distrust_from is not None:
        at_ms = _time_ms(distrust_from, "--distrust-from")
        keeping.distrust(settings, kid, at_ms)
        text = f"what {kid} signed since {_when(at_ms)} is forgotten: every process reads the log once more"
    else:
        at_ms = keeping.revoke(settings, kid, _now_ms())
        text = f"{kid} is trusted until {_when(at_ms)}, when every process has read it; what it has signed by then stays"
    if as_json:
        say.json({"kid": kid, "at_ms": at_ms, "distrusted": distrust_from is not None, "trust_file": str(settings.trust_file)})
        return
    say.line(text)
    say.line(f"in {settings.trust_file}")


@app.command()
def rotate(
    in_hours: Annotated[
        float,
        typer.Option("--in-hours", envvar=env_name("in_hours"), min=0, help="Use it then, where our trust file does not list the old one."),
    ] = 24.0,
    keep_days: Annotated[
        float,
        typer.Option("--keep-old-days", envvar=env_name("keep_old_days"), min=0.01, help="So long the old one counts, for what runs."),
    ] = 30.0,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    trust_file: TrustFileOption = None,
) -> None:
    """Make a new key in the place of ours. What runs goes on under the old one.

    Example: kafka-jupyter keys rotate
    """
    from kafka_jupyter.trust import keeping

    settings = _settings(profile, servers, trust_file)
    turned = keeping.rotate(settings, settings.owner, _now_ms(), in_hours * 3600, keep_days)
    if as_json:
        say.json({"old": turned.old.kid, "new": turned.new.kid, "from_ms": turned.new.from_ms, "old_until_ms": turned.until_ms})
        return
    say.line(f"{turned.new.kid} takes the place of {turned.old.kid} {_since(turned.new.from_ms)}")
    if turned.until_ms is None:
        say.line("No trust file here lists the old one: until then the new one has to be trusted where the old one is.")
        say.line(f"kafka-jupyter keys export {turned.new.kid}")
    else:
        say.line(f"the old one counts until {_when(turned.until_ms)}: what it has begun can come to its end")


def _settings(profile: str | None, servers: str | None, trust_file: pathlib.Path | None) -> Settings:
    """With the trust file that is meant: the one that is named, that of the Kafka in the settings, or that of the local one."""
    from kafka_jupyter.brokers import local, local_trust

    settings = options.settings_from(profile, servers, trust_file=trust_file)
    if trust_file is not None or settings.bootstrap_servers:
        return settings
    return local_trust.signed(settings, local.folder_of(settings))


def _facts(key: TrustedKey, now_ms: int) -> dict[str, Any]:
    roles = key.roles_at(now_ms)
    from_ms = min(grant.not_before_ms for grant in key.grants)
    state = "trusted"
    if key.distrusted_ms is not None:
        state = f"distrusted from {_when(key.distrusted_ms)}"
    elif key.end_ms is not None:
        state = f"revoked from {_when(key.end_ms)}"
    elif not roles:
        state = f"from {_when(from_ms)}" if now_ms < from_ms else "over"
    shown = [role for role in ROLES if role in roles]
    return {"kid": key.kid, "name": key.name, "roles": shown, "from_ms": from_ms, "end_ms": key.end_ms, "state": state}


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else pathlib.Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrustError(detail=f"{file} cannot be read: {error}") from error


def _time_ms(text: str, option: str) -> int:
    """A date or a time; of our own time zone where it names none."""
    try:
        return int(datetime.datetime.fromisoformat(text).astimezone().timestamp() * 1000)
    except (ValueError, OverflowError) as why:
        raise typer.BadParameter("write a time such as 2027-12-31 or 2026-12-01T08:00+01:00", param_hint=option) from why


def _since(at_ms: int) -> str:
    return f"from {_when(at_ms)} on, when every process has read it" if at_ms > _now_ms() else "from now on"


def _when(at_ms: int) -> str:
    return datetime.datetime.fromtimestamp(at_ms / 1000).astimezone().isoformat(" ", "seconds")


def _now_ms() -> int:
    return int(time.time() * 1000)
