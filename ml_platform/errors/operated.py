"""What can be wrong around the platform: Dagster, alerts, access, the audit."""

from ml_platform.errors.base import PlatformError


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


class RunFailed(OrchestratorError):
    """A run or a backfill failed."""

    def __init__(self, what: str, reasons: tuple[str, ...], link: str) -> None:
        self.reasons = reasons
        said = "".join(f"\n  {reason}" for reason in reasons)
        super().__init__(f"{what}; what it had finished stays, see {link}{said}")


class AlertsMisconfigured(PlatformError):
    """No channel can be made of what the setting `alerts` says."""


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
