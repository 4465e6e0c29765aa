"""What every error is, and what is wrong with a use case."""

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
