"""Rows of a database table, or of a function: which windows have changed ones, and their rows.

Both always hold what is true now, so a window is read anew as a whole; the high-water mark
only says where to look. `_file` of a row is `<table>@<high-water value>`, and `_row` counts the
rows of that value in the order of their keys.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import duckdb

from ml_platform.errors import LandingError
from ml_platform.sources.contract import LAST_MOMENT, Contract, instant
from ml_platform.sources.intake import create_rows
from ml_platform.sources.listing import contract_of, first_line
from ml_platform.sources.python_rows import Asked, PythonRows, require_columns
from ml_platform.sources.reading import Batch, json_object
from ml_platform.sources.sqlite_values import text_relation
from ml_platform.sources.tables import source_table
from ml_platform.spec.queries import TIMELIKE_TYPES, literal, quote
from ml_platform.spec.use_case import UseCase, digest
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake, attach_database
from ml_platform.storage.tables import naive_utc

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OVERLAP_SECONDS = 600
"""Transactions do not end in the order of the times they wrote: so far back is looked again."""
OVERLAP_NUMBERS = 1_000


@dataclass(frozen=True)
class WindowState:
    """What a table holds of one window."""

    mark: int
    """Highest high-water value, in microseconds since 1970 where it is a time; 0 without rows."""
    content: str
    """Digest of keys and high-water values, and of the contract."""

    @property
    def fingerprint(self) -> str:
        return f"{self.mark}-{self.content}"


class SourceTable:
    """One source's table in a database of the setting `databases`, or its function.

    Raises LakeError where the database cannot be opened, LandingError where the table cannot be
    read or lacks a column.
    """

    _rows: PythonRows | None = None
    _relation: str
    _text_of: Callable[[Iterable[str]], str] | None = None

    def __init__(
        self, lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase, source: str
    ) -> None:
        self._lake, self._cursor = lake, cursor
        self._use_case, self._name = use_case, source
        self._source = use_case.sources[source]
        if self._source.python:
            self._rows = PythonRows(lake.settings, use_case, source)
        else:
            self._attach()
        mark = str(self._source.high_water)
        declared = self._source.columns[mark]
        typed = f"TRY_CAST({quote(mark)} AS {declared})"
        ((kind,),) = self._execute(f"SELECT typeof(CAST(NULL AS {declared}))")
        self._is_time = kind in TIMELIKE_TYPES
        self._moment = f"TRY_CAST({typed} AS TIMESTAMPTZ)" if self._is_time else "NULL"
        self._mark = f"epoch_us({self._moment})" if self._is_time else f"CAST({typed} AS BIGINT)"

    def _attach(self) -> None:
        database, *rest = self._source.table.split(".")
        kind = attach_database(self._cursor, self._lake.settings, database)
        self._relation = ".".join(quote(part) for part in (database, *rest))
        found = self._require_columns()
        if kind == "sqlite":
            self._text_of = partial(text_relation, database, rest, found)

    def changed(self, since: int | None) -> tuple[int | None, dict[datetime, WindowState]]:
        """The highest mark, and the windows that rows from a mark on are in, or were in before.

        since: the highest mark of an earlier look; without it all windows.
        """
        if since is None:
            return self._stage("true"), self._states(None)
        overlap = OVERLAP_SECONDS * 1_000_000 if self._is_time else OVERLAP_NUMBERS
        unreadable = f"{quote(str(self._source.high_water))} IS NOT NULL AND {self._mark} IS NULL"
        lowest = since - overlap
        highest = self._stage(
            f"{self._mark} >= {lowest} OR {unreadable}", asked=(None, None, self._shown(lowest))
        )
        starts = {start for (start,) in self._execute("SELECT window_start FROM temp.__raw")}
        starts |= self._left_behind()
        if starts:
            first, last = min(starts), max(starts)
            self._stage(self._inside(first, last), asked=self._range(first, last))
        return max(highest or since, since), self._states(starts)

    def take_in(self, stretch: Window) -> dict[datetime, WindowState]:
        """Judge the rows of a stretch into `temp.__rows`; what its windows hold, by start."""
        starts = [naive_utc(window.start) for window in self._use_case.calendar.windows(stretch)]
        columns = list(self._source.columns)
        bounds = starts[0], starts[-1]
        self._stage(self._inside(*bounds), columns, self._range(*bounds))
        states = self._states(starts)
        key = ", ".join(
            f"TRY_CAST({quote(column)} AS {self._source.columns[column]}), {quote(column)}"
            for column in self._source.key
        )
        self._execute(
            f"""CREATE OR REPLACE TEMP TABLE __numbered AS
            SELECT dense_rank() OVER (ORDER BY __mark NULLS FIRST)::INTEGER - 1 AS __file,
                row_number() OVER (PARTITION BY __mark ORDER BY {key}) AS __row, *
            FROM temp.__raw"""
        )
        shown = (
            "strftime(make_timestamp(__mark), '%Y-%m-%dT%H:%M:%S.%fZ')"
            if self._is_time
            else "CAST(__mark AS VARCHAR)"
        )
        # A number says in which order rows changed, and not when.
        arrived = "coalesce(make_timestamptz(__mark), now())" if self._is_time else "now()"
        self._execute(
            f"""CREATE OR REPLACE TEMP TABLE __files AS
            SELECT DISTINCT __file AS number, NULL::VARCHAR AS path,
                {literal(f"{self._source.rows_of}@")} || coalesce({shown}, 'null') AS name,
                {arrived} AS modified_at
            FROM temp.__numbered"""
        )
        contract = Contract(self._cursor, self._source, self._use_case.calendar.start)
        create_rows(self._cursor, contract)
        renamed = ", ".join(f"{quote(column)} AS __c{n}" for n, column in enumerate(columns))
        batch = Batch(
            f"(SELECT __file, __row, {renamed} FROM temp.__numbered)",
            {column: f"__c{n}" for n, column in enumerate(columns)},
            json_object(columns),
        )
        self._execute(f"INSERT INTO temp.__judged {contract.judged(batch)}")
        self._execute(
            """INSERT INTO temp.__rows SELECT j.*, n.window_start
            FROM temp.__judged j JOIN temp.__numbered n USING (__file, __row)"""
        )
        return states

    def _read(self, columns: Iterable[str], asked: Asked) -> Iterable[str]:
        """SQL of the rows, in parts."""
        if self._rows is not None:
            return self._rows.relations(self._cursor, asked)
        return [self._text_of(columns) if self._text_of else self._relation]

    def _range(self, first: datetime, last: datetime) -> Asked:
        """What a function is asked for: rows before the first window count there."""
        calendar = self._use_case.calendar
        end = naive_utc(calendar.window_at(last.replace(tzinfo=UTC)).end)
        return None if first == naive_utc(calendar.start) else first, end, None

    def _shown(self, mark: int) -> datetime | int:
        """A mark as a function is given it."""
        return EPOCH + timedelta(microseconds=mark) if self._is_time else mark

    def _require_columns(self) -> dict[str, str]:
        rows = self._execute(f"DESCRIBE SELECT * FROM {self._relation}")
        found = {str(row[0]): str(row[1]) for row in rows}
        named = f"{self._use_case.name}/{self._name}: {self._source.table}"
        require_columns(named, self._source.columns, list(found))
        return found

    @property
    def _placed(self) -> str:
        """The moment that decides the window of a row, in UTC without a zone.

        What is before the first window counts there; where no event time can be read, the
        high-water value decides.
        """
        event = self._source.event_time
        moment = (
            f"TRY_CAST(TRY_CAST({quote(event)} AS {self._source.columns[event]}) AS TIMESTAMPTZ)"
        )
        readable = f"CASE WHEN {moment} < {LAST_MOMENT} THEN {moment} END"
        begins = instant(self._use_case.calendar.start)
        return f"timezone('UTC', greatest(coalesce({readable}, {self._moment}), {begins}))"

    def _inside(self, first: datetime, last: datetime) -> str:
        end = naive_utc(self._use_case.calendar.window_at(last.replace(tzinfo=UTC)).end)
        return f"{self._placed} >= TIMESTAMP '{first}' AND {self._placed} < TIMESTAMP '{end}'"

    def _stage(
        self, where: str, columns: Iterable[str] = (), asked: Asked = (None, None, None)
    ) -> int | None:
        """Rows with their window and mark in `temp.__raw`; the highest mark among them."""
        named = dict.fromkeys((*columns, *self._source.key))
        needed = dict.fromkeys((*named, str(self._source.high_water), self._source.event_time))
        items = ", ".join(
            (*map(quote, named), f"{self._mark} AS __mark", f"{self._placed} AS __at")
        )
        into = "CREATE OR REPLACE TEMP TABLE __read AS"
        for relation in self._read(needed, asked):
            self._execute(f"{into} SELECT {items} FROM {relation} WHERE {where}")
            into = "INSERT INTO temp.__read"
        ((first, last, mark),) = self._execute(
            "SELECT min(__at), max(__at), max(__mark) FROM temp.__read"
        )
        starts: list[datetime] = []
        if first is not None:
            calendar = self._use_case.calendar
            begin, end = (calendar.window_at(at.replace(tzinfo=UTC)) for at in (first, last))
            starts = [naive_utc(w.start) for w in calendar.windows(Window(begin.start, end.end))]
        self._execute(
            "CREATE OR REPLACE TEMP TABLE __starts AS SELECT unnest(?::TIMESTAMP[]) AS start",
            [starts],
        )
        self._execute(
            """CREATE OR REPLACE TEMP TABLE __raw AS
            SELECT r.* EXCLUDE (__at), s.start AS window_start
            FROM temp.__read r ASOF JOIN temp.__starts s ON r.__at >= s.start"""
        )
        return None if mark is None else int(mark)

    def _states(self, starts: Iterable[datetime] | None) -> dict[datetime, WindowState]:
        key = ", ".join(f"CAST({quote(column)} AS VARCHAR)" for column in self._source.key)
        rows = self._execute(
            f"""SELECT window_start, coalesce(max(__mark), 0), count(*),
                sum(hash(hash({key}, __mark))::HUGEINT)
            FROM temp.__raw GROUP BY 1"""
        )
        contract = contract_of(self._use_case, self._name)
        found = {
            start: WindowState(mark, f"{digest(count, str(total))}-{contract}")
            for start, mark, count, total in rows
        }
        nothing = WindowState(0, f"{digest(0)}-{contract}")
        return found if starts is None else {start: found.get(start, nothing) for start in starts}

    def _left_behind(self) -> set[datetime]:
        """Windows that stored rows are in whose keys are among those of `temp.__raw`."""
        table = source_table(self._use_case, self._name)
        if table.name not in self._lake.tables(self._cursor, table.schema):
            return set()
        same = " AND ".join(
            f"s.{quote(c)} = TRY_CAST(r.{quote(c)} AS {self._source.columns[c]})"
            for c in self._source.key
        )
        rows = self._execute(
            f"SELECT DISTINCT s.window_start FROM {table.sql} s JOIN temp.__raw r ON {same}"
        )
        return {start for (start,) in rows}

    def _execute(self, query: str, parameters: object = None) -> list[tuple[Any, ...]]:
        try:
            return self._cursor.execute(query, parameters).fetchall()
        except duckdb.Error as error:
            raise LandingError(
                f"{self._use_case.name}/{self._name}: {self._source.rows_of} cannot be read: "
                f"{first_line(error)}"
            ) from error


def windows_behind(
    states: Mapping[datetime, WindowState],
    ingested: Mapping[datetime, tuple[str, int]],
    looked_everywhere: bool,
) -> dict[datetime, list[str]]:
    """States that windows have yet to ingest, and the snapshots they come after, by start.

    Where all windows were looked at, only higher marks count: rows that a table has dropped to
    stay small are no news.
    """
    behind: dict[datetime, list[str]] = {}
    for start, state in states.items():
        held, at = ingested.get(start, ("0-", 0))
        mark, _, content = held.partition("-")
        same_contract = content.split("-")[-1] == state.content.split("-")[-1]
        if looked_everywhere and same_contract and state.mark <= int(mark):
            continue
        if held != state.fingerprint and (content or state.mark):
            behind[start] = [f"{state.fingerprint} {at}"]
    return behind
