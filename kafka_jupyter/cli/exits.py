"""What a script learns from an exit code. docs/cli.md lists them."""

from __future__ import annotations

import enum

from kafka_jupyter import errors


class Code(enum.IntEnum):
    FINE = 0  # of `follow` and `wait`: the run SUCCEEDED
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3  # what was named is not there, or the name may mean several
    NO_KAFKA = 4
    REFUSED = 5  # this run cannot be asked that: it has ended, is about to, or belongs to somebody else
    UNFINISHED = 6  # of `notebook finish`: some outputs are not final
    FAILED = 10
    CANCELLED = 11
    DEAD = 12
    TIMEOUT = 124  # as timeout(1)
    INTERRUPTED = 130  # as a shell says it of what ends by Ctrl-C


_OF: dict[type[BaseException], Code] = {
    errors.RunNotFound: Code.NOT_FOUND,
    errors.RunAmbiguous: Code.NOT_FOUND,
    errors.NoLetter: Code.NOT_FOUND,
    errors.ArtifactMissing: Code.NOT_FOUND,
    errors.BrokerUnreachable: Code.NO_KAFKA,
    errors.NotYourRun: Code.REFUSED,
    errors.RunEnded: Code.REFUSED,
    errors.RunEnding: Code.REFUSED,
    errors.CannotRetry: Code.REFUSED,
    errors.BadWish: Code.REFUSED,
    errors.RunFailed: Code.FAILED,
    errors.RunCancelled: Code.CANCELLED,
    errors.RunDead: Code.DEAD,
    errors.WaitTimeout: Code.TIMEOUT,
    KeyboardInterrupt: Code.INTERRUPTED,
}


def code_of(error: BaseException) -> Code:
    return next((_OF[kind] for kind in type(error).__mro__ if kind in _OF), Code.ERROR)
