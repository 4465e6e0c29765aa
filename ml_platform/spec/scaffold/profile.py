"""What one file of a plain table holds: columns, types, and how many values each has."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from ml_platform.errors import Location, SpecError
from ml_platform.spec.declared import Task
from ml_platform.spec.queries import is_numeric, literal, quote

NULLS = "['', 'NA']"
READERS = {
    "csv": "read_csv({file}, header = true, delim = ',', quote = '\"', nullstr = " + NULLS,
    "parquet": "read_parquet({file}",
    "jsonl": "read_json({file}, format = 'newline_delimited'",
}
ENDINGS = {
    ".csv": "csv", ".parquet": "parquet", ".pq": "parquet",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
}  # fmt: skip
MOST_CODES = 50
TIMES = frozenset({"DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"})
WHOLE = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"})


@dataclass(frozen=True)
class Column:
    """One column of the file; nulls and distinct values are counted over all rows."""

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
    """A table read from one file into memory, to be asked about; close it after use.

    Raises SpecError where the file is not there, is empty or is no table.
    """

    def __init__(self, file: Path, timezone: str) -> None:
        self.file = file
        self.format = file_format(file)
        self._database = duckdb.connect()
        self._database.execute(f"SET TimeZone = {literal(timezone)}")
        try:
            self._load()
        except duckdb.Error as error:
            self.close()
            first = str(error).split("\n", maxsplit=1)[0]
            raise self.refusal("", f"cannot be read as {self.format}: {first}") from error
        (self.rows,) = self.row("SELECT count(*) FROM file")
        if not self.rows:
            self.close()
            raise self.refusal("", "has no rows; a guess needs some")
        self.columns = {c.name: c for c in map(self._column, self._types)}

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

    def distinct(self, expression: str) -> int:
        """How many different values an expression has."""
        return self.row(f"SELECT count(DISTINCT {expression}) FROM file")[0]

    def is_unique(self, names: Sequence[str]) -> bool:
        """Whether no two rows have the same values in these columns, and none is missing."""
        columns = ", ".join(quote(name) for name in names)
        (groups,) = self.row(f"SELECT count(*) FROM (SELECT DISTINCT {columns} FROM file)")
        return groups == self.rows and not any(self.columns[name].nulls for name in names)

    def is_mostly(self, condition: str) -> bool:
        """Whether more than half of the rows fulfil a condition."""
        return 2 * self.row(f"SELECT count(*) FILTER ({condition}) FROM file")[0] > self.rows

    def span(self, time: str) -> tuple[datetime, datetime]:
        """First and last moment of a column of times, in the time zone of the profile."""
        column = quote(time)
        texts = self.texts(
            f"SELECT unnest([min({column}), max({column})])::TIMESTAMPTZ::TIMESTAMP FROM file"
        )
        return datetime.fromisoformat(texts[0]), datetime.fromisoformat(texts[1])

    def tells(self, column: Column, label: str, task: Task) -> bool:
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
        return SpecError(Location(self.file), option, problem)

    def _load(self) -> None:
        reader = READERS[self.format].format(file=literal(str(self.file)))
        self._database.execute(f"CREATE TABLE file AS FROM {reader})")
        described = self._database.execute("DESCRIBE file").fetchall()
        self._types = {name: kind for name, kind, *_ in described}
        if self.format == "csv":
            self._check_separator()
            self._load_texts(reader)
        self._read_texts_as_times()

    def _check_separator(self) -> None:
        (name, *more) = self._types
        for separator, called in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if not more and separator in name:
                self.close()
                raise self.refusal("", f"is separated by {called}; write it with commas")

    def _load_texts(self, reader: str) -> None:
        # What DuckDB guessed to be a time counts only if the platform would read it as one too:
        # ingesting casts, and 31/12/2024 cannot be cast.
        self._database.execute(f"CREATE TABLE texts AS FROM {reader}, all_varchar = true)")
        for name in [name for name, kind in self._types.items() if kind in TIMES]:
            cast = f"TRY_CAST({quote(name)} AS TIMESTAMPTZ)"
            (failed,) = self.row(
                f"SELECT count(*) FROM texts WHERE {quote(name)} IS NOT NULL AND {cast} IS NULL"
            )
            if failed:
                self._types[name] = "VARCHAR"
                self._database.execute(f"ALTER TABLE file ALTER {quote(name)} TYPE VARCHAR")

    def _read_texts_as_times(self) -> None:
        table = "texts" if self.format == "csv" else "file"
        for name in [name for name, kind in self._types.items() if kind == "VARCHAR"]:
            column = quote(name)
            (texts, times) = self.row(
                f"""SELECT count({column}), count(TRY_CAST({column} AS TIMESTAMPTZ)) FILTER
                (regexp_matches({column}::VARCHAR, '^\\d{{4}}-\\d\\d-\\d\\d')) FROM {table}"""
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


def file_format(file: Path) -> str:
    """How a file is read, by the ending of its name; SpecError where it is not there."""
    if not file.is_file():
        near = sorted(other.name for other in file.parent.glob("*.*"))[:5]
        hint = f"; there are {', '.join(near)}" if near else ""
        raise SpecError(Location(file), "", f"there is no such file{hint}")
    ending = Path(file.name.lower().removesuffix(".gz")).suffix
    if ending not in ENDINGS:
        problem = f"'{ending}' is no format that can be read; there are {', '.join(ENDINGS)}"
        raise SpecError(Location(file), "", problem)
    return ENDINGS[ending]
