"""What can be wrong with what is stored: lake, landing, online store, targets, backups."""

from ml_platform.errors.base import PlatformError, Unavailable


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
