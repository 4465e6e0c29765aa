"""Guesses about a plain table: event time, label, task, keys and cadence, each with its reason."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ml_platform.spec.declared import Task
from ml_platform.spec.queries import quote
from ml_platform.spec.scaffold.csv_table import TRIED
from ml_platform.spec.scaffold.inputs import choose_group, choose_inputs, group_options
from ml_platform.spec.scaffold.keys import LABEL_NAMES, guess_key, key_options
from ml_platform.spec.scaffold.profile import Profile
from ml_platform.spec.scaffold.rhythm import Rhythm, TimeSpan, find_span, guess_rhythm
from ml_platform.spec.values import unknown
from ml_platform.spec.windows import Cadence

TIME_NAMES = ("event_time", "timestamp", "datetime", "time", "date", "ts", "when", "at", "day")
POSITIVES = ("true", "yes", "y", "1", "1.0", "positive", "fraud", "late", "churned", "bad", "fail")
MOST_CLASSES = 20
MOST_NUMBERED_CLASSES = 10
WEAK_NAMES = frozenset({"y", "class", "default", "price", "count", "cnt", "value"})
"""Names of labels that are none as a part of a longer name, such as passenger_count."""


@dataclass(frozen=True)
class Overrides:
    """What the person said, so that it is not guessed."""

    event_time: str | None = None
    label: str | None = None
    key: tuple[str, ...] = ()
    task: Task | None = None
    cadence: Literal["hourly", "daily", "weekly", "monthly"] | None = None
    timezone: str = "UTC"
    inputs: tuple[str, ...] = ()
    """Columns that are known at the event, however much they say of the label."""


@dataclass(frozen=True)
class Guess:
    """A use case as far as one file shows; `reasons` says why, by what was guessed."""

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
    strengths: dict[str, float]
    """How much each column alone says of the label, from 0 to 1, the strongest first."""
    doubted: dict[str, str]
    """Columns that it is given because the person said so, and what speaks against them."""
    rhythm: Rhythm
    span: TimeSpan
    reasons: dict[str, str]

    @property
    def first(self) -> datetime:
        """Moment of the first row, strays left out."""
        return self.span.first

    @property
    def last(self) -> datetime:
        """Moment of the last row, strays left out."""
        return self.span.last


def guess(profile: Profile, said: Overrides) -> Guess:
    """Look at a file and guess what nobody said; SpecError where there is nothing to go by."""
    named = {
        "--event-time": [said.event_time],
        "--label": [said.label],
        "--key": said.key,
        "--input": said.inputs,
    }
    for option, names in named.items():
        for name in names:
            if name is not None and name not in profile.columns:
                raise profile.refusal(option, unknown("column", name, profile.columns))
    reasons: dict[str, str] = {}
    event_time, reasons["event_time"] = guess_event_time(profile, said.event_time)
    # All rows are read once more, for the few columns that no sample shows enough of.
    options = key_options(profile, event_time, said.label)
    groups = group_options(profile, event_time, (*said.key, *options))
    profile.look_at_all(dict.fromkeys((event_time, *said.key, *options, *groups)))
    key, reasons["key"] = guess_key(profile, said.key, event_time, said.label)
    label, reasons["label"] = guess_label(profile, said.label, event_time, key)
    task, classes, reasons["task"] = guess_task(profile, said.task, label)
    span = find_span(profile, event_time)
    rhythm, reasons["cadence"] = guess_rhythm(
        profile, Cadence(said.cadence) if said.cadence else None, event_time, span
    )
    inputs = choose_inputs(profile, event_time, label, key, task, said.inputs)
    group, reasons["group"] = choose_group(profile, event_time, key, groups, inputs, rhythm)
    reasons = {what: " ".join(why.split()) for what, why in reasons.items()}
    return Guess(
        event_time,
        label,
        task,
        classes,
        key,
        group,
        inputs.columns,
        {**inputs.left_out, **profile.left_out},
        inputs.strengths,
        inputs.doubted,
        rhythm,
        span,
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


def _rank(name: str, names: tuple[str, ...]) -> int:
    words = name.lower()
    parts = set(re.split(r"[^a-z0-9]+|_", words))
    exact = [i for i, known in enumerate(names) if words == known]
    part = [i for i, known in enumerate(names) if known in parts and known not in WEAK_NAMES]
    return min(exact or part or [len(names)])
