"""Which columns of a plain table a model is given, and by what the label's history is kept."""

import re
from collections.abc import Mapping

from ml_platform.spec.checks import IN_SOURCES
from ml_platform.spec.declared import Task
from ml_platform.spec.queries import quote
from ml_platform.spec.scaffold.profile import Column, Profile
from ml_platform.spec.windows import Cadence

MOST_NAMES = 200
TOO_MANY = "names too many different things to learn each"
UNNAMEABLE = IN_SOURCES | {"known_at"}


def choose_inputs(
    profile: Profile, event_time: str, label: str, key: tuple[str, ...], task: Task
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The columns that a model is given, and why it is not given the others."""
    left_out = {}
    for column in profile.columns.values():
        if column.name in {event_time, label}:
            continue
        if reason := _unfit(profile, column, event_time, label, task):
            left_out[column.name] = reason
        elif key == (column.name,):
            left_out[column.name] = "names a single row"
    kept = [n for n in profile.columns if n not in {event_time, label, *left_out}]
    return tuple(kept), left_out


def choose_group(
    profile: Profile,
    event_time: str,
    key: tuple[str, ...],
    columns: tuple[str, ...],
    left_out: Mapping[str, str],
    cadence: Cadence,
) -> tuple[str, str]:
    """What the history of the label is kept by: a column, or a part of the calendar."""
    options = [
        profile.columns[name]
        for name in (*columns, *(name for name, why in left_out.items() if why == TOO_MANY))
        if not profile.columns[name].nulls
        and not profile.columns[name].is_time
        and (profile.columns[name].kind == "VARCHAR" or name in key or is_id(name))
        and 1 < profile.columns[name].distinct <= profile.rows / 5
    ]
    if options:
        best = max(options, key=lambda c: (c.name in key, is_id(c.name), c.distinct))
        return best.name, f"{best.distinct} different ones come again and again"
    parts = {
        Cadence.hourly: "hour", Cadence.daily: "weekday", Cadence.weekly: "weekday",
        Cadence.monthly: "month",
    }  # fmt: skip
    hours = profile.distinct(f"hour({quote(event_time)})")
    part = "hour" if hours > 1 else parts[cadence]
    return f"{part}_of_event", f"no column repeats, so the {part} of {event_time} does"


def _unfit(profile: Profile, column: Column, event_time: str, label: str, task: Task) -> str | None:
    reason = None
    if not column.is_plain:
        reason = f"a {column.kind} is nothing that a model can be given"
    elif column.distinct < 2:
        reason = "always the same"
    elif column.name in UNNAMEABLE:
        reason = "the platform has a column of that name"
    elif column.kind == "VARCHAR" and column.distinct > profile.rows / 2:
        reason = "nearly every row has another text"
    elif profile.numbers_the_rows(column):
        reason = "numbers the rows"
    elif column.kind == "VARCHAR" and is_id(column.name) and column.distinct > MOST_NAMES:
        reason = TOO_MANY
    elif column.is_time and profile.is_mostly(f"{quote(column.name)} > {quote(event_time)}"):
        reason = "lies after the event, so it was not known yet"
    elif profile.tells(column, label, task):
        reason = f"tells {label} exactly, so it was hardly known before"
    return reason


def is_id(name: str) -> bool:
    """Whether a column is called as if it named something."""
    return bool(
        re.search(
            r"(^|[\W_])(id|key|code|number|nr|no|uuid)$|[a-z]I[Dd]$|nummer$", name, re.IGNORECASE
        )
    )
