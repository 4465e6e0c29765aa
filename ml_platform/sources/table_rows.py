"""Rows of a database table, or of a function: which windows have changed ones, and their rows.

Both always hold what is true now, so a window is read again as a whole; the high-water mark
only says where to look. `_file` of a row is `<table>@<high-water value>`, and `_row` counts the
rows of that value in the order of their keys.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import duckdb

from ml_platform.errors import LandingError
from ml_platform.sources.adbc_tables import PREFIX, AdbcTable
from ml_platform.sources.column_types import AS_TEXT, IN_DATABASES, UNTYPED
from ml_platform.sources.contract import LAST_MOMENT, Contract, instant, type_names
from ml_platform.sources.database_tables import DatabaseTable, RowOrigin
from ml_platform.sources.intake import create_rows
from ml_platform.sources.listing import contract_of, first_line
from ml_platform.sources.python_rows import PythonRows
from ml_platform.sources.reading import Batch, json_object
from ml_platform.sources.row_staging import IN_WINDOWS, add_rows, name_windows, parts_of
from ml_platform.sources.selection import Selection
from ml_platform.sources.source_columns import SourceColumns
from ml_platform.sources.step_tables import FILES, RAW, ROWS
from ml_platform.sources.tables import source_table
from ml_platform.sources.window_states import WindowState
from ml_platform.spec.queries import TIMELIKE_TYPES, literal, quote
from ml_platform.spec.use_case import UseCase, digest
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.tables import naive_utc

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OVERLAP_SECONDS = 600
"""Transactions do not end in the order of the times they wrote: so far back is looked again."""
OVERLAP_NUMBERS = 1_000
NO_MARK = -(2**62)
"""The high-water value of rows without one, which come first."""


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
        self._origin, judged = self._opened()
        self.columns = SourceColumns(cursor, use_case, source, self._types, judged)
        mark = str(self._source.high_water)
        declared = self._source.columns[mark]
        typed = f"TRY_CAST({quote(mark)} AS {declared})"
        self._is_time = self._types[mark] in TIMELIKE_TYPES
        self._moment = f"TRY_CAST({typed} AS TIMESTAMPTZ)" if self._is_time else "NULL"
        self._mark = f"epoch_us({self._moment})" if self._is_time else f"CAST({typed} AS BIGINT)"

    def _opened(self) -> tuple[RowOrigin, Collection[tuple[str, str]]]:
        """Where rows come from, and of which kinds of columns values are judged one by one."""
        settings, source = self._lake.settings, self._source
        if source.python:
            return PythonRows(settings, self._use_case, self._name), AS_TEXT
        timezone = self._use_case.timezone
        secret = settings.databases.get(source.rows_from)
        if secret and secret.get_secret_value().startswith(PREFIX):
            return AdbcTable(settings, source, self._types, timezone), IN_DATABASES
        table = DatabaseTable(self._cursor, settings, source, self._types, timezone)
        return table, UNTYPED if table.is_sqlite else IN_DATABASES

    def changed(self, since: int | None) -> tuple[int | None, dict[datetime, WindowState]]:
        """The highest mark, and the windows that rows from a mark on are in, or were in before.

        since: the highest mark of an earlier look; without it all windows.
        """
        if since is None:
            return self._look(Selection(), "true"), self._states(None)
        overlap = OVERLAP_SECONDS * 1_000_000 if self._is_time else OVERLAP_NUMBERS
        unreadable = f"{quote(str(self._source.high_water))} IS NOT NULL AND {self._mark} IS NULL"
        lowest = since - overlap
        highest = self._look(
            Selection(since=self._shown(lowest)), f"{self._mark} >= {lowest} OR {unreadable}"
        )
        starts = {start for (start,) in self._execute(f"SELECT window_start FROM {RAW}")}
        starts |= self._left_behind()
        calendar = self._use_case.calendar
        windows = [calendar.window_stored(start) for start in sorted(starts)]
        self._stage(windows)
        return max(highest or since, since), self._states(starts)

    def take_in(self, window_range: Window) -> dict[datetime, WindowState]:
        """Judge the rows of a range into `ROWS`; what its windows hold, by start."""
        windows = list(self._use_case.calendar.windows(window_range))
        self._stage(windows, takes_all=True)
        source = self.columns.use_case.sources[self._name]
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
                window_start, {renamed} FROM {RAW})""",
            {column: f"__c{n}" for n, column in enumerate(columns)},
            json_object(columns),
        )
        contract = Contract(self._cursor, source, self._use_case.calendar.start)
        create_rows(self._cursor, contract)
        self._execute(f"INSERT INTO {ROWS} {contract.judged(batch, 'window_start')}")
        self._execute(f"DROP TABLE {RAW}")
        # A number says in which order rows changed, and not when.
        arrived = "now()"
        if self._is_time:
            arrived = f"coalesce(make_timestamptz(nullif(__file, {NO_MARK})), now())"
        # A view, unlike a table, cannot be created by a name with a catalog.
        self._execute(
            f"""CREATE OR REPLACE TEMP VIEW {FILES.removeprefix("temp.")} AS
            SELECT __file AS number, NULL::VARCHAR AS path, {self.file_sql("__file")} AS name,
                {arrived} AS modified_at
            FROM (SELECT DISTINCT __file FROM {ROWS})"""
        )
        return states

    def file_sql(self, number: str) -> str:
        """SQL of the name of what a row came from, by its number in `ROWS`."""
        mark = f"nullif({number}, {NO_MARK})"
        shown = f"CAST({mark} AS VARCHAR)"
        if self._is_time:
            shown = f"strftime(make_timestamp({mark}), '%Y-%m-%dT%H:%M:%S.%fZ')"
        return f"{literal(f'{self._source.rows_of}@')} || coalesce({shown}, 'null')"

    def _shown(self, mark: int) -> datetime | int:
        """A mark as it is asked for."""
        return EPOCH + timedelta(microseconds=mark) if self._is_time else mark

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

    def _look(self, selection: Selection, where: str) -> int | None:
        """Keys, marks and windows of rows in `RAW`; the highest mark among them."""
        self._collect("temp.__read", selection, f"SELECT {{items}} FROM {{rows}} WHERE {where}")
        ((first, last, mark),) = self._execute(
            """SELECT make_timestamp(min(__at)), make_timestamp(max(__at)), max(__mark)
            FROM temp.__read"""
        )
        windows: list[Window] = []
        if first is not None:
            calendar = self._use_case.calendar
            begin, end = (calendar.window_stored(at) for at in (first, last))
            windows = list(calendar.windows(Window(begin.start, end.end)))
        name_windows(self._cursor, windows)
        self._execute(f"CREATE OR REPLACE TEMP TABLE {RAW} AS {IN_WINDOWS.format('temp.__read')}")
        self._execute("DROP TABLE temp.__read")
        return None if mark is None else int(mark)

    def _stage(self, windows: Sequence[Window], takes_all: bool = False) -> None:
        """Rows of some windows, ascending, with their marks in `RAW`.

        takes_all: with all columns that are stored, and not their keys alone.
        """
        name_windows(self._cursor, windows)
        placed = IN_WINDOWS.format("(SELECT {items} FROM {rows})")
        self._execute(f"DROP TABLE IF EXISTS {RAW}")
        for part in parts_of(windows):
            within = f"r.__at >= {_microseconds(part.start)} AND r.__at < {_microseconds(part.end)}"
            # Rows before the first window count there.
            begins = part.start == self._use_case.calendar.start
            selection = Selection(None if begins else naive_utc(part.start), naive_utc(part.end))
            self._collect(RAW, selection, f"{placed} AND {within}", takes_all)

    def _collect(
        self, table: str, selection: Selection, query: str, takes_all: bool = False
    ) -> None:
        """Add what a query yields of the rows that are asked for to a temporary table.

        query: selects `{items}`, which are the columns, `__mark` and `__at`, from `{rows}`.
        """
        choose = partial(self.columns.choose, takes_all)
        with self._named():
            for rows in self._origin.relations(self._cursor, choose, selection):
                columns = self.columns.stored if takes_all else self._source.key
                marked = f"{self._mark} AS __mark", f"{self._placed} AS __at"
                items = ", ".join((*map(quote, columns), *marked))
                add_rows(self._cursor, table, query.format(items=items, rows=rows))

    def _states(self, starts: Iterable[datetime] | None) -> dict[datetime, WindowState]:
        key = ", ".join(f"CAST({quote(column)} AS VARCHAR)" for column in self._source.key)
        rows = self._execute(
            f"""SELECT window_start, coalesce(max(__mark), 0), count(*),
                sum(hash(hash({key}, __mark))::HUGEINT)
            FROM {RAW} GROUP BY 1"""
        )
        contract = contract_of(self._use_case, self._name)
        found = {
            start: WindowState(mark, f"{digest(count, str(total))}-{contract}")
            for start, mark, count, total in rows
        }
        nothing = WindowState(0, f"{digest(0)}-{contract}")
        return found if starts is None else {start: found.get(start, nothing) for start in starts}

    def _left_behind(self) -> set[datetime]:
        """Windows that stored rows are in whose keys are among those of `RAW`."""
        table = source_table(self._use_case, self._name)
        if table.name not in self._lake.tables(self._cursor, table.schema):
            return set()
        same = " AND ".join(
            f"s.{quote(c)} = TRY_CAST(r.{quote(c)} AS {self._source.columns[c]})"
            for c in self._source.key
        )
        rows = self._execute(
            f"SELECT DISTINCT s.window_start FROM {table.sql} s JOIN {RAW} r ON {same}"
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


def _microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)
