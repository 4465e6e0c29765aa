"""What can be asked for, with its parameters, and how they are read."""

import re
from datetime import datetime
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from ml_platform.backfill.upkeep import newest_complete
from ml_platform.errors import ParameterRefused, RequestRefused
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window, utc

Key = Annotated[
    str, Meta(min_length=1, max_length=40, description="A partition, by its key: `2024-03-01`.")
]
Reason = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=500,
        pattern="^[^\\x00-\\x1f\\x7f]*$",
        description="Why, in one line; kept with what is done.",
    ),
]
Version = Annotated[int, Meta(ge=1, le=2**31 - 1, description="Number of a model version.")]
DryRun = Annotated[bool, Meta(description="Only say what would be done.")]
File = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=500,
        pattern="^[^\\x00-\\x1f\\x7f]*$",
        description="Rows to predict, or answers: a Parquet file below the folder for batches, "
        "or a table as `database:table`.",
    ),
]
Table = Annotated[str, Meta(min_length=1, max_length=200)]

NAMED = re.compile(r"`\$\.?([^`\[.]+)")
QUOTED = re.compile(r"field `([^`]*)`")
BODY = "body"

T = TypeVar("T", bound=Struct)


class Train(Struct, frozen=True, forbid_unknown_fields=True):
    """A challenger, trained on what was known before a cutoff, for the gate to decide about."""

    cutoff: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=40,
                description="Partition at whose start the known world ends; the newest by default.",
            ),
        ]
        | None
    ) = None
    reason: Reason | None = None


class Score(Struct, frozen=True, forbid_unknown_fields=True):
    """Predictions of one partition or of a range, and the features that they lack; or of a file."""

    partition: Key | None = None
    first: Key | None = field(name="from", default=None)
    last: Key | None = field(name="to", default=None)
    rows: File | None = None
    answers: File | None = None
    reason: Reason | None = None


class BackfillParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """What is missing, failed or stale in a range, computed again."""

    tables: Annotated[
        list[Table],
        Meta(max_length=1000, description="These and what is computed from them; all by default."),
    ] = []
    first: Key | None = field(name="from", default=None)
    last: Key | None = field(name="to", default=None)
    only: Annotated[bool, Meta(description="The named tables alone.")] = False
    with_sources: Annotated[bool, Meta(description="Ingest, too.")] = False
    every: Annotated[bool, Meta(description="Compute fresh partitions, too.")] = field(
        name="all", default=False
    )
    dry_run: DryRun = False
    reason: Reason | None = None


class Decide(Struct, frozen=True, forbid_unknown_fields=True):
    """A person's answer about a version that waits for one."""

    version: Version
    reason: Reason


class Rollback(Struct, frozen=True, forbid_unknown_fields=True):
    """An earlier version is to serve again."""

    reason: Reason
    version: (
        Annotated[
            int,
            Meta(ge=1, le=2**31 - 1, description="By default the champion before this one."),
        ]
        | None
    ) = None
    first: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=40,
                description="Partition from which on; by default the first that this one serves.",
            ),
        ]
        | None
    ) = field(name="from", default=None)
    serving: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=2**31 - 1,
                description="Version that serves now, as far as you know: refused where it is "
                "another one. So of two who roll back at once, or one after the other, one does.",
            ),
        ]
        | None
    ) = None
    dry_run: DryRun = False


def read(body: bytes, kind: type[T]) -> T:
    """The parameters in a body of JSON; an empty one has none.

    Raises ParameterRefused, which names the parameter, and RequestRefused where it is no JSON.
    """
    try:
        return msgspec.json.decode(body if body.strip() else b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise ParameterRefused(_field_in(str(error)), str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestRefused(f"the body is no JSON: {error}") from None


def cutoff_in(use_case: UseCase, key: str, now: datetime) -> Window:
    """The partition at whose start a training's known world ends; it has to have begun."""
    window = window_in(use_case, "cutoff", key)
    if utc(window.start) > utc(now):
        raise ParameterRefused("cutoff", f"the partition '{key}' has not begun yet")
    return window


def range_in(
    use_case: UseCase, now: datetime, first: str, last: str, names: tuple[str, str]
) -> Window:
    """The range between two partitions, both included, which has to be over.

    names: of the two parameters, for what is said of them.
    """
    begin, end = (
        window_in(use_case, name, key) for name, key in zip(names, (first, last), strict=True)
    )
    if utc(end.end) <= utc(begin.start):
        raise ParameterRefused(names[0], f"the partition '{first}' comes after '{last}'")
    newest = newest_complete(use_case, now)
    if newest is None or utc(end.end) > utc(newest.end):
        said = "none is yet" if newest is None else f"'{use_case.calendar.key(newest)}' is the last"
        raise ParameterRefused(names[1], f"the partition '{last}' is not over; {said}")
    return Window(begin.start, end.end)


def window_in(use_case: UseCase, name: str, key: str) -> Window:
    """The partition of a key; ParameterRefused, under the parameter's name, where there is none."""
    try:
        window = use_case.calendar.window(key)
    except (ValueError, OverflowError) as error:
        raise ParameterRefused(name, str(error)) from None
    end = use_case.partitions.closes_at
    if end is not None and utc(window.start) >= utc(end):
        raise ParameterRefused(
            name, f"there is no partition '{key}': the history of {use_case.name} ends at {end}"
        )
    return window


def _field_in(said: str) -> str:
    """The parameter that a message of msgspec is about.

    >>> _field_in("Object contains unknown field `cutof`")
    'cutof'
    >>> _field_in("Expected `str`, got `int` - at `$.tables[0]`")
    'tables'
    """
    if found := NAMED.search(said) or QUOTED.search(said):
        return found[1][:60]
    return BODY
