"""Every error a person can meet, as one tree. The docstring is the message.

KafkaJupyterError
├── SettingsError                 a setting or profile that cannot be used
├── BrokerError                   something between us and Kafka
│   ├── BrokerUnreachable
│   ├── AuthenticationFailed
│   ├── NotAuthorized
│   ├── TopicMissing
│   ├── TopicMismatch
│   ├── RecordTooLarge
│   ├── DeliveryFailed
│   │   └── DeliveryUnknown
│   │       └── DeliveryInferred
│   └── OffsetGone
├── LocalKafkaError               the embedded Apache Kafka
│   ├── LocalKafkaMissing
│   └── LocalKafkaBroken
├── RecordError                   bytes in a topic that are not a record
│   ├── BadRecord
│   │   └── BadSignature          nobody who may write it has signed it
│   └── NewerRecord
├── TrustError                    keys, and whom we believe
│   ├── BadKey
│   ├── BadTrustFile
│   ├── DistrustChanged
│   └── NotTrusted
├── StoreError                    artifacts
│   ├── ArtifactMissing
│   ├── ArtifactTruncated
│   ├── ArtifactAltered
│   ├── ArtifactTooLarge
│   └── StoreUnavailable
│       └── StoreElsewhere
├── CaptureError                  raised in the cell, before anything is sent
│   ├── CannotTravel
│   ├── NeedsTrust
│   └── DoesNotFit
├── SubmitError
│   ├── SubmitUnknown
│   ├── TaskTooLarge
│   └── BadTask
├── NotebookError                 a notebook file that cannot be finished
└── RunError                      a run, or a handle of one
    ├── RunNotFound
    ├── RunAmbiguous
    ├── NotYourRun
    ├── RunActive
    ├── RunEnded
    ├── RunEnding
    ├── BadWish
    ├── CannotRetry
    │   ├── RetriedAlready
    │   └── TaskGone
    ├── NoLetter
    ├── NotRebuilt
    ├── RunPending
    ├── RunFailed
    │   └── ModelMismatch
    ├── RunCancelled
    ├── RunDead
    ├── QueueTimeout
    └── WaitTimeout

Detached is apart: it subclasses KeyboardInterrupt, so that Run All stops where a person interrupts a waiting cell.
"""

from __future__ import annotations

import inspect
import string
from typing import Any

from kafka_jupyter.redact import clean, cleaned


class _Blank(string.Formatter):
    """`str.format` that leaves an unknown field empty: an error message must never fail to be made."""

    def get_value(self, key: int | str, args: Any, kwargs: Any) -> Any:
        return kwargs.get(key, "") if isinstance(key, str) else super().get_value(key, args, kwargs)


class KafkaJupyterError(Exception):
    """Something went wrong in kafka_jupyter. {detail}"""

    def __init__(self, message: str = "", /, **fields: Any) -> None:
        """`message` replaces the docstring; `fields` fill its `{names}` and stay readable as attributes of `.fields`.

        What is known to be secret (redact.py) is in neither.
        """
        self.fields: dict[str, Any] = cleaned(fields)
        template = message or inspect.cleandoc(type(self).__doc__ or "")
        super().__init__(clean(_Blank().format(template, **fields).strip() if fields or not message else message))

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in the place of its own traceback: the same, without the secrets that its verbose mode finds in variables."""
        from IPython import get_ipython

        shown = get_ipython().InteractiveTB.structured_traceback(type(self), self, self.__traceback__)
        return [clean(line) for line in shown]

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), str(self), self.fields))


def _rebuild(kind: type[KafkaJupyterError], message: str, fields: dict[str, Any]) -> KafkaJupyterError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.fields = fields
    return error


class SettingsError(KafkaJupyterError):
    """The setting {name} cannot be used: {why}. It comes from {source}."""


class BrokerError(KafkaJupyterError):
    """Kafka at {servers} answered with an error: {detail}"""


class BrokerUnreachable(BrokerError):
    """No Kafka broker answered at {servers}. Is it running? `kafka-jupyter up` starts a local one, `kafka-jupyter doctor` looks closer. {detail}"""


class AuthenticationFailed(BrokerError):
    """Kafka at {servers} refused the credentials: {detail}. Check the sasl.* and ssl.* settings of the profile."""


class NotAuthorized(BrokerError):
    """Kafka at {servers} does not allow this: {detail}. Ask who operates it for the rights that docs/architecture.md lists."""


class TopicMissing(BrokerError):
    """The topic {topic} does not exist at {servers}, or you may not see it. `kafka-jupyter topics init` creates what is missing."""


class TopicMismatch(BrokerError):
    """The topics at {servers} are not as kafka_jupyter needs them: {detail}. `kafka-jupyter topics init` says exactly what differs. Whoever operates this Kafka can change a setting (`kafka-configs --alter`); with another topic_prefix, `topics init` makes topics of your own."""


class RecordTooLarge(BrokerError):
    """A record of {size} bytes for {topic} is larger than the broker takes ({detail}). Put large parts into the store."""


class DeliveryFailed(BrokerError):
    """A record for {topic} was not written: {detail}"""


class DeliveryUnknown(DeliveryFailed):
    """Kafka at {servers} did not confirm a record for {topic} in time: it may or may not be in the log. {detail}"""


class DeliveryInferred(DeliveryUnknown):
    """Kafka at {servers} confirmed a later record for {topic}, not this one: it may or may not be in the log. Write it again."""


class OffsetGone(BrokerError):
    """{topic}[{partition}] no longer holds offset {offset}: retention has deleted it, or the topic was made anew."""


class LocalKafkaError(KafkaJupyterError):
    """The local Kafka has a problem: {detail}"""


class LocalKafkaMissing(LocalKafkaError):
    """A local Kafka needs the extra `local`: pip install 'kafka_jupyter[local]'. ({detail})"""


class LocalKafkaBroken(LocalKafkaError):
    """The local Kafka did not come up: {detail}. Its log is {log}."""


class RecordError(KafkaJupyterError):
    """{topic}[{partition}]@{offset} is not a record of kafka_jupyter: {why}"""


class BadRecord(RecordError):
    """{topic}[{partition}]@{offset} is not a record of kafka_jupyter: {why}"""


class NewerRecord(RecordError):
    """{topic}[{partition}]@{offset} was written by a newer kafka_jupyter ({type} version {version}). Upgrade: pip install -U kafka_jupyter"""


class BadSignature(BadRecord):
    """{topic}[{partition}]@{offset} was not read: {why}"""


class TrustError(KafkaJupyterError):
    """Something is wrong with a key or with whom it is trusted by: {detail}"""


class BadKey(TrustError):
    """{file} cannot be used as a key: {why}"""


class BadTrustFile(TrustError):
    """The trust file {file} cannot be used: {why}"""


class DistrustChanged(TrustError):
    """The trust file {file} distrusts other keys than before: what was read under it is read once more."""


class NotTrusted(TrustError):
    """Kafka at {servers} takes signed records only (trust file {file}), and {why}. {way_out}"""


class StoreError(KafkaJupyterError):
    """The store {store} has a problem: {detail}"""


class ArtifactMissing(StoreError):
    """The artifact {name} is not in the store any more: {detail}"""


class ArtifactTruncated(StoreError):
    """The artifact {name} is incomplete: {size} bytes are there, {expected} were written. {detail}"""


class ArtifactAltered(StoreError):
    """The artifact {name} is not what was written: its sha256 is {found}, not {expected}."""


class ArtifactTooLarge(StoreError):
    """{name} has {size}; the store {store} takes at most {limit}. Set a store for large data, for example KAFKA_JUPYTER_STORE=s3://bucket/path or file:///shared/path, or raise KAFKA_JUPYTER_STORE_LIMIT."""


class StoreUnavailable(StoreError):
    """The store {store} does not answer: {detail}"""


class StoreElsewhere(StoreUnavailable):
    """The artifact {name} lies in another store than {store}. Set KAFKA_JUPYTER_STORE as it is where it was written."""


class CaptureError(KafkaJupyterError):
    """This `fit` cannot be sent to a worker: {detail}"""


class CannotTravel(CaptureError):
    """{what} at {where} cannot travel to a worker: {why}. {way_out}"""


class NeedsTrust(CaptureError):
    """The task brings code that does not run here. {detail}"""


class DoesNotFit(CaptureError):
    """The result of run {run_id} does not fit into this model: {detail}. Nothing was assigned."""


class SubmitError(KafkaJupyterError):
    """Run {run_id} was not submitted: {detail}"""


class SubmitUnknown(SubmitError):
    """Whether run {run_id} was submitted is unknown: {detail}. Run the cell again: it uses the same run id, so there will never be a second run."""


class TaskTooLarge(SubmitError):
    """The task of run {run_id} has {size} bytes, at most {limit} fit into one record. {way_out}"""


class BadTask(SubmitError):
    """{source} is no task that can be submitted: {why}"""


class NotebookError(KafkaJupyterError):
    """{file} was left as it is: {why}."""


class RunError(KafkaJupyterError):
    """Run {run_id}: {detail}"""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: where it happened on the worker. The frames here only waited."""
        remote = str(self.fields.get("traceback") or "").rstrip().splitlines()
        return [*remote, *([""] if remote else []), f"{type(self).__name__}: {self}"]


class RunNotFound(RunError):
    """There is no run {run_id}. {nearest}"""


class RunAmbiguous(RunError):
    """{run_id} may mean {candidates}: write more of the id."""


class NotYourRun(RunError):
    """Run {run_id} belongs to {owner}. Write its whole id and --force if you mean it."""


class RunActive(RunError):
    """Run {run_id} has not ended ({state}): its result can be saved once it has."""


class RunEnded(RunError):
    """Run {run_id} is over ({state})."""


class RunEnding(RunError):
    """Run {run_id} is about to end ({state}): it cannot be {done} any more."""


class BadWish(RunError):
    """Run {run_id} cannot be given {what}: {why}."""


class CannotRetry(RunError):
    """Run {run_id} is {state}: only a run that is FAILED, CANCELLED or DEAD can be retried."""


class RetriedAlready(CannotRetry):
    """Run {run_id} was retried before, in another way, as {new}. `%kafka_attach {new}` shows that one; once it has ended badly, it can be retried itself."""


class TaskGone(CannotRetry):
    """The task of run {run_id} cannot be read any more, so nobody can train it again: {detail} Run its cell again instead."""


class NoLetter(RunError):
    """No dead letter is about {run_id}. {nearest}"""


class NotRebuilt(RunError):
    """The model of run {run_id}, {model!r}, is of your own code, which is not run from the log. Build it as you did, then `run.result(into=model)` loads what it has learned."""


class RunPending(RunError):
    """{model} is being trained in run {run_id}, {progress}; `run.result()` waits for it, `run.release()` lets the model go as it was."""


class RunFailed(RunError):
    """Run {run_id} FAILED on worker {worker}, attempt {attempt}: {error}. Your weights are as before."""


class ModelMismatch(RunFailed):
    """The model did not arrive as it was: the first batch's loss is {kernel} in the notebook and {worker_loss} on the worker. Run {run_id} was ended; `--no-check` skips this check."""


class RunCancelled(RunError):
    """Run {run_id} was cancelled{by}{process}. Your weights are as before."""


class RunDead(RunError):
    """Run {run_id} is DEAD after {attempts} attempts: {reason}. Your weights are as before."""


class QueueTimeout(RunError):
    """No worker took run {run_id} within {seconds:g} s: {detail}. It is still QUEUED: `%kafka_attach {run_id}` waits on, `%kafka_cancel {run_id}` ends it."""


class WaitTimeout(RunError):
    """Run {run_id} has not ended within {seconds:g} s; it goes on ({progress})."""


class Detached(KeyboardInterrupt):
    """The cell stopped waiting; the run goes on."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]
