"""Rows of a database table, or of a function: which windows have changed ones, and their rows.

Both always hold what is true now, so a window is read anew as a whole; the high-water mark
only says where to look. `_file` of a row is `<table>@<high-water value>`, and `_row` counts the
rows of that value in the order of their keys.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import duckdb

from ml_platform.errors import LandingError
from ml_platform.sources.adbc_tables import PREFIX, AdbcTable
from ml_platform.sources.asked import Asked
from ml_platform.sources.column_types import (
    AS_TEXT,
    IN_DATABASES,
    UNTYPED,
    require_columns,
    stored_kind,
)
from ml_platform.sources.contract import LAST_MOMENT, Contract, instant, type_names
from ml_platform.sources.database_tables import DatabaseTable, RowOrigin
from ml_platform.sources.intake import create_rows
from ml_platform.sources.listing import contract_of, first_line
from ml_platform.sources.python_rows import PythonRows
from ml_platform.sources.reading import Batch, json_object
from ml_platform.sources.tables import source_table
from ml_platform.spec.checks import IN_SOURCES
from ml_platform.spec.queries import TIMELIKE_TYPES, literal, quote
from ml_platform.spec.use_case import UseCase, digest
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.tables import naive_utc

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OVERLAP_SECONDS = 600
"""Transactions do not end in the order of the times they wrote: so far back is looked again."""
OVERLAP_NUMBERS = 1_000
NOT_TAKEN = IN_SOURCES | {"known_at"}
"""Columns of such names mean something in every source."""
MOST_RANGES = 8
"""So many times a table is asked for windows that are apart; those closest are read as one."""
IN_WINDOWS = """SELECT r.* EXCLUDE (__at), s.start AS window_start FROM {} r
    ASOF JOIN temp.__starts s ON r.__at >= s.starts_us WHERE r.__at < s.ends_us"""
"""SQL of rows with their windows, those of them that are in `temp.__starts`."""
NO_MARK = -(2**62)
"""The high-water value of rows without one, which come first."""


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
    read or is not as it is declared.
    """

    def __init__(
        self, lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase, source: str
    ) -> None:
        self._lake, self._cursor = lake, cursor
        self._use_case, self._name = use_case, source
        self._source = use_case.sources[source]
        self._types = type_names(cursor, self._source.columns)
        self._origin = self._opened()
        self._taken: dict[str, str] | None = None
        self.ignored: tuple[str, ...] = ()
        """Columns that are neither declared nor taken, once rows were read."""
        mark = str(self._source.high_water)
        declared = self._source.columns[mark]
        typed = f"TRY_CAST({quote(mark)} AS {declared})"
        self._is_time = self._types[mark] in TIMELIKE_TYPES
        self._moment = f"TRY_CAST({typed} AS TIMESTAMPTZ)" if self._is_time else "NULL"
        self._mark = f"epoch_us({self._moment})" if self._is_time else f"CAST({typed} AS BIGINT)"

    def _opened(self) -> RowOrigin:
        settings, source = self._lake.settings, self._source
        if source.python:
            self._judged = AS_TEXT
            return PythonRows(settings, self._use_case, self._name)
        timezone = self._use_case.timezone
        secret = settings.databases.get(source.table.partition(".")[0])
        if secret and secret.get_secret_value().startswith(PREFIX):
            self._judged = IN_DATABASES
            return AdbcTable(settings, source, self._types, timezone)
        table = DatabaseTable(self._cursor, settings, source, self._types, timezone)
        self._judged = UNTYPED if table.is_sqlite else IN_DATABASES
        return table

    def changed(self, since: int | None) -> tuple[int | None, dict[datetime, WindowState]]:
        """The highest mark, and the windows that rows from a mark on are in, or were in before.

        since: the highest mark of an earlier look; without it all windows.
        """
        if since is None:
            return self._look(Asked(), "true"), self._states(None)
        overlap = OVERLAP_SECONDS * 1_000_000 if self._is_time else OVERLAP_NUMBERS
        unreadable = f"{quote(str(self._source.high_water))} IS NOT NULL AND {self._mark} IS NULL"
        lowest = since - overlap
        highest = self._look(
            Asked(since=self._shown(lowest)), f"{self._mark} >= {lowest} OR {unreadable}"
        )
        starts = {start for (start,) in self._execute("SELECT window_start FROM temp.__raw")}
        starts |= self._left_behind()
        calendar = self._use_case.calendar
        windows = [calendar.window_at(start.replace(tzinfo=UTC)) for start in sorted(starts)]
        self._stage(windows)
        return max(highest or since, since), self._states(starts)

    def take_in(self, stretch: Window) -> dict[datetime, WindowState]:
        """Judge the rows of a stretch into `temp.__rows`; what its windows hold, by start."""
        windows = list(self._use_case.calendar.windows(stretch))
        self._stage(windows, takes_all=True)
        source = self.use_case.sources[self._name]
        columns = list(source.columns)
        states = self._states(naive_utc(window.start) for window in windows)
        key = ", ".join(
            f"TRY_CAST({quote(column)} AS {self._source.columns[column]}), {quote(column)}"
            for column in self._source.key
        )
        renamed = ", ".join(f"{quote(column)} AS __c{n}" for n, column in enumerate(columns))
        batch = Batch(
            f"""(SELECT coalesce(__mark, {NO_MARK}) AS __file,
                row_number() OVER (PARTITION BY __mark ORDER BY {key}) AS __row,
                window_start, {renamed} FROM temp.__raw)""",
            {column: f"__c{n}" for n, column in enumerate(columns)},
            json_object(columns),
        )
        contract = Contract(self._cursor, source, self._use_case.calendar.start)
        create_rows(self._cursor, contract)
        self._execute(f"INSERT INTO temp.__rows {contract.judged(batch, 'window_start')}")
        self._execute("DROP TABLE temp.__raw")
        # A number says in which order rows changed, and not when.
        arrived = "now()"
        if self._is_time:
            arrived = f"coalesce(make_timestamptz(nullif(__file, {NO_MARK})), now())"
        self._execute(
            f"""CREATE OR REPLACE TEMP VIEW __files AS
            SELECT __file AS number, NULL::VARCHAR AS path, {self.file_sql("__file")} AS name,
                {arrived} AS modified_at
            FROM (SELECT DISTINCT __file FROM temp.__rows)"""
        )
        return states

    def file_sql(self, number: str) -> str:
        """SQL of the name of what a row came from, by its number in `temp.__rows`."""
        mark = f"nullif({number}, {NO_MARK})"
        shown = f"CAST({mark} AS VARCHAR)"
        if self._is_time:
            shown = f"strftime(make_timestamp({mark}), '%Y-%m-%dT%H:%M:%S.%fZ')"
        return f"{literal(f'{self._source.rows_of}@')} || coalesce({shown}, 'null')"

    def _shown(self, mark: int) -> datetime | int:
        """A mark as it is asked for."""
        return EPOCH + timedelta(microseconds=mark) if self._is_time else mark

    @property
    def use_case(self) -> UseCase:
        """The use case with the columns that were taken among those of the source."""
        columns = {**self._source.columns, **(self._taken or {})}
        source = self._source.model_copy(update={"columns": columns})
        sources = {**self._use_case.sources, self._name: source}
        return self._use_case.model_copy(update={"sources": sources})

    @property
    def _stored(self) -> tuple[str, ...]:
        """Columns that are stored: those that are declared, and those that were taken."""
        return (*self._source.columns, *(self._taken or {}))

    def _choose(self, takes_all: bool, found: Mapping[str, str]) -> dict[str, str]:
        """Columns to read, by name as they are found; LandingError where they do not fit."""
        named = f"{self._use_case.name}/{self._name}: {self._source.rows_of}"
        if self._taken is None:
            stored = self._stored_besides()
            require_columns(named, self._types, found, self._judged, stored)
            self._taken = self._take(found, stored)
        require_columns(named, {**self._types, **self._taken}, found, self._judged)
        there = {name.lower(): name for name in found}
        needed = (*self._source.key, str(self._source.high_water), self._source.event_time)
        wanted = self._stored if takes_all else dict.fromkeys(needed)
        return {column: there[column.lower()] for column in wanted}

    def _take(self, found: Mapping[str, str], stored: Mapping[str, str]) -> dict[str, str]:
        """Columns that are not declared and are stored nevertheless; the others are noted."""
        declared = {column.lower() for column in self._source.columns}
        added = {name: kind for name, kind in found.items() if name.lower() not in declared}
        taken = {}
        if self._source.added_columns == "take":
            for name, kind in added.items():
                # Storage has columns of its own, and two names may differ in their case alone.
                alike = [each for each in found if each.lower() == name.lower()]
                if name.lower() not in NOT_TAKEN and len(alike) == 1 and name[:2] != "__":
                    taken[name] = stored.get(name.lower()) or stored_kind(kind)
        self.ignored = tuple(name for name in added if name not in taken)
        return taken

    def _stored_besides(self) -> dict[str, str]:
        """Types of columns that the lake has of the source, by name in lower case, undeclared."""
        table = source_table(self._use_case, self._name)
        if self._source.added_columns == "ignore":
            return {}
        rows = self._execute(
            f"""SELECT lower(column_name), data_type FROM duckdb_columns()
            WHERE database_name = 'lake' AND schema_name = {literal(table.schema)}
            AND table_name = {literal(table.name)}"""
        )
        known = {column.lower() for column in (*table.columns, *NOT_TAKEN)}
        return {name: kind for name, kind in rows if name not in known}

    @property
    def _placed(self) -> str:
        """The moment that decides the window of a row, in microseconds since 1970.

        What is before the first window counts there; where no event time can be read, the
        high-water value decides.
        """
        event = self._source.event_time
        moment = (
            f"TRY_CAST(TRY_CAST({quote(event)} AS {self._source.columns[event]}) AS TIMESTAMPTZ)"
        )
        readable = f"CASE WHEN {moment} < {LAST_MOMENT} THEN {moment} END"
        begins = instant(self._use_case.calendar.start)
        return f"epoch_us(greatest(coalesce({readable}, {self._moment}), {begins}))"

    def _look(self, asked: Asked, where: str) -> int | None:
        """Keys, marks and windows of rows in `temp.__raw`; the highest mark among them."""
        self._collect("__read", asked, f"SELECT {{items}} FROM {{rows}} WHERE {where}")
        ((first, last, mark),) = self._execute(
            """SELECT make_timestamp(min(__at)), make_timestamp(max(__at)), max(__mark)
            FROM temp.__read"""
        )
        windows: list[Window] = []
        if first is not None:
            calendar = self._use_case.calendar
            begin, end = (calendar.window_at(at.replace(tzinfo=UTC)) for at in (first, last))
            windows = list(calendar.windows(Window(begin.start, end.end)))
        self._name_windows(windows)
        self._execute(f"CREATE OR REPLACE TEMP TABLE __raw AS {IN_WINDOWS.format('temp.__read')}")
        self._execute("DROP TABLE temp.__read")
        return None if mark is None else int(mark)

    def _stage(self, windows: Sequence[Window], takes_all: bool = False) -> None:
        """Rows of some windows, ascending, with their marks in `temp.__raw`.

        takes_all: with all columns that are stored, and not their keys alone.
        """
        self._name_windows(windows)
        placed = IN_WINDOWS.format("(SELECT {items} FROM {rows})")
        self._execute("DROP TABLE IF EXISTS temp.__raw")
        for part in parts_of(windows):
            within = f"r.__at >= {_microseconds(part.start)} AND r.__at < {_microseconds(part.end)}"
            # Rows before the first window count there.
            begins = part.start == self._use_case.calendar.start
            asked = Asked(None if begins else naive_utc(part.start), naive_utc(part.end))
            self._collect("__raw", asked, f"{placed} AND {within}", takes_all)

    def _collect(self, table: str, asked: Asked, query: str, takes_all: bool = False) -> None:
        """Add what a query yields of the rows that are asked for to a temporary table.

        query: selects `{items}`, which are the columns, `__mark` and `__at`, from `{rows}`.
        """
        choose = partial(self._choose, takes_all)
        with self._named():
            for rows in self._origin.relations(self._cursor, choose, asked):
                columns = self._stored if takes_all else self._source.key
                marked = f"{self._mark} AS __mark", f"{self._placed} AS __at"
                items = ", ".join((*map(quote, columns), *marked))
                self._add(table, query.format(items=items, rows=rows))

    def _add(self, table: str, query: str) -> None:
        """Add rows to a temporary table; a column of which parts have two types is one of texts."""
        if not self._is_there(table):
            self._cursor.execute(f"CREATE TEMP TABLE {table} AS {query}")
            return
        types = self._types_of(f"({query})")
        there = self._types_of(f"temp.{table}")
        for name, kind in there.items():
            if types[name] != kind != "VARCHAR":
                self._cursor.execute(f"ALTER TABLE temp.{table} ALTER {quote(name)} TYPE VARCHAR")
        self._cursor.execute(f"INSERT INTO temp.{table} {query}")

    def _types_of(self, relation: str) -> dict[str, str]:
        rows = self._cursor.execute(f"DESCRIBE FROM {relation}").fetchall()
        return {str(row[0]): str(row[1]) for row in rows}

    def _is_there(self, table: str) -> bool:
        found = self._cursor.execute(
            f"FROM duckdb_tables() WHERE database_name = 'temp' AND table_name = {literal(table)}"
        )
        return found.fetchone() is not None

    def _name_windows(self, windows: Sequence[Window]) -> None:
        listed = ",".join(f"{naive_utc(w.start)}/{naive_utc(w.end)}" for w in windows)
        self._execute(
            f"""CREATE OR REPLACE TEMP TABLE __starts AS
            SELECT start, epoch_us(start) AS starts_us,
                epoch_us(CAST(split_part(part, '/', 2) AS TIMESTAMP)) AS ends_us
            FROM (SELECT part, CAST(split_part(part, '/', 1) AS TIMESTAMP) AS start
                FROM (SELECT unnest(string_split('{listed}', ',')) AS part) WHERE part <> '')"""
        )

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

    def _execute(self, query: str) -> list[tuple[Any, ...]]:
        with self._named():
            return self._cursor.execute(query).fetchall()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            raise LandingError(
                f"{self._use_case.name}/{self._name}: {self._source.rows_of} cannot be read: "
                f"{first_line(error)}"
            ) from error


def parts_of(windows: Sequence[Window]) -> list[Window]:
    """A few ranges with all of some windows, ascending, and with as little else as can be."""
    parts: list[Window] = []
    for window in windows:
        if parts and parts[-1].end == window.start:
            parts.append(Window(parts.pop().start, window.end))
        else:
            parts.append(window)
    while len(parts) > MOST_RANGES:
        gaps = [after.start - before.end for before, after in pairwise(parts)]
        at = gaps.index(min(gaps))
        parts[at : at + 2] = [Window(parts[at].start, parts[at + 1].end)]
    return parts


def _microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


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
