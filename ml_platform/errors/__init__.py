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

from ml_platform.errors.base import (
    EngineFailed,
    Location,
    PlatformError,
    SpecError,
    SpecErrors,
    Unavailable,
)
from ml_platform.errors.computed import (
    AnswerRefused,
    ArtifactLost,
    DuplicateRows,
    EmptyPartition,
    EmptySample,
    EndpointDiffers,
    EndpointRefused,
    EndpointUnavailable,
    EnvironmentDiffers,
    EnvironmentMissing,
    EnvironmentRefused,
    ExampleRefused,
    FeatureError,
    LabelsNotArrived,
    LeakFound,
    ModelNotFound,
    ModelOutdated,
    ModelRefused,
    NoChampion,
    QueryFailed,
    RegistryError,
    RegistryUnavailable,
    RollbackRefused,
    RolloutRefused,
    SubjectNotFound,
    TrainingFailed,
)
from ml_platform.errors.operated import (
    AccessError,
    AlertsMisconfigured,
    AuditBroken,
    EndRefused,
    LaunchRefused,
    OrchestratorError,
    OrchestratorUnavailable,
    RunFailed,
    RunUnknown,
)
from ml_platform.errors.requests import (
    ClassUnknown,
    Forbidden,
    IssuerUnavailable,
    KeyReused,
    KeysUnread,
    NotKept,
    NotLoaded,
    NotReviewed,
    NotServed,
    OriginRefused,
    Overloaded,
    ParameterNotAllowed,
    ParameterRefused,
    RateExceeded,
    RequestError,
    RequestRefused,
    RequestTooLarge,
    RuleBroken,
    ServingMisconfigured,
    TimeRefused,
    TryLater,
    Unauthenticated,
    UnsupportedMedia,
    WaitsNoMore,
)
from ml_platform.errors.stored import (
    BackupRefused,
    CalendarChanged,
    ColumnChanged,
    CommitConflict,
    DataFileLost,
    DiskFull,
    ErasureRefused,
    FileRefused,
    InputsChanged,
    LakeError,
    LakeUnavailable,
    LandingError,
    NewerRelease,
    NotPublished,
    OnlineStoreError,
    OnlineStoreUnavailable,
    SchemaVersionRefused,
    TableNotFound,
    TargetError,
    TargetUnavailable,
    UpgradeNeeded,
)

__all__ = [
    "AccessError",
    "AlertsMisconfigured",
    "AnswerRefused",
    "ArtifactLost",
    "AuditBroken",
    "BackupRefused",
    "CalendarChanged",
    "ClassUnknown",
    "ColumnChanged",
    "CommitConflict",
    "DataFileLost",
    "DiskFull",
    "DuplicateRows",
    "EmptyPartition",
    "EmptySample",
    "EndRefused",
    "EndpointDiffers",
    "EndpointRefused",
    "EndpointUnavailable",
    "EngineFailed",
    "EnvironmentDiffers",
    "EnvironmentMissing",
    "EnvironmentRefused",
    "ErasureRefused",
    "ExampleRefused",
    "FeatureError",
    "FileRefused",
    "Forbidden",
    "InputsChanged",
    "IssuerUnavailable",
    "KeyReused",
    "KeysUnread",
    "LabelsNotArrived",
    "LakeError",
    "LakeUnavailable",
    "LandingError",
    "LaunchRefused",
    "LeakFound",
    "Location",
    "ModelNotFound",
    "ModelOutdated",
    "ModelRefused",
    "NewerRelease",
    "NoChampion",
    "NotKept",
    "NotLoaded",
    "NotPublished",
    "NotReviewed",
    "NotServed",
    "OnlineStoreError",
    "OnlineStoreUnavailable",
    "OrchestratorError",
    "OrchestratorUnavailable",
    "OriginRefused",
    "Overloaded",
    "ParameterNotAllowed",
    "ParameterRefused",
    "PlatformError",
    "QueryFailed",
    "RateExceeded",
    "RegistryError",
    "RegistryUnavailable",
    "RequestError",
    "RequestRefused",
    "RequestTooLarge",
    "RollbackRefused",
    "RolloutRefused",
    "RuleBroken",
    "RunFailed",
    "RunUnknown",
    "SchemaVersionRefused",
    "ServingMisconfigured",
    "SpecError",
    "SpecErrors",
    "SubjectNotFound",
    "TableNotFound",
    "TargetError",
    "TargetUnavailable",
    "TimeRefused",
    "TrainingFailed",
    "TryLater",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedMedia",
    "UpgradeNeeded",
    "WaitsNoMore",
]

for _name in __all__:
    # Tracebacks and pickles name what is imported, wherever in this package it is.
    globals()[_name].__module__ = __name__
