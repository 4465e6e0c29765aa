"""What files of a plain table hold: columns, types, and how many values each has."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import duckdb

from ml_platform.errors import Location, SpecError
from ml_platform.spec.declared import Task
from ml_platform.spec.queries import exact_path, is_numeric, literal, quote
from ml_platform.spec.scaffold.csv_table import CsvTable, load_csv_files
from ml_platform.spec.scaffold.files import file_format, files_of
from ml_platform.spec.scaffold.sample import ROWS_LOOKED_AT, sampled_sql, sampling_step
from ml_platform.spec.scaffold.sentinels import find_sentinels

READERS = {
    "parquet": "read_parquet({files}, union_by_name = true)",
    "jsonl": "read_json({files}, union_by_name = true, format = 'newline_delimited')",
}
MEMORY = "700MB"
MOST_CODES = 50
NEARLY_ALL = 0.9
ELSEWHERE = "not in every file"
PANDAS_INDEX = re.compile(r"__index_level_\d+__")
TIMES = frozenset({"DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"})
NUMBERS = frozenset({"FLOAT", "DOUBLE", "SMALLINT", "INTEGER", "BIGINT"})
WHOLE = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"})


@dataclass(frozen=True)
class Column:
    """One column of the files; nulls and distinct values are of the rows that were looked at."""

    name: str
    kind: str
    """DuckDB type."""
    nulls: int
    distinct: int
    example: str

    @property
    def is_time(self) -> bool:
        return self.kind in TIMES

    @property
    def is_number(self) -> bool:
        return is_numeric(self.kind) and not self.is_time and self.kind != "BOOLEAN"

    @property
    def is_whole(self) -> bool:
        return self.kind in WHOLE

    @property
    def is_plain(self) -> bool:
        """Whether a model can be given it: a number, a truth, a time or a text."""
        return is_numeric(self.kind) or self.kind == "VARCHAR"


class Profile:
    """A table read from files into memory, to be asked about; close it after use.

    Of large files the table `file` holds rows spread evenly over them, and `look_at_all` reads all
    rows of few columns.
    said: a file, or what names several of one kind. Raises SpecError where none is there, where
    they are empty or are no table.
    """

    def __init__(self, said: Path, timezone: str) -> None:
        self.said = said
        self.files = files_of(said)
        self.format = file_format(self.files[0])
        self.csv: CsvTable | None = None
        self.left_out: dict[str, str] = {}
        """Columns that are not among `columns`, and why."""
        self._database = duckdb.connect()
        self._database.execute(f"SET TimeZone = {literal(timezone)}; SET memory_limit = '{MEMORY}'")
        self.notes: dict[str, str] = {}
        """What is to be said of single columns."""
        try:
            self._load()
        except (duckdb.Error, ValueError, OSError, EOFError) as error:
            self.close()
            first = str(error).split("\n", maxsplit=1)[0]
            raise self.refusal("", f"cannot be read as {self.format}: {first}") from error
        (self.seen,) = self.row("SELECT count(*) FROM file")
        if not self.seen:
            self.close()
            raise self.refusal("", "has no rows; a guess needs some")
        self.columns = {c.name: c for c in map(self._column, self._types)}
        self.rows = self.seen
        self.look_at_all(())

    def close(self) -> None:
        self._database.close()

    def row(self, sql: str) -> tuple[int, ...]:
        """The one row of a query over the table `file`."""
        row = self._database.execute(sql).fetchone()
        assert row is not None
        return row

    def texts(self, sql: str) -> list[str]:
        """The first column of a query over the table `file`."""
        return [str(value) for (value, *_) in self._database.execute(sql).fetchall()]

    def keep(self, table: str, sql: str) -> None:
        """Keep the result of a query as a table."""
        self._database.execute(f"CREATE OR REPLACE TABLE {table} AS {sql}")

    def pairs(self, sql: str) -> list[tuple[str, int]]:
        """Texts and counts that a query yields."""
        return self._database.execute(sql).fetchall()

    def numbers(self, sql: str) -> tuple[float, ...]:
        """The one row of a query as numbers; 0 for what is null or not finite."""
        row = self._database.execute(sql).fetchone() or ()
        return tuple(float(x) if x is not None and isfinite(x) else 0.0 for x in row)

    def is_ordered(self, name: str) -> bool:
        """Whether a column holds numbers or times, and no names."""
        return self.columns[name].is_number or self.columns[name].is_time

    def look_at_all(self, names: Iterable[str]) -> None:
        """Make the table `whole` hold some columns of all rows, and no others."""
        items = ", ".join(f"{self._typed[name]} AS {quote(name)}" for name in names)
        if self._every == 1:
            self._database.execute("CREATE OR REPLACE VIEW whole AS FROM file")
        elif items:
            self._database.execute(
                f"CREATE OR REPLACE TABLE whole AS SELECT {items} FROM ({self._all})"
            )
            (self.rows,) = self.row("SELECT count(*) FROM whole")

    def distinct(self, expression: str) -> int:
        """How many different values an expression has in the rows that were looked at."""
        return self.row(f"SELECT count(DISTINCT {expression}) FROM file")[0]

    def is_unique(self, names: Sequence[str]) -> bool:
        """Whether no two rows have the same values in these columns, and none is missing."""
        return self.distinct_rows(names) == self.rows

    def distinct_rows(self, names: Sequence[str]) -> int:
        """How many different values these columns have together, in rows where none is missing.

        Of large files they are among those that `look_at_all` was given.
        """
        columns = ", ".join(quote(name) for name in names)
        present = " AND ".join(f"{quote(name)} IS NOT NULL" for name in names)
        return self.row(
            f"SELECT count(*) FROM (SELECT DISTINCT {columns} FROM whole WHERE {present})"
        )[0]

    def is_mostly(self, condition: str) -> bool:
        """Whether more than half of the rows fulfil a condition."""
        return 2 * self.row(f"SELECT count(*) FILTER ({condition}) FROM file")[0] > self.seen

    def has_hours(self, time: str) -> bool:
        """Whether a column of times says more than days, in the time zone of the profile."""
        moment = f"{quote(time)}::TIMESTAMPTZ::TIMESTAMP"
        within = f"{moment} <> date_trunc('day', {moment})"
        return self.row(f"SELECT count(*) FILTER ({within}) FROM file")[0] > 0

    def numbers_the_rows(self, column: Column) -> bool:
        """Whether a column counts the rows: without gaps, or ever more down the files."""
        if not column.is_whole or column.nulls:
            return False
        name = quote(column.name)
        rising, least, most = self.row(
            f"""SELECT count(*) FILTER (step >= 0), min(it), max(it) FROM (
            SELECT {name}::BIGINT AS it, {name}::BIGINT - lag({name}::BIGINT) OVER (ORDER BY rowid)
            AS step FROM file)"""
        )
        return column.distinct > NEARLY_ALL * self.seen and (
            most - least < self.seen * self._every or rising + 1 == self.seen
        )

    def determines(self, column: Column, label: str, task: Task) -> bool:
        """Whether the label can be read off another column alone."""
        this, that = quote(column.name), quote(label)
        if task == "regression":
            if not column.is_number:
                return False
            (same,) = self.row(
                f"SELECT coalesce(abs(corr({this}, {that})) > 0.999, false) FROM file"
            )
            return bool(same)
        if column.distinct > MOST_CODES:
            return False
        (unclear,) = self.row(
            f"""SELECT count(*) FROM (SELECT {this} FROM file WHERE {this} IS NOT NULL
            GROUP BY 1 HAVING count(DISTINCT {that}) > 1)"""
        )
        return unclear == 0

    def refusal(self, option: str, problem: str) -> SpecError:
        """An error about the file, and the option that would help."""
        return SpecError(Location(self.said), option, problem)

    def _load(self) -> None:
        self._every = self._step()
        if self.format == "csv":
            self.csv = load_csv_files(self._database, self.files, self._every)
            self._types = dict(self.csv.kinds)
            self._typed = {name: found.typed for name, found in self.csv.columns.items()}
            self._all = self.csv.reader
            self.notes = {n: found.note for n, found in self.csv.columns.items() if found.note}
            self.left_out = dict.fromkeys(self.csv.elsewhere, ELSEWHERE)
            return
        reader = READERS[self.format]
        described = [self._described(reader.format(files=_listed([f]))) for f in self.files]
        for name in dict.fromkeys(name for names in described for name in names):
            if PANDAS_INDEX.fullmatch(name):
                self.left_out[name] = "the index of pandas"
            elif not all(name in names for names in described):
                self.left_out[name] = ELSEWHERE
        kept = [quote(name) for name in described[0] if name not in self.left_out]
        if not kept:
            raise ValueError("no column is in every file")
        self._all = f"SELECT {', '.join(kept)} FROM {reader.format(files=_listed(self.files))}"
        self._database.execute(f"CREATE TABLE file AS {sampled_sql(self._all, self._every)}")
        # Seconds, milliseconds and nanoseconds are distinguished from microseconds by the type
        # alone.
        for name, kind in self._described("file").items():
            if kind.startswith("TIMESTAMP_"):
                self._database.execute(f"ALTER TABLE file ALTER {quote(name)} TYPE TIMESTAMP")
        self._types = self._described("file")
        self._read_texts_as_times()
        self._typed = {n: f"TRY_CAST({quote(n)} AS {kind})" for n, kind in self._types.items()}
        numbers = {n: quote(n) for n, kind in self._types.items() if kind in NUMBERS}
        for name, (value, times) in find_sentinels(self._database, "file", numbers).items():
            self.notes[name] = (
                f"{value:g} ({times} times), far from all other values, may mean null: write "
                f"nullif({name}, {value:g})"
            )

    def _step(self) -> int:
        if self.format != "parquet":
            return sampling_step(self.files)
        (rows,) = self.row(
            f"SELECT count(*) FROM {READERS['parquet'].format(files=_listed(self.files))}"
        )
        return max(1, rows // ROWS_LOOKED_AT) if rows > 2 * ROWS_LOOKED_AT else 1

    def _described(self, relation: str) -> dict[str, str]:
        described = self._database.execute(f"DESCRIBE FROM {relation}").fetchall()
        return {name: kind for name, kind, *_ in described}

    def _read_texts_as_times(self) -> None:
        for name in [name for name, kind in self._types.items() if kind == "VARCHAR"]:
            column = quote(name)
            (texts, times) = self.row(
                f"""SELECT count({column}), count(TRY_CAST({column} AS TIMESTAMPTZ)) FILTER
                (regexp_matches({column}::VARCHAR, '^\\d{{4}}-\\d\\d-\\d\\d')) FROM file"""
            )
            if texts and texts == times:
                self._types[name] = "TIMESTAMP WITH TIME ZONE"
                self._database.execute(f"ALTER TABLE file ALTER {column} TYPE TIMESTAMPTZ")

    def _column(self, name: str) -> Column:
        column = quote(name)
        table = "texts" if self.format == "csv" else "file"
        examples = self.texts(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL LIMIT 1")
        nulls, distinct = self.row(
            f"SELECT count(*) - count({column}), count(DISTINCT {column}) FROM file"
        )
        return Column(name, self._types[name], nulls, distinct, "".join(examples)[:40])


def _listed(files: Sequence[Path]) -> str:
    return f"[{', '.join(literal(exact_path(str(file))) for file in files)}]"
