"""What can be wrong with what is computed: features, labels, models, predictions."""

from ml_platform.errors.base import PlatformError, Unavailable


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


class RolloutRefused(PlatformError):
    """A version cannot be tried beside the champion as asked."""


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
