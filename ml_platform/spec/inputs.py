"""What a use case declares of its data: partitions, sources, feature views, examples, labels."""

from datetime import date, datetime
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from ml_platform.spec.declared import FILLED_IN, Declared, Entity, Names, Task, Text
from ml_platform.spec.duration import Duration
from ml_platform.spec.queries import quote, time_format
from ml_platform.spec.values import csv_separator, end_of_time, start_of_time, time_zone
from ml_platform.spec.windows import Cadence, Calendar, Weekday, utc

TimeFormat = Annotated[str, AfterValidator(time_format)]


class Partitions(Declared):
    """The windows of event time that every table of the use case is cut into."""

    cadence: Cadence
    start: Annotated[date | datetime, BeforeValidator(start_of_time)]
    """First moment of event time; rows before it are quarantined."""
    end: Annotated[date | datetime | None, BeforeValidator(end_of_time)] = None
    """Moment before which the last window ends, for histories that are over; by default open."""
    timezone: Annotated[str, AfterValidator(time_zone)] = "UTC"
    week_starts: Weekday = Weekday.sunday
    """On which day weekly windows begin."""

    @cached_property
    def calendar(self) -> Calendar:
        return Calendar.of(self.cadence, self.start, self.timezone, self.week_starts)

    @property
    def closes_at(self) -> datetime | None:
        """Start of the first window that is not part of the history any more."""
        if self.end is None:
            return None
        return Calendar.of(self.cadence, self.end, self.timezone, self.week_starts).start

    @property
    def reach(self) -> str:
        """The history in words, for messages."""
        end = self.closes_at
        until = f" to {end.isoformat()}" if end else " on"
        return f"from {self.calendar.start.isoformat()}{until}"

    def __contains__(self, moment: datetime) -> bool:
        """Whether there is, or will be, a window with that moment of event time."""
        start, end = utc(self.calendar.start), self.closes_at
        return start <= utc(moment) and (end is None or utc(moment) < utc(end))


class Csv(Declared):
    """How the values of CSV files are written."""

    separator: Annotated[str, AfterValidator(csv_separator)] = ","
    """The one character between values."""
    decimal: Literal[".", ","] = "."
    """What stands before the fraction of a number."""
    thousands: Literal["", ",", ".", "'", " ", "\u00a0"] = ""
    """What stands between groups of three digits of a number; by default nothing may."""
    times: tuple[TimeFormat, ...] = ("iso",)
    """Formats of dates and times, tried in this order: `%d.%m.%Y`, or `iso`: 2024-01-31 15:00."""

    @model_validator(mode="after")
    def _distinguishes_fractions_from_thousands(self) -> Self:
        if self.thousands == self.decimal:
            raise ValueError(f"thousands and decimal are both '{self.decimal}'")
        return self

    @field_validator("times", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        if value == []:
            raise ValueError("should not be empty; leave it out, or write iso")
        return (value,) if isinstance(value, str) else value


class Source(Declared):
    """A table of raw records that land over time; the contract that each row has to keep.

    They land as `files`, as rows of a `table`, as what a `python` function yields, or as files of a
    `delta` or `iceberg` table; one of these is given.
    """

    files: Text = ""
    """Glob below the landing folder of the use case, an absolute one, or a URL."""
    table: Text = ""
    """Table of a database, `<database>.<schema>.<table>`; a setting says where the database is."""
    python: Annotated[str, Field(pattern=r"^(\w+:\w+)?$")] = ""
    """Function of a file of the use case that yields rows, `<file>:<function>`."""
    database: str = ""
    """Database of the setting that this function is given."""
    delta: Text = ""
    """Delta table: `<database>.<table>`, where a setting says where the lake is, or a folder."""
    iceberg: Text = ""
    """Iceberg table: `<database>.<namespace>.<table>` of a catalog, or its folder."""
    when_gone: Literal["keep", "remove"] | None = None
    """What becomes of rows whose file is gone; by default those of landing files stay, as files are
    archived, and those of tables are removed."""
    added_columns: Literal["ignore", "take"] = "ignore"
    """What becomes of columns of a database's table, or of a function's batches, that are not
    declared: they are left out and named, or stored under their names and types."""
    high_water: str | None = None
    """Column of that table which grows with every change: a time, or a whole number."""
    event_time: str
    """Column that says when it happened; without an offset, a time of the use case's zone."""
    known_at: Text | None = None
    """SQL over the row: from when on the row could be known. By default its event time."""
    key: Entity
    """Columns that name a row; a later row of the same key corrects the earlier one."""
    columns: Annotated[dict[Text, str], Field(min_length=1)]
    """Column names and DuckDB types. All of them must be in every file."""
    required: Names = ()
    """Columns besides key and event time that must not be null."""
    rules: tuple[str, ...] = ()
    """SQL predicates over the row. A row for which one is false is quarantined."""
    corrections: Literal["arrive", "rewrite"] = "arrive"
    """What a corrected row means: it is known once it has arrived, or the past was wrong."""
    corrected_at: str | None = None
    """Column that says when a row was corrected; by default that is when it landed."""
    null_values: tuple[str, ...] = ("", "NA")
    """Texts in CSV files that mean null."""
    csv: Csv | None = None
    """How values of CSV files are written, where it is not with commas, points and ISO times."""
    late: Literal["merge", "replace"] = "merge"
    """What a later file for a window does: correct single rows by key, or replace the window."""
    format: Literal["csv", "parquet", "jsonl"] | None = None
    description: str = ""

    @property
    def file_format(self) -> str:
        """How files are read; by the glob's ending where it is not given."""
        if self.rows_of:
            return "table" if self.table else "python"
        if self.lake_table:
            return "delta" if self.delta else "iceberg"
        if self.format:
            return self.format
        name = self.files.lower().removesuffix(".gz")
        if name.endswith((".parquet", ".pq")):
            return "parquet"
        return "jsonl" if name.endswith((".jsonl", ".ndjson", ".json")) else "csv"

    @property
    def lands_as(self) -> str:
        """The files, or the table, as a person wrote it."""
        return self.rows_of or self.lake_table or self.files

    @property
    def lake_table(self) -> str:
        """The Delta or Iceberg table whose files land; empty where it is none."""
        return self.delta or self.iceberg

    @property
    def removes_gone(self) -> bool:
        """Whether rows are removed whose file is gone, since it was one of a table."""
        return (self.when_gone or ("remove" if self.lake_table else "keep")) == "remove"

    @property
    def rows_of(self) -> str:
        """The table or the function whose rows are read again; empty where files land."""
        return self.table or self.python

    @property
    def rows_from(self) -> str:
        """The database whose rows are read again; empty where none is."""
        return self.database or self.table.partition(".")[0]

    @property
    def not_declared(self) -> set[str]:
        """Fields that say nothing of this source, and are no part of its digests."""
        unset = {name for name in ("delta", "iceberg", "when_gone") if not getattr(self, name)}
        if self.added_columns == "ignore":
            unset.add("added_columns")
        return unset if self.python else {*unset, "python", "database"}

    @property
    def known_at_sql(self) -> str:
        return self.known_at or quote(self.event_time)


class FeatureView(Declared):
    """A SQL query that yields features per entity and event time."""

    entity: Entity
    lookback: Duration
    """How far before a window's start the query looks at source rows."""
    ttl: Duration
    """How old a feature row may be when it is joined to an example."""
    sql: str | None = None
    """File of the query; by default features/<name>.sql."""
    description: str = ""
    query: str = Field(default="", exclude=True, validation_alias=FILLED_IN)
    """Text of the query. Filled in by the loader, as is what follows."""
    features: dict[str, str] = Field(default={}, exclude=True, validation_alias=FILLED_IN)
    """Feature names and DuckDB types that the query yields."""
    reads: tuple[str, ...] = Field(default=(), exclude=True, validation_alias=FILLED_IN)
    """Sources that the query reads."""


class Examples(Declared):
    """The rows to predict: those of one source, with the columns known at request time."""

    source: str
    entity: Entity
    columns: tuple[Text, ...] = ()
    """SQL select items over the source row: `carrier`, `hour(scheduled_at) AS hour`."""
    request: dict[str, str] = Field(default={}, exclude=True, validation_alias=FILLED_IN)
    """Names and types of those columns. Filled in by the loader."""


class Feedback(Declared):
    """Which label holds where callers, reviewers and `labels.sql` say several things of an example.

    The one that was known last holds; of several known at the same moment a correction, then what
    was received last. One that says the same again changes nothing.
    """

    reviews: Literal["win", "count"] = "win"
    """Whether a reviewer's answer holds against everything else, or counts like any other."""
    conflicts: Literal["last", "none"] = "last"
    """Where different labels are known at the same moment: what came last holds, or none does."""


class Label(Declared):
    """What is predicted."""

    sql: str = "labels.sql"
    task: Task
    horizon: Duration = Duration(0, "d")
    """How long after a window's end its last label is known; so far the query looks ahead."""
    feedback: Feedback | None = None
    """Labels come back to the service; so they do, by the defaults, where it keeps a log."""
    query: str = Field(default="", exclude=True, validation_alias=FILLED_IN)
    reads: tuple[str, ...] = Field(default=(), exclude=True, validation_alias=FILLED_IN)
