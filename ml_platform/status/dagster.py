"""What only Dagster knows: which sensors and schedules fail."""

from dataclasses import dataclass

from ml_platform.errors import OrchestratorError
from ml_platform.orchestrator.connection import Connection
from ml_platform.orchestrator.ticks import Failing, failing_ticks
from ml_platform.settings import Settings

LONGEST_SECONDS = 10.0


@dataclass(frozen=True)
class Dagster:
    """Dagster as it answers now."""

    url: str
    failing: tuple[Failing, ...] = ()
    problem: str | None = None
    """Why it could not be asked; then nothing is known of what fails."""

    def of(self, use_case: str, use_cases: list[str]) -> tuple[Failing, ...]:
        """What fails of one use case: sensors and schedules bear its name in front."""
        return tuple(each for each in self.failing if owner_of(each, use_cases) == use_case)


def ask_dagster(settings: Settings) -> Dagster:
    """Ask Dagster what fails; where it is away, the answer says so."""
    with Connection(settings.dagster_url, LONGEST_SECONDS) as connection:
        try:
            return Dagster(connection.url, failing_ticks(connection.post))
        except OrchestratorError as error:
            return Dagster(connection.url, problem=str(error))


def owner_of(failing: Failing, use_cases: list[str]) -> str | None:
    """The use case that a sensor or a schedule belongs to; None where it is the deployment's."""
    owners = [name for name in use_cases if failing.name.startswith(f"{name}_")]
    # `trips_too_alerts` begins with `trips_`, too.
    return max(owners, key=len) if owners and failing.kind != "code location" else None
