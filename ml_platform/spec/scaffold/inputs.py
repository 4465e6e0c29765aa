"""Which columns of a plain table a model is given, and by what the label's history is kept."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ml_platform.spec.checks import IN_SOURCES
from ml_platform.spec.declared import Task
from ml_platform.spec.queries import quote
from ml_platform.spec.scaffold.paces import PACES, UNITS, recent_windows
from ml_platform.spec.scaffold.pairs import find_pairs
from ml_platform.spec.scaffold.profile import Column, Profile
from ml_platform.spec.scaffold.rhythm import Rhythm
from ml_platform.spec.strength import NEARLY, measure_strengths
from ml_platform.spec.windows import Cadence

MOST_NAMES = 200
MOST_GROUPS = 12
FEWEST_THAT_COME_BACK = 0.5
"""Share of the rows whose group has a history, from which on it is kept by a column."""
ABOUT_AS_OFTEN = 0.8
TOO_MANY = "names too many different things to learn each"
SINGLE_TEXTS = "nearly every row has another text"
MEASURED_MEANWHILE = 0.5
"""From here on a number follows how long something took, so that it was counted meanwhile."""
LENGTH = re.compile(r"(^|_)(duration|elapsed|seconds?|minutes?|hours?|took)(_|$)", re.I)
"""Names of labels that say how long something took."""
CALENDAR_PART = {
    Cadence.hourly: "hour", Cadence.daily: "weekday", Cadence.weekly: "weekday",
    Cadence.monthly: "month",
}  # fmt: skip
UNNAMEABLE = IN_SOURCES | {"known_at"}


@dataclass(frozen=True)
class InputColumns:
    """The columns that a model is given, and those that it is not."""

    columns: tuple[str, ...]
    left_out: dict[str, str]
    """Why, by name."""
    strengths: dict[str, float]
    """How much each one alone says of the label, from 0 to 1, the strongest first."""
    doubted: dict[str, str]
    """Columns that the person named, and what speaks against them."""


def choose_inputs(
    profile: Profile,
    event_time: str,
    label: str,
    key: tuple[str, ...],
    task: Task,
    said: tuple[str, ...],
) -> InputColumns:
    """What a model is given: what is known at the event, as far as the values show.

    A column that nearly determines the label is hardly known before it. said: columns that are
    given all the same where nothing but that speaks against them.
    """
    left_out = {}
    for column in profile.columns.values():
        if column.name in {event_time, label}:
            continue
        if reason := _unfit(profile, column, event_time, key):
            left_out[column.name] = reason
    kept = [n for n in profile.columns if n not in {event_time, label, *left_out}]
    strengths = measure_strengths(profile, quote(label), task, kept)
    doubted = {
        name: _doubt(profile, profile.columns[name], event_time, label, task, strengths[name])
        for name in kept
    }
    doubted = {name: doubt for name, doubt in doubted.items() if doubt}
    lengths = _lengths(profile, kept, event_time, label, task)
    doubted |= _measured_meanwhile(profile, lengths, [n for n in kept if n not in doubted])
    if task == "regression":
        doubted |= _determined_together(profile, label, kept, doubted)
    refused = {name: doubt for name, doubt in doubted.items() if name not in said}
    return InputColumns(
        tuple(name for name in kept if name not in refused),
        {**left_out, **refused},
        strengths,
        {name: doubt for name, doubt in doubted.items() if name in said},
    )


def group_options(profile: Profile, event_time: str, key: Iterable[str]) -> list[str]:
    """Columns by whose values a history may be kept, those with the most values first."""
    options = [
        column
        for column in profile.columns.values()
        if not column.nulls
        and not column.is_time
        and column.is_plain
        and column.name not in {event_time, *UNNAMEABLE}
        and (column.kind == "VARCHAR" or column.name in key or is_id(column.name))
        and 1 < column.distinct <= profile.seen / 2
    ]
    options.sort(key=lambda column: -column.distinct)
    return [column.name for column in options[:MOST_GROUPS]]


def choose_group(
    profile: Profile,
    event_time: str,
    key: tuple[str, ...],
    groups: Iterable[str],
    inputs: InputColumns,
    rhythm: Rhythm,
) -> tuple[str, str]:
    """What the history of the label is kept by: a column, or a part of the calendar.

    A column is taken whose values come back: a history of what never does is always empty.
    groups: columns that it may be, as `group_options` finds them.
    """
    unfit = {n for n, why in inputs.left_out.items() if why not in {TOO_MANY, SINGLE_TEXTS}}
    recent = recent_windows(rhythm.cadence, rhythm.windows)
    shares = {
        name: _share_that_comes_back(profile, name, event_time, rhythm, recent)
        for name in groups
        if name not in unfit
        and (profile.columns[name].kind == "VARCHAR" or name in key or is_id(name))
    }
    often = {n: share for n, share in shares.items() if share >= FEWEST_THAT_COME_BACK}
    if often:
        enough = ABOUT_AS_OFTEN * max(often.values())
        best = max(
            (profile.columns[name] for name, share in often.items() if share >= enough),
            key=lambda c: (c.name in key, is_id(c.name), c.distinct),
        )
        back = (
            f"{often[best.name]:.0%} of the rows have one that came in the {recent} windows before"
        )
        return best.name, back
    hours = profile.distinct(f"hour({quote(event_time)})")
    part = "hour" if hours > 1 else CALENDAR_PART[rhythm.cadence]
    return f"{part}_of_event", f"no column's values come back, so the {part} of {event_time} does"


def _share_that_comes_back(
    profile: Profile, name: str, time: str, rhythm: Rhythm, recent: int
) -> float:
    """Share of the rows whose value was there in one of so many windows before theirs."""
    window = f"date_trunc('{UNITS[rhythm.cadence]}', {quote(time)}::TIMESTAMPTZ::TIMESTAMP)"
    reach = f"INTERVAL {(recent + 1) * PACES[rhythm.cadence].hours} HOURS"
    (share,) = profile.numbers(
        f"""SELECT sum(n) FILTER (start - before <= {reach}) / sum(n)
        FROM (SELECT start, n, lag(start) OVER (PARTITION BY it ORDER BY start) AS before
            FROM (SELECT {quote(name)} AS it, {window} AS start, count(*) AS n FROM whole
                WHERE {quote(time)} IS NOT NULL GROUP BY ALL))"""
    )
    return share


def _lengths(
    profile: Profile, names: Iterable[str], event_time: str, label: str, task: Task
) -> dict[str, str]:
    """SQL of how long what a row is about took, by what says so: times after the event, the label.

    Where a file has such a length its rows were written at the end of it.
    """
    start = f"epoch({quote(event_time)}::TIMESTAMPTZ)"
    lengths = {
        f"how long it took until {name}": f"epoch({quote(name)}::TIMESTAMPTZ) - {start}"
        for name in names
        if _is_after(profile, profile.columns[name], event_time)
    }
    if task == "regression" and LENGTH.search(label):
        lengths[f"the {label} that it took"] = quote(label)
    return lengths


def _measured_meanwhile(
    profile: Profile, lengths: Mapping[str, str], names: list[str]
) -> dict[str, str]:
    """Columns that grow with how long it took, as distance and fare do, and what speaks so."""
    doubted = {}
    for what, length in lengths.items():
        strengths = measure_strengths(profile, length, "regression", names)
        for name, strength in strengths.items():
            if strength >= MEASURED_MEANWHILE and profile.is_ordered(name):
                said = f"says {strength:.2f} of 1 of {what}"
                doubted[name] = f"{said}, so it was hardly known before"
    return doubted


def _determined_together(
    profile: Profile, label: str, names: list[str], doubted: Mapping[str, str]
) -> dict[str, str]:
    """Columns that determine the label with one other, and what speaks against them."""
    return {
        name: f"with {other} it nearly determines {label}, so one of both was hardly known before"
        for pair in find_pairs(profile, label, names)
        for name, other in (pair, pair[::-1])
        if name not in doubted
    }


def _is_after(profile: Profile, column: Column, event_time: str) -> bool:
    return column.is_time and profile.is_mostly(f"{quote(column.name)} > {quote(event_time)}")


def _doubt(
    profile: Profile, column: Column, event_time: str, label: str, task: Task, strength: float
) -> str:
    """Why a column was hardly known at the event; empty where nothing says so."""
    if _is_after(profile, column, event_time):
        return "lies after the event, so it was not known yet"
    if profile.determines(column, label, task):
        return f"determines {label} exactly, so it was hardly known before"
    if strength >= NEARLY:
        nearly = f"alone it nearly determines {label} ({strength:.2f} of 1)"
        return f"{nearly}, so it was hardly known before"
    return ""


def _unfit(profile: Profile, column: Column, event_time: str, key: tuple[str, ...]) -> str | None:
    reason = None
    if not column.is_plain:
        reason = f"a {column.kind} is nothing that a model can be given"
    elif column.distinct < 2:
        reason = "always the same"
    elif column.name in UNNAMEABLE:
        reason = "the platform has a column of that name"
    elif column.kind == "VARCHAR" and column.distinct > profile.seen / 2:
        reason = SINGLE_TEXTS
    elif profile.numbers_the_rows(column):
        reason = "numbers the rows"
    elif column.kind == "VARCHAR" and is_id(column.name) and column.distinct > MOST_NAMES:
        reason = TOO_MANY
    elif key == (column.name,):
        reason = "names a single row"
    return reason


def is_id(name: str) -> bool:
    """Whether a column is called as if it named something."""
    return bool(
        re.search(
            r"(^|[\W_])(id|key|code|number|nr|no|uuid)$|[a-z]I[Dd]$|nummer$", name, re.IGNORECASE
        )
    )
