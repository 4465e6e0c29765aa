"""Everything that can go wrong, named.

```
PlatformError
├── SpecError            a use case is declared wrongly: file, line, what, suggestion
├── SpecErrors           several of them, found in one use case
├── Unavailable          a server that the platform needs does not answer: what may wait, waits
│   ├── LakeUnavailable  the lake's catalog or its files; a LakeError too
│   ├── RegistryUnavailable  MLflow does not answer
│   ├── EndpointUnavailable  the endpoint that predicts batches does not answer
│   ├── OnlineStoreUnavailable  the online store; an OnlineStoreError too
│   └── TargetUnavailable  a database that is published to; a TargetError too
├── LakeError
│   ├── DiskFull         there is no room for what was to be written
│   ├── CommitConflict   other writers kept winning until the retries were used up
│   ├── DataFileLost     a data file is missing or damaged: what it held, how it comes back
│   ├── CalendarChanged  its windows were written by another calendar
│   ├── ColumnChanged    a column is stored as another type than the use case has now
│   └── TableNotFound    nothing has been written to this table yet
├── SchemaVersionRefused  what is stored has a schema version that cannot be used here
│   ├── NewerRelease     a newer release wrote it: install that one
│   └── UpgradeNeeded    an older release wrote it: ml-platform upgrade
├── BackupRefused        a backup is lost, damaged, or cannot be made or restored there
├── ErasureRefused       no such key column or value, or rows that cannot be erased
├── OnlineStoreError     the online store cannot be reached, or refuses
│   └── NotPublished     none of this feature view is in the online store yet
├── TargetError          a database that predictions are published to refuses or fails
├── LandingError
│   └── FileRefused      one landing file cannot be ingested
├── FeatureError
│   ├── QueryFailed      a use case's SQL failed when it ran
│   ├── DuplicateRows    two rows for one entity at one event time
│   ├── LeakFound        a feature or a label depends on rows that were not known yet
│   └── ExampleRefused   a row to predict lacks a column, or holds a value of another type
├── EmptyPartition       a window without rows: nothing to compute
├── SubjectNotFound      no such landed file, row of a source, or version of one
├── EmptySample          a statistic of no values
├── LabelsNotArrived     predictions exist, their labels are not known yet
├── TrainingFailed       the estimator or its training set cannot be used
├── ModelNotFound        no such model version
├── NoChampion           no promotion is effective at this event time
├── AnswerRefused        the version does not wait for a person, or not any more
├── RollbackRefused      the version cannot serve from then on
├── RegistryError        MLflow refused or failed
├── EndpointRefused      an endpoint refuses rows, or answers what is no prediction of them
│   └── EndpointDiffers  it predicts something else than the registered version
├── ModelRefused         an artifact is not what the registry recorded
│   ├── ArtifactLost     a file of a model version is missing
│   ├── ModelOutdated    older code registered it, without what is needed now
│   └── EnvironmentDiffers   another Python or scikit-learn made it
├── EnvironmentMissing   a use case has an environment of its own, which was not made
│   └── EnvironmentRefused   it cannot be made: its requirements exclude what the platform needs
├── RolloutRefused       a version cannot be tried beside the champion as asked
├── AccessError          a key, role or login is not as it should be
├── AuditBroken          a row of the audit is not what was recorded, or is gone
├── AlertsMisconfigured  there is no channel where the setting says that there are
├── OrchestratorError    Dagster failed
│   ├── OrchestratorUnavailable  nothing answers where Dagster should be
│   ├── LaunchRefused    Dagster would not start a run
│   ├── EndRefused       Dagster would not end a run
│   ├── RunUnknown       Dagster knows no such run
│   └── RunFailed        a run or a backfill failed
└── RequestError         a request cannot be answered
    ├── RequestRefused   it is not as it should be: which column, what is wrong
    │   ├── RuleBroken        a row to predict breaks a rule of its source: which row, which rule
    │   ├── ParameterRefused  one parameter of what is to be done is not as it should be
    │   │   ├── ClassUnknown  a label that is no class of a version that serves
    │   │   ├── ParameterNotAllowed  a value that the declaration of a pipeline rules out
    │   │   └── TimeRefused   a time that cannot be: of what has not happened yet, or never will
    │   └── UnsupportedMedia  its body is in a form that is not read
    ├── KeyReused        another request was made with this Idempotency-Key
    ├── OriginRefused    a page of somebody else asks, by a browser on this machine
    ├── NotServed        no such use case, or no such version of it, is served
    ├── NotReviewed      the prediction never waited for a person's answer
    ├── WaitsNoMore      it does not wait any more: answered, skipped or too old
    ├── RequestTooLarge  it has more bytes or rows than are taken
    ├── TryLater         not now; ask again after some seconds
    │   ├── Overloaded   more is asked than can be answered in time
    │   ├── KeysUnread   the lake has not been read yet, so no key is known
    │   └── NotLoaded    a champion that cannot be loaded, or was not looked for yet
    ├── RateExceeded     this caller asks more often than the limit allows
    ├── IssuerUnavailable  the keys that tokens are checked with are unavailable
    ├── Unauthenticated  nobody knows who asks
    ├── Forbidden        who asks may not do this
    ├── NotKept          what had to be written down could not be
    └── ServingMisconfigured  the service cannot run with these settings
```

Errors know nothing of HTTP, gRPC or Dagster.
"""

from dataclasses import dataclass
from pathlib import Path


class PlatformError(Exception):
    """Base of every error that this package raises on purpose."""


@dataclass(frozen=True)
class Location:
    """A place in a file that a person wrote; line counts from 1, None if there is none."""

    file: Path
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else str(self.file)


class SpecError(PlatformError):
    """One mistake in a use case: where it stands, what is wrong, what to do."""

    def __init__(self, location: Location, path: str, problem: str) -> None:
        self.location = location
        self.path = path
        self.problem = problem
        super().__init__(f"{location} {path}: {problem}" if path else f"{location}: {problem}")


class SpecErrors(PlatformError):
    """Every mistake found in one use case, one line each."""

    def __init__(self, use_case: str, errors: tuple[SpecError, ...]) -> None:
        self.use_case = use_case
        self.errors = errors
        super().__init__("\n".join(str(error) for error in errors))


class Unavailable(PlatformError):
    """A server that the platform needs does not answer; it may later.

    is_final: whether waiting for it is no use any more: it was waited for as long as the settings
    allow, or what was begun cannot begin again.
    """

    def __init__(self, problem: str, *, is_final: bool = False) -> None:
        self.is_final = is_final
        super().__init__(problem)


class EngineFailed(PlatformError):
    """Another engine could not compute a range; nothing was written."""


class LakeError(PlatformError):
    """The lake refused or failed."""


class LakeUnavailable(Unavailable, LakeError):
    """The server of the lake's catalog, or the object store of its files, does not answer."""


class DiskFull(LakeError):
    """There is no room for what was to be written; what was there before is whole."""


class DataFileLost(LakeError):
    """A data file that the catalog names is missing or damaged."""


class CalendarChanged(LakeError):
    """The windows of a table were written by another calendar than the use case has now."""


class ColumnChanged(LakeError):
    """A column of a table is stored as another type than the use case declares now."""


class CommitConflict(LakeError):
    """Other writers kept winning until the retries were used up."""


class InputsChanged(LakeError):
    """What a computation had read was replaced before its result was committed."""


class TableNotFound(LakeError):
    """Nothing has been written to this table yet."""


class SchemaVersionRefused(PlatformError):
    """What is stored has a schema version that this release does not use."""


class NewerRelease(SchemaVersionRefused):
    """A newer release wrote what is stored, and this one cannot know what it means."""


class UpgradeNeeded(SchemaVersionRefused):
    """An older release wrote what is stored; it has to be migrated before it is used."""


class BackupRefused(PlatformError):
    """A backup is lost or damaged, or cannot be made or restored there."""


class ErasureRefused(PlatformError):
    """What is to be erased is named wrongly, or the place that holds it cannot be rewritten."""


class OnlineStoreError(PlatformError):
    """The online store cannot be reached, or refuses."""


class OnlineStoreUnavailable(Unavailable, OnlineStoreError):
    """The server of the online store does not answer."""


class NotPublished(OnlineStoreError):
    """None of this feature view is in the online store yet."""


class TargetError(PlatformError):
    """A database that predictions are published to refused or failed."""


class TargetUnavailable(Unavailable, TargetError):
    """The server of that database does not answer, or others hold what was to be written."""


class LandingError(PlatformError):
    """The landing folder cannot be read."""


class FileRefused(LandingError):
    """One landing file cannot be ingested; the others can."""

    def __init__(self, file: str, problem: str) -> None:
        self.file = file
        self.problem = problem
        super().__init__(f"{file}: {problem}")


class FeatureError(PlatformError):
    """A feature table or a training frame cannot be computed."""


class QueryFailed(FeatureError):
    """A use case's SQL failed when it ran."""


class DuplicateRows(FeatureError):
    """Two rows for one entity at one event time."""


class LeakFound(FeatureError):
    """A feature or a label depends on rows that were not known yet, or on more than declared."""


class ExampleRefused(FeatureError):
    """A row to predict lacks a column, or holds a value that is not of the column's type."""

    def __init__(self, column: str, problem: str) -> None:
        self.column = column
        self.problem = problem
        super().__init__(f"{column}: {problem}")


class EmptyPartition(PlatformError):
    """A window without rows: there is nothing to compute, and no number stands for that."""


class SubjectNotFound(PlatformError):
    """What somebody asks about is no landed file, no row of a source, or no version of one."""


class EmptySample(PlatformError):
    """A statistic of no values."""


class LabelsNotArrived(PlatformError):
    """Predictions exist, their labels are not known yet."""


class TrainingFailed(PlatformError):
    """The estimator or its training set cannot be used."""


class ModelNotFound(PlatformError):
    """No such model version."""


class RegistryError(PlatformError):
    """MLflow refused or failed."""


class RegistryUnavailable(Unavailable):
    """MLflow does not answer, however often it was asked."""


class EndpointUnavailable(Unavailable):
    """The endpoint that predicts batches does not answer, however often it was asked."""


class EndpointRefused(PlatformError):
    """An endpoint refuses rows, or answers something that is no prediction of them."""


class EndpointDiffers(EndpointRefused):
    """An endpoint predicts something else than the registered version that it names."""


class NoChampion(PlatformError):
    """No promotion is effective at this event time."""


class AnswerRefused(PlatformError):
    """A person's answer about a version that does not wait for one, or not any more."""


class RollbackRefused(PlatformError):
    """A version cannot be rolled back to, or not from that moment on."""


class ModelRefused(PlatformError):
    """An artifact is not what the registry recorded when it was registered."""


class ArtifactLost(ModelRefused):
    """A file of a model version is missing from the artifact store."""


class ModelOutdated(ModelRefused):
    """Older code registered a version, without something that is needed to use it now."""


class EnvironmentDiffers(ModelRefused):
    """A version was trained in another environment, with a difference that is known to matter."""


class EnvironmentMissing(PlatformError):
    """A use case has to run in an environment of its own, and that was not made."""


class EnvironmentRefused(EnvironmentMissing):
    """The environment of a use case cannot be made; says what the resolver said."""


class OrchestratorError(PlatformError):
    """Dagster failed, or knows nothing of what it was asked for."""


class OrchestratorUnavailable(OrchestratorError):
    """Nothing answers where Dagster should be."""

    def __init__(self, url: str, problem: str) -> None:
        self.url = url
        super().__init__(
            f"Dagster does not answer at {url} ({problem}); start it with `make dev`, or say where "
            "it is with ML_PLATFORM_DAGSTER_URL"
        )


class LaunchRefused(OrchestratorError):
    """Dagster would not start what it was asked to, in its own words."""

    def __init__(self, what: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"Dagster did not start {what}: {reason}")


class EndRefused(OrchestratorError):
    """Dagster would not end what it was asked to, in its own words."""


class RunUnknown(OrchestratorError):
    """There is no run or backfill of that id."""


class AlertsMisconfigured(PlatformError):
    """No channel can be made of what the setting `alerts` says."""


class RunFailed(OrchestratorError):
    """A run or a backfill failed."""

    def __init__(self, what: str, reasons: tuple[str, ...], link: str) -> None:
        self.reasons = reasons
        said = "".join(f"\n  {reason}" for reason in reasons)
        super().__init__(f"{what}; what it had finished stays, see {link}{said}")


class RequestError(PlatformError):
    """A request cannot be answered."""


class RequestRefused(RequestError):
    """A request is not as it should be; `column` names the culprit where it is one."""

    def __init__(self, problem: str, column: str | None = None) -> None:
        self.problem, self.column = problem, column
        super().__init__(f"column '{column}': {problem}" if column else problem)


class RuleBroken(RequestRefused):
    """A row to predict breaks a rule for which rows of its source are quarantined.

    `columns` are those that the rule reads; `row` counts from 0.
    """

    def __init__(self, source: str, rule: str, columns: tuple[str, ...], row: int) -> None:
        self.columns, self.row, self.rule = columns, row, rule
        problem = f"row {row} breaks the rule '{rule}' of {source}; a batch would not predict it"
        if len(columns) == 1:
            super().__init__(problem, columns[0])
        else:
            named = ", ".join(f"'{column}'" for column in columns)
            super().__init__(f"columns {named}: {problem}")


class ParameterRefused(RequestRefused):
    """One parameter of a request is not as it should be; `field` names it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"`{field}`: {problem}")
        self.field = field


class TimeRefused(ParameterRefused):
    """A time that is well written and cannot be, by what else is known; `field` names it."""


class ParameterNotAllowed(ParameterRefused):
    """A parameter that a pipeline does not declare, or a value that its declaration rules out."""


class ClassUnknown(ParameterRefused):
    """A label that is no class of a version that serves or is tried; `field` names it."""


class KeyReused(RequestError):
    """An Idempotency-Key that came with another request before."""


class UnsupportedMedia(RequestRefused):
    """A body is in a form that is not read: another content type, or packed in another way."""


class OriginRefused(RequestError):
    """A page of somebody else, or a name that is not this service's, in a browser's request."""


class NotServed(RequestError):
    """No such use case, or no such version of it, is served here."""


class NotReviewed(RequestError):
    """A person's answer about a prediction that never waited for one."""


class WaitsNoMore(RequestError):
    """A person's answer about a prediction that was answered or skipped before, or is too old."""


class RequestTooLarge(RequestError):
    """A request has more bytes or rows than are taken."""


class TryLater(RequestError):
    """It cannot be answered now, and is worth asking again after some seconds."""

    def __init__(self, problem: str, retry_after_seconds: int = 1) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(problem)


class Overloaded(TryLater):
    """More is asked than can be answered in time."""


class KeysUnread(TryLater):
    """The lake has not been read since the service started, so nobody's key is known."""


class NotLoaded(TryLater):
    """A champion that cannot be loaded, or was not looked for yet."""


class NotKept(RequestError):
    """What had to be written down could not be: the disk is full, say."""


class ServingMisconfigured(RequestError):
    """The service cannot run with these settings."""


class RateExceeded(RequestError):
    """A caller asks more often than the limit allows."""

    def __init__(self, problem: str, retry_after_seconds: int) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(problem)


class IssuerUnavailable(RequestError):
    """The keys that tokens are checked with are unavailable."""


class Unauthenticated(RequestError):
    """Nobody knows who asks: there is no key and no token, or none that is valid."""


class Forbidden(RequestError):
    """Who asks may not do this; names what is missing."""

    def __init__(
        self, caller: str, permission: str, use_case: str, roles: tuple[str, ...], why: str = ""
    ) -> None:
        self.permission, self.use_case = permission, use_case
        of = "every use case" if use_case == "*" else f"'{use_case[:60]}'"
        super().__init__(
            f"{why}{caller} lacks the permission '{permission}' for {of}; a role that has it: "
            f"{', '.join(roles)}"
        )


class AccessError(PlatformError):
    """A key, role or login is not as it should be."""


class AuditBroken(PlatformError):
    """The audit's chain of hashes breaks at a row; `proved` says what holds all the same."""

    def __init__(
        self,
        sequence: int,
        problem: str,
        proved: str = "the rows before it are as they were recorded",
    ) -> None:
        self.sequence = sequence
        super().__init__(f"the audit is broken: {problem}; {proved}")


class RolloutRefused(PlatformError):
    """A version cannot be tried beside the champion as asked."""
