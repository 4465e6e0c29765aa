"""Partitions, ranges and moments by the names that people give them."""

from datetime import UTC, datetime

from ml_platform.errors import PlatformError
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window

BETWEEN = "..."
"""Stands between the first and the last partition of a range; both are included."""


def named_partition(use_case: UseCase, key: str) -> Window:
    """The window of a partition's key; PlatformError where there is none."""
    try:
        return use_case.calendar.window(key)
    except ValueError as error:
        raise PlatformError(f"{use_case.name}: {error}") from None


def named_range(use_case: UseCase, text: str, asked: str) -> Window:
    """The range that `first...last` names; PlatformError where there is none.

    asked: what was asked for, which a message begins with.
    """
    first, between, last = text.partition(BETWEEN)
    if not between:
        raise PlatformError(f"{asked}: write first{BETWEEN}last")
    begin, end = named_partition(use_case, first).start, named_partition(use_case, last).end
    if end.astimezone(UTC) <= begin.astimezone(UTC):
        raise PlatformError(f"{asked}: the first partition is after the last")
    return Window(begin, end)


def named_time(use_case: UseCase, text: str) -> datetime | Window:
    """The partition of a key, else a moment; without an offset it is in the use case's zone."""
    try:
        return use_case.calendar.window(text)
    except ValueError:
        return named_moment(use_case, text)


def named_moment(use_case: UseCase, text: str) -> datetime:
    """A moment in ISO 8601; without an offset it is in the use case's zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        key = use_case.calendar.key(use_case.calendar.window_at(use_case.calendar.start))
        raise PlatformError(
            f"'{text}' is neither a time nor a partition; write {key} or {use_case.calendar.start}"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=use_case.calendar.timezone)
