"""What a new use case will look like: names, lengths and columns, all derived from a guess."""

import json
import re
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

import duckdb

from ml_platform.spec.checks import IN_EXAMPLES
from ml_platform.spec.queries import quote
from ml_platform.spec.scaffold.files import ending_of
from ml_platform.spec.scaffold.guessing import Guess
from ml_platform.spec.scaffold.paces import PACES, Pace, recent_windows
from ml_platform.spec.scaffold.profile import Profile
from ml_platform.spec.windows import Calendar

WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off"})


SEASONS = timedelta(days=400)
"""From so long a history on the month says something of the season."""


@dataclass(frozen=True)
class Sizes:
    """Lengths of a model and its monitoring, in windows, and how many rows they ask for."""

    window: int
    holdout: int
    recent: int
    watched: int
    min_rows: int

    @classmethod
    def of(cls, guess: Guess) -> "Sizes":
        """Half of the history to train on, so that the other half can be a backtest."""
        pace, rhythm = PACES[guess.rhythm.cadence], guess.rhythm
        window = max(6, min(pace.longest, rhythm.windows // 2))
        # Labels of the last window before a cutoff are not known yet, so one is not enough.
        holdout = max(2, window // 5, -(-60 // max(1, rhythm.rows)) + 1)
        holdout = min(holdout, window // 2)
        judged = rhythm.rows * (holdout - 1)
        return cls(
            window=window,
            holdout=holdout,
            recent=recent_windows(rhythm.cadence, rhythm.windows),
            watched=max(1, min(pace.watched, rhythm.windows // 4)),
            min_rows=max(2, min(50, judged // 2)),
        )


@dataclass(frozen=True)
class Draft:
    """One new use case: its name, its files, what was guessed."""

    name: str
    profile: Profile
    guess: Guess
    timezone: str

    @property
    def pace(self) -> Pace:
        return PACES[self.guess.rhythm.cadence]

    @property
    def sizes(self) -> Sizes:
        return Sizes.of(self.guess)

    @property
    def entity(self) -> tuple[str, ...]:
        """What names an example, beside its event time; and the group, where no column is it."""
        names = tuple(name for name in self.guess.key if name != self.guess.event_time)
        names = names or self.guess.key
        is_there = not self.group_is_column or self.guess.group in self.guess.columns
        return names if is_there else tuple(dict.fromkeys((*names, self.guess.group)))

    @property
    def view(self) -> str:
        return f"{slug(self.guess.group)}_history"[:40]

    @property
    def group_is_column(self) -> bool:
        return self.guess.group in self.profile.columns

    @property
    def group_sql(self) -> str:
        """The group as a select item."""
        if self.group_is_column:
            return identifier(self.guess.group)
        return self._calendar_item(self.guess.group.removesuffix("_of_event"))

    @property
    def calendar_items(self) -> list[str]:
        """Parts of the calendar that the model is given, of those that differ between rows."""
        time = f"{quote(self.guess.event_time)}::TIMESTAMPTZ::TIMESTAMP"
        long_enough = self.guess.last - self.guess.first >= SEASONS
        wanted = {
            "hour": self.profile.has_hours(self.guess.event_time),
            "weekday": self.profile.distinct(f"isodow({time})") > 1,
            "month": long_enough,
        }
        grouped = self.guess.group.removesuffix("_of_event")
        return [
            self._calendar_item(part)
            for part, differs in wanted.items()
            if differs or (part == grouped and not self.group_is_column)
        ]

    def _calendar_item(self, part: str) -> str:
        function = {"hour": "hour", "weekday": "isodow", "month": "month"}[part]
        return f"{function}({identifier(self.guess.event_time)}) AS {part}_of_event"

    @property
    def label(self) -> str:
        """The label's name, fit for a comment."""
        return one_line(self.guess.label)

    @property
    def group(self) -> str:
        """The group's name, fit for a comment."""
        return one_line(self.guess.group)

    @property
    def files(self) -> str:
        """Glob of the files below the landing folder."""
        return f"records/*{ending_of(self.profile.files[0])}"

    @property
    def start(self) -> date:
        """The day on which the first window begins."""
        calendar = Calendar.of(self.guess.rhythm.cadence, date(1970, 1, 1), self.timezone)
        return calendar.window_at(self.guess.first.replace(tzinfo=calendar.timezone)).start

    def span(self, windows: int) -> str:
        """A duration of so many windows."""
        return f"{windows}{self.pace.unit}"

    @property
    def source_columns(self) -> tuple[str, ...]:
        wanted = {*self.entity, *self.guess.key, self.guess.event_time, *self.guess.columns}
        return tuple(name for name in self.profile.columns if name in wanted)

    @property
    def outcome_columns(self) -> tuple[str, ...]:
        group = {self.guess.group} if self.group_is_column else set()
        wanted = {*self.guess.key, self.guess.event_time, self.guess.label, *group}
        return tuple(name for name in self.profile.columns if name in wanted)

    @property
    def request(self) -> list[str]:
        """Select items of what the model is given of the row itself."""
        items = self.calendar_items
        taken = {*self.entity, *IN_EXAMPLES, self.guess.group}
        taken |= {item.rpartition(" ")[2] for item in items}
        for name in self.guess.columns:
            plain = slug(name)
            if name in {*self.entity, *IN_EXAMPLES}:
                plain = f"{plain}_input"
            while plain in taken and plain != name:
                plain = f"{plain}_"
            taken.add(plain)
            items.append(name if identifier(name) == plain else f"{identifier(name)} AS {plain}")
        return items


def slug(name: str) -> str:
    """A name that needs no quotes."""
    text = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower()
    return text if text and not text[0].isdigit() and text not in _keywords() else f"c_{text}"


@lru_cache
def _keywords() -> frozenset[str]:
    """Words that DuckDB takes for a part of the language where a column is meant."""
    found = duckdb.sql(
        "SELECT keyword_name FROM duckdb_keywords() "
        "WHERE keyword_category IN ('reserved', 'type_function')"
    ).fetchall()
    return frozenset(name for (name,) in found)


def identifier(name: str) -> str:
    """A column in SQL, quoted where it has to be."""
    return name if slug(name) == name else quote(name)


def scalar(text: str) -> str:
    """A text in YAML, quoted where it has to be."""
    if re.fullmatch(r"[A-Za-z_][\w ()/+.]*\w", text, flags=re.ASCII) and text.lower() not in WORDS:
        return text
    return json.dumps(text, ensure_ascii=False)


def one_line(text: str) -> str:
    """A text without line breaks, which would end a comment."""
    return " ".join(text.split())
