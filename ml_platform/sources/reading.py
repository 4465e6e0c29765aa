"""What readers of all formats share: raw rows as SQL, and files that fail alone."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice

import duckdb
import pyarrow as pa

from ml_platform.errors import FileRefused
from ml_platform.failures import is_unavailable
from ml_platform.sources import salvage
from ml_platform.sources.landing import LandingFile
from ml_platform.sources.listing import path_columns
from ml_platform.sources.opening import changed_since
from ml_platform.sources.scan import Scan, opened, scan
from ml_platform.sources.step_tables import FILES, RAW, SALVAGED
from ml_platform.spec.inputs import Source
from ml_platform.spec.queries import exact_path, literal

NO_NULL = "\x01"
"""DuckDB needs some text that means null; nobody writes this one."""
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""How a folder is named whose rows have a null in its column."""
MOST_LISTED = 20
RECORDS_AT_ONCE = 20_000
"""Records of a broken file that are in memory together."""


@dataclass(frozen=True)
class Batch:
    """Raw rows of files with the same columns, as SQL."""

    relation: str
    """Yields `__file` (number of the file), `__row`, and what the expressions below name."""
    values: Mapping[str, str]
    """Declared columns and the SQL of their raw values."""
    record: str
    """SQL of the row as JSON text."""
    problem: str = "NULL::VARCHAR"
    """SQL that says why the row could not be parsed, null where it could."""


Read = Callable[[list[LandingFile]], Iterator[Batch]]
ReadAlone = Callable[[LandingFile, duckdb.Error | None], Iterator[Batch]]


class Reading:
    """Landing files of one source being read; `FILES` numbers them by path.

    The relation of a batch lasts until the next one is asked for.
    """

    def __init__(self, cursor: duckdb.DuckDBPyConnection, source: Source) -> None:
        self.cursor = cursor
        self.source = source
        self.refused: dict[LandingFile, FileRefused] = {}
        self.ignored: dict[str, None] = {}
        """Columns of the files that the source does not declare, in order."""

        self.changed: set[LandingFile] = set()
        """Files that were written to, or went, while they were read."""

    def refuse(self, file: LandingFile, problem: str) -> None:
        """Leave a file out; the others are read."""
        self.refused[file] = FileRefused(file.name, problem)

    def check_unchanged(self, files: Sequence[LandingFile]) -> None:
        """Refuse files that are not those any more that were listed; object stores show whole ones.

        What was read of them may be neither what they held before nor what they hold now.
        """
        for file in files:
            if file.is_remote or file.problem is not None or file.content is not None:
                continue
            if problem := changed_since(file.path, file.size, file.written_us):
                self.refuse(file, problem)
                self.changed.add(file)

    def accept(self, file: LandingFile, columns: Sequence[str]) -> bool:
        """Whether a file has the declared columns; it is refused where not."""
        in_path = path_columns(file.path)
        times = Counter(columns)
        for column in self.source.columns:
            if not times[column]:
                if column.lower() in in_path:
                    continue
                self.refuse(file, _missing(column, columns))
                return False
            if times[column] > 1:
                self.refuse(file, f"column '{column}' stands in it twice; rename one")
                return False
        extra = (column for column in columns if column not in self.source.columns)
        self.ignored.update(dict.fromkeys(extra))
        return True

    def values(self, columns: Sequence[str]) -> dict[str, str]:
        """SQL of the declared columns' raw values: of the file's own, or of folders in its path.

        columns: those of the file; the relation has them as `__c0`, `__c1`, …, and `__file`.
        """
        places = {column: n for n, column in enumerate(columns)}
        return {
            column: f"__c{places[column]}" if column in places else path_value(column)
            for column in self.source.columns
        }

    def scan(self, files: Sequence[LandingFile]) -> dict[LandingFile, Scan]:
        """Look into text files; those that cannot be opened are refused."""
        scans = {}
        for file in files:
            try:
                scans[file] = scan(self.cursor, file)
            except ValueError as error:
                self.refuse(file, str(error))
        return scans

    def halving(self, files: list[LandingFile], read: Read, alone: ReadAlone) -> Iterator[Batch]:
        """Read files by one statement where that works.

        A file that makes the statement fail is found by halving; it is read `alone`, and so is one
        of which lines were rejected (those that `load_lines` left out).
        """
        if not files:
            return
        try:
            self.cursor.execute("CREATE OR REPLACE TEMP TABLE __rejected (__path VARCHAR)")
            batches = list(read(files))
        except duckdb.Error as error:
            if is_unavailable(error):
                # What nobody can read now is no fault of a file.
                raise
            if len(files) == 1:
                yield from alone(files[0], error)
            else:
                middle = len(files) // 2
                yield from self.halving(files[:middle], read, alone)
                yield from self.halving(files[middle:], read, alone)
            return
        yield from batches
        rows = self.cursor.execute("SELECT __path FROM temp.__rejected").fetchall()
        rejected = {path for (path,) in rows}
        for file in files:
            if file.path in rejected:
                yield from alone(file, None)

    def load_lines(self, query: str, rows: Mapping[LandingFile, int], sound: str = "true") -> None:
        """Load a `read_csv` that ignores errors into `RAW`.

        rows: how many every file has. A file that comes out with fewer, or with a row of which
        `sound` is not true, is left out and read alone afterwards.
        """
        self.cursor.execute(f"CREATE OR REPLACE TEMP TABLE {RAW} AS {query}")
        counts = self.cursor.execute(
            f"SELECT __path, count(*) FILTER ({sound}) FROM {RAW} GROUP BY __path"
        ).fetchall()
        found = dict(counts)
        rejected = [file.path for file, count in rows.items() if found.get(file.path, 0) != count]
        self.cursor.execute("INSERT INTO temp.__rejected SELECT unnest(?::VARCHAR[])", [rejected])
        self.cursor.execute(
            f"DELETE FROM {RAW} WHERE __path IN (SELECT __path FROM temp.__rejected)"
        )

    def load_salvaged(
        self,
        file: LandingFile,
        records: Callable[[Iterable[bytes]], Iterator[salvage.Record]],
        columns: int,
        nulls: frozenset[str] = frozenset(),
    ) -> bool:
        """Load the records of one broken file into `SALVAGED`; False where it is refused."""
        texts = ", ".join(f"__c{n} VARCHAR" for n in range(columns))
        self.cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE {SALVAGED} (__file INTEGER, __row BIGINT, "
            f"__problem VARCHAR, __text VARCHAR, {texts})"
        )
        try:
            with opened(self.cursor, file) as stream:
                remaining = records(stream)
                while found := list(islice(remaining, RECORDS_AT_ONCE)):
                    self._insert_salvaged(file, found, columns, nulls)
        except ValueError as error:
            self.refuse(file, str(error))
            return False
        return True

    def _insert_salvaged(
        self,
        file: LandingFile,
        found: Sequence[salvage.Record],
        columns: int,
        nulls: frozenset[str],
    ) -> None:
        nothing = (None,) * columns
        rows = [
            nothing
            if record.values is None
            else tuple(None if value in nulls else value for value in record.values)
            for record in found
        ]
        text = pa.string()
        table = pa.table(
            {
                "__row": pa.array([record.line for record in found], pa.int64()),
                "__problem": pa.array([record.problem for record in found], text),
                "__text": pa.array([record.text for record in found], text),
                **{f"__c{n}": pa.array([row[n] for row in rows], text) for n in range(columns)},
            }
        )
        self.cursor.register("__records", table)
        self.cursor.execute(
            f"""INSERT INTO {SALVAGED}
            SELECT (SELECT number FROM {FILES} WHERE path = {literal(file.path)}), *
            FROM __records"""
        )
        self.cursor.unregister("__records")


def path_value(column: str) -> str:
    """SQL of what the folder says that a column names in the path of the file `__file`."""
    folder = literal(f"(?i)(?:^|/){re.escape(column)}=([^/]*)/")
    value = f"nullif(url_decode(regexp_extract(p.path, {folder}, 1)), {literal(NO_VALUE)})"
    return f"(SELECT {value} FROM {FILES} p WHERE p.number = __file)"


def numbered_lines(first_row: int) -> str:
    """The rows of `RAW` with the numbers of their files and their own."""
    # Rows are loaded in the order of their files, so `rowid` counts them.
    return f"""(SELECT f.number AS __file, r.rowid - s.first + {first_row} AS __row, r.*
        FROM {RAW} r
        JOIN (SELECT __path, min(rowid) AS first FROM {RAW} GROUP BY __path) s USING (__path)
        JOIN {FILES} f ON f.path = r.__path)"""


def json_object(columns: Sequence[str]) -> str:
    """SQL of a JSON text with the raw columns `__c0`, `__c1`, … under their own names."""
    pairs = ", ".join(f"{literal(name)}, __c{n}" for n, name in enumerate(columns))
    return f"json_object({pairs})"


def or_text(record: str) -> str:
    """SQL of a salvaged row as JSON text: its record, or the line that is none."""
    return f"CASE WHEN __problem IS NULL THEN {record} ELSE json_object('text', __text) END"


def path_list(files: Sequence[LandingFile]) -> str:
    """SQL of a list of files."""
    return f"[{', '.join(literal(exact_path(file.path)) for file in files)}]"


def _missing(column: str, columns: Sequence[str]) -> str:
    near = get_close_matches(column, columns, 1, cutoff=0.5)
    more = f" and {len(columns) - MOST_LISTED} more" if len(columns) > MOST_LISTED else ""
    listed = f"it has {', '.join(columns[:MOST_LISTED])}{more}"
    return f"no column '{column}'; {listed}" + (f". Did you mean '{near[0]}'?" if near else "")
