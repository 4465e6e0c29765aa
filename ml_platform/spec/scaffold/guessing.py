"""Guesses about a plain table: event time, label, task, keys and cadence, each with its reason."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ml_platform.spec.declared import Task
from ml_platform.spec.queries import quote
from ml_platform.spec.scaffold.csv_table import TRIED
from ml_platform.spec.scaffold.inputs import choose_group, choose_inputs
from ml_platform.spec.scaffold.keys import LABEL_NAMES, guess_key
from ml_platform.spec.scaffold.profile import Profile
from ml_platform.spec.values import unknown
from ml_platform.spec.windows import Cadence

TIME_NAMES = ("event_time", "timestamp", "datetime", "time", "date", "ts", "when", "at", "day")
POSITIVES = ("true", "yes", "y", "1", "1.0", "positive", "fraud", "late", "churned", "bad", "fail")
MOST_CLASSES = 20
MOST_NUMBERED_CLASSES = 10
ROWS_A_WINDOW = 50
FEWEST_WINDOWS = 12


@dataclass(frozen=True)
class Overrides:
    """What the person said, so that it is not guessed."""

    event_time: str | None = None
    label: str | None = None
    key: tuple[str, ...] = ()
    task: Task | None = None
    cadence: Literal["hourly", "daily", "weekly", "monthly"] | None = None
    timezone: str = "UTC"


@dataclass(frozen=True)
class Rhythm:
    """How densely rows lie in the windows of a cadence."""

    cadence: Cadence
    windows: int
    """From the first to the last row, empty ones included."""
    rows: int
    """Of the median window that has any."""


@dataclass(frozen=True)
class Guess:
    """A use case as far as one file tells; `reasons` says why, by what was guessed."""

    event_time: str
    label: str
    task: Task
    classes: tuple[str, ...]
    """Of a multiclass label, most frequent first; of a binary one, what counts as true."""
    key: tuple[str, ...]
    group: str
    """Column, or part of the calendar, whose history the feature view describes."""
    columns: tuple[str, ...]
    """What the model is given."""
    left_out: dict[str, str]
    """Columns that it is not given, and why."""
    rhythm: Rhythm
    first: datetime
    last: datetime
    reasons: dict[str, str]


def guess(profile: Profile, said: Overrides) -> Guess:
    """Look at a file and guess what nobody said; SpecError where there is nothing to go by."""
    named = {"--event-time": [said.event_time], "--label": [said.label], "--key": said.key}
    for option, names in named.items():
        for name in names:
            if name is not None and name not in profile.columns:
                raise profile.refusal(option, unknown("column", name, profile.columns))
    reasons: dict[str, str] = {}
    event_time, reasons["event_time"] = guess_event_time(profile, said.event_time)
    key, reasons["key"] = guess_key(profile, said.key, event_time, said.label)
    label, reasons["label"] = guess_label(profile, said.label, event_time, key)
    task, classes, reasons["task"] = guess_task(profile, said.task, label)
    rhythm, reasons["cadence"] = guess_rhythm(
        profile, Cadence(said.cadence) if said.cadence else None, event_time
    )
    columns, unfit = choose_inputs(profile, event_time, label, key, task)
    left_out = {**unfit, **profile.left_out}
    group, reasons["group"] = choose_group(
        profile, event_time, key, columns, left_out, rhythm.cadence
    )
    first, last = profile.span(event_time)
    reasons = {what: " ".join(why.split()) for what, why in reasons.items()}
    return Guess(
        event_time,
        label,
        task,
        classes,
        key,
        group,
        columns,
        left_out,
        rhythm,
        first,
        last,
        reasons,
    )


def guess_event_time(profile: Profile, said: str | None) -> tuple[str, str]:
    """The column that says when a row happened."""
    times = [column for column in profile.columns.values() if column.is_time]
    if said is not None:
        if profile.columns[said] not in times:
            example = profile.columns[said].example
            problem = f"'{said}' holds no times but '{example}'; write them like 2024-01-31 15:00"
            raise profile.refusal("--event-time", problem)
        return said, "you said so"
    if not times:
        looked = ", ".join(f"{c.name} ('{c.example}')" for c in profile.columns.values())
        tried = f"; tried {TRIED} too" if profile.csv else ""
        problem = f"none of the columns holds times like 2024-01-31 15:00{tried}"
        problem += f"; there are {looked}"
        raise profile.refusal("--event-time", problem)
    best = min(times, key=lambda column: (_rank(column.name, TIME_NAMES), column.nulls))
    if len(times) == 1:
        return best.name, "the only column of times"
    others = ", ".join(column.name for column in times if column is not best)
    return best.name, f"its name says so more than those of {others}"


def guess_label(
    profile: Profile, said: str | None, event_time: str, key: tuple[str, ...]
) -> tuple[str, str]:
    """The column to predict."""
    if said is not None:
        if said == event_time or said in key:
            raise profile.refusal("--label", f"'{said}' is the event time or part of the key")
        return said, "you said so"
    options = [
        column
        for column in profile.columns.values()
        if column.name not in {event_time, *key}
        and column.is_plain
        and not column.is_time
        and column.distinct > 1
    ]
    if not options:
        problem = (
            f"nothing is left to predict beside {', '.join(dict.fromkeys((event_time, *key)))}"
        )
        raise profile.refusal("--label", problem)
    best = min(options, key=lambda column: _rank(column.name, LABEL_NAMES))
    if _rank(best.name, LABEL_NAMES) < len(LABEL_NAMES):
        return best.name, "its name says so"
    return options[-1].name, "the last column, for lack of a name that says more"


def guess_task(
    profile: Profile, said: Task | None, label: str
) -> tuple[Task, tuple[str, ...], str]:
    """The kind of prediction; with the classes, of two classes the one that counts as true."""
    column = profile.columns[label]
    name = quote(label)
    classes = profile.texts(
        f"SELECT {name}::VARCHAR FROM file WHERE {name} IS NOT NULL "
        f"GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {MOST_CLASSES + 1}"
    )
    has_values = f"it has {column.distinct} different values of type {column.kind}"
    if column.distinct < 2:
        raise profile.refusal("--label", f"'{label}' is always the same; there is nothing to learn")
    task: Task
    if column.distinct == 2:
        task = "binary"
    elif column.is_number and not (column.is_whole and column.distinct <= MOST_NUMBERED_CLASSES):
        task = "regression"
    else:
        task = "multiclass"
    if said is not None:
        has_values, task = "you said so", said
    if task == "regression" and not (column.is_number or column.kind == "BOOLEAN"):
        raise profile.refusal("--task", f"'{label}' is {column.kind}; regression needs numbers")
    if task == "binary" and column.distinct != 2:
        problem = f"'{label}' has {column.distinct} different values; binary needs two"
        raise profile.refusal("--task", problem)
    if task == "multiclass" and column.distinct > MOST_CLASSES:
        problem = f"'{label}' has {column.distinct} different values, too many for classes"
        raise profile.refusal("--label", f"{problem}; name another column")
    if task == "binary":
        positive = next((c for c in classes if c.lower() in POSITIVES), classes[-1])
        return task, (positive,), f"{has_values}; '{positive}' counts as true"
    return task, tuple(classes if task == "multiclass" else ()), has_values


def guess_rhythm(profile: Profile, said: Cadence | None, event_time: str) -> tuple[Rhythm, str]:
    """The shortest windows that hold enough rows, of which there are enough."""
    rhythms = {cadence: _rhythm(profile, cadence, event_time) for cadence in Cadence}
    if said is not None:
        return rhythms[said], "you said so"
    unit = "hours"
    if not profile.has_hours(event_time):
        del rhythms[Cadence.hourly]
        unit = "days"
    long_enough = [r for r in rhythms.values() if r.windows >= FEWEST_WINDOWS]
    if not long_enough:
        first, last = profile.span(event_time)
        problem = f"from {first} to {last} there are less than {FEWEST_WINDOWS} {unit}"
        raise profile.refusal("--cadence", f"{problem}; more history is needed to learn from")
    dense = [rhythm for rhythm in long_enough if rhythm.rows >= ROWS_A_WINDOW]
    if dense:
        best = dense[0]
        why = f"the shortest windows with {ROWS_A_WINDOW} rows or more"
    else:
        best = long_enough[-1]
        why = f"no windows have {ROWS_A_WINDOW} rows, these are the longest of which there are"
        why += f" {FEWEST_WINDOWS}"
    return best, f"{why}: {best.windows} windows with a median of {best.rows} rows"


def _rhythm(profile: Profile, cadence: Cadence, event_time: str) -> Rhythm:
    units = {"hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month"}
    unit, column = units[cadence], quote(event_time)
    windows, rows = profile.row(
        f"""SELECT date_diff('{unit}', min(start), max(start)) + 1, median(rows)::BIGINT FROM (
            SELECT date_trunc('{unit}', {column}) AS start, count(*) AS rows FROM file
            WHERE {column} IS NOT NULL GROUP BY 1)"""
    )
    return Rhythm(cadence, windows, rows)


def _rank(name: str, names: tuple[str, ...]) -> int:
    words = name.lower()
    parts = set(re.split(r"[^a-z0-9]+|_", words))
    exact = [i for i, known in enumerate(names) if words == known]
    return min(exact or [i for i, known in enumerate(names) if known in parts] or [len(names)])
