"""What a computation has read of the lake, and whether that still holds when its result is written.

Commands read, compute for a while, and then write in a transaction. Whatever was read may be
replaced in between. So the transaction looks again, and where the rows are others the command
begins again: what is written was always computed from what holds at that moment.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

import duckdb

from ml_platform.errors import CommitConflict, InputsChanged
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.tables import BY_CHAMPION, reads_itself, reads_of
from ml_platform.spec.use_case import PLATFORM, UseCase, feature_table, version_table
from ml_platform.spec.windows import Window
from ml_platform.storage.calendars import require_calendar
from ml_platform.storage.changes import Range, changed_since
from ml_platform.storage.known_files import METADATA
from ml_platform.storage.lake import EXPIRED_COMMITS, Commit, Lake
from ml_platform.storage.tables import WINDOW_START, naive_utc
from ml_platform.storage.turns import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS

T = TypeVar("T")

ERASED = "erased"
"""Under this name a commit says that it took so many rows out of every snapshot."""
BEGUN_AT = "begun_at"
"""Under this name a commit says at which snapshot its computation began to read."""
SURELY_KEPT_SECONDS = 3600.0
"""Nothing that is younger than a day expires; what takes less than an hour need not look."""


@dataclass(frozen=True)
class Read:
    """Rows of one table that a computation depends on."""

    table: str
    within: tuple[datetime, datetime] | None = None
    """First and end of `window_start`, in UTC without an offset; None for the whole table."""
    only: Mapping[str, str] = field(default_factory=dict)
    """Columns and values of the rows that matter, where a table is shared; by default all rows."""

    @property
    def where(self) -> str:
        """SQL that holds for the rows that matter."""
        parts = [f"{quote(column)} = {literal(value)}" for column, value in self.only.items()]
        if self.within:
            first, end = (f"TIMESTAMP {literal(str(bound))}" for bound in self.within)
            parts += [f"{WINDOW_START} >= {first}", f"{WINDOW_START} < {end}"]
        return " AND ".join(parts) or "true"


@dataclass(frozen=True)
class Basis:
    """The snapshot from which on a computation has read, and what it depends on."""

    lake: Lake
    schema: str
    snapshot: int
    reads: tuple[Read, ...] = ()
    began: float = field(default_factory=time.monotonic)
    """When the computation began, by the monotonic clock."""

    def stamp(self, commit: Commit) -> Commit:
        """The commit, which says from which snapshot on was read, and for how long."""
        extra = {**commit.extra, BEGUN_AT: str(self.snapshot)}
        return replace(commit, extra=extra, began=self.began)

    def also(self, *reads: Read) -> "Basis":
        """The same with more that it depends on."""
        return replace(self, reads=(*self.reads, *reads))

    def require(self, transaction: duckdb.DuckDBPyConnection) -> None:
        """Raise InputsChanged where what was read holds other rows than at the snapshot.

        Also where a snapshot since then has expired, so that nobody knows. Costs a query for each
        table that has changed, over the files with changed rows alone.
        """
        now = self.lake.snapshot(transaction)
        if now == self.snapshot:
            return
        if time.monotonic() - self.began > SURELY_KEPT_SECONDS:
            self._require_history(transaction)
        self._require_nothing_erased(transaction)
        if not self.reads:
            return
        written = self._written(transaction)
        for read in self.reads:
            if read.table in written and self._changed(transaction, read, now):
                raise InputsChanged(
                    f"{self.schema}.{read.table} was changed after snapshot {self.snapshot}"
                )

    def _require_history(self, transaction: duckdb.DuckDBPyConnection) -> None:
        if EXPIRED_COMMITS not in self.lake.tables(transaction, PLATFORM):
            return
        row = transaction.execute(
            f"SELECT max(snapshot) FROM lake.{PLATFORM}.{EXPIRED_COMMITS}"
        ).fetchone()
        if row and row[0] is not None and row[0] >= self.snapshot:
            raise InputsChanged(f"snapshots since {self.snapshot} have expired")

    def _require_nothing_erased(self, transaction: duckdb.DuckDBPyConnection) -> None:
        """Rows that were erased for every snapshot are in none of the files any more.

        Whatever was read may have been one of them, and no window says that it has changed.
        """
        row = transaction.execute(
            f"""SELECT max(snapshot_id) FROM {METADATA}.ducklake_snapshot_changes
            WHERE snapshot_id > {self.snapshot:d}
            AND contains(commit_extra_info, {literal(f'"{ERASED}"')})"""
        ).fetchone()
        if row and row[0] is not None:
            raise InputsChanged(f"rows were erased at snapshot {row[0]}")

    def _written(self, transaction: duckdb.DuckDBPyConnection) -> frozenset[str]:
        """Tables that rows were inserted into or deleted from; merged files do not count."""
        rows = transaction.execute(
            f"""SELECT DISTINCT t.table_name FROM (
                SELECT unnest(string_split(changes_made, ',')) AS change
                FROM {METADATA}.ducklake_snapshot_changes WHERE snapshot_id > {self.snapshot:d})
            JOIN {METADATA}.ducklake_table t
            ON t.table_id = TRY_CAST(string_split(change, ':')[2] AS BIGINT)
            JOIN {METADATA}.ducklake_schema s ON s.schema_id = t.schema_id
            WHERE s.schema_name = {literal(self.schema)}
            AND (change LIKE 'insert%' OR change LIKE 'delete%' OR change LIKE 'inlined%')"""
        ).fetchall()
        return frozenset(name for (name,) in rows)

    def _changed(self, transaction: duckdb.DuckDBPyConnection, read: Read, now: int) -> bool:
        if read.within:
            # Rows that are only written again, because their file is, have not changed.
            wanted = Range(*read.within)
            return changed_since(
                transaction, self.schema, read.table, wanted, read.where, self.snapshot
            )
        found = transaction.execute(
            f"""SELECT 1 FROM ducklake_table_changes('lake', {literal(self.schema)},
                {literal(read.table)}, {self.snapshot + 1:d}, {now:d})
            WHERE {read.where} LIMIT 1"""
        ).fetchone()
        return found is not None


def begin_again(
    lake: Lake,
    use_case: UseCase,
    reads: Iterable[Read],
    what: str,
    compute: Callable[[duckdb.DuckDBPyConnection, Basis], T],
) -> T:
    """Call `compute` until nothing that it read changes before it has written.

    compute: is given a cursor in the use case's zone, and the basis that its transaction has to
    `require`. Raises CommitConflict after as many attempts as a transaction has.
    """
    needed, wait = tuple(reads), FIRST_WAIT_SECONDS
    for left in range(lake.settings.commit_retries, -1, -1):

        def attempt() -> T:
            with lake.cursor(use_case.timezone) as cursor:
                return compute(cursor, Basis(lake, use_case.name, lake.snapshot(cursor), needed))

        try:
            # A computation of hours begins again where a server did not answer in the midst of it.
            return lake.patience(attempt)
        except InputsChanged as error:
            if not left:
                raise CommitConflict(
                    f"{what}: began again {lake.settings.commit_retries} times, since what it "
                    f"reads changed each time; the last time {error}"
                ) from error
        # Full jitter: commands that read what each other write spread out.
        time.sleep(random.uniform(0, wait))
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)
    raise AssertionError("unreachable: the last attempt returns or raises")


def compute_windows(
    lake: Lake,
    use_case: UseCase,
    table: str,
    computed: Window,
    commit: Commit,
    compute: Callable[[duckdb.DuckDBPyConnection, Basis], T],
) -> T:
    """Call `compute` for a range of a table until none of its declared inputs changes meanwhile.

    Raises CalendarChanged where what is stored lies in windows of another calendar.
    """
    with lake.cursor() as cursor:
        require_calendar(cursor, use_case.name, use_case.calendar)

    def attempt(cursor: duckdb.DuckDBPyConnection, basis: Basis) -> T:
        commit.begins(basis.snapshot)
        return compute(cursor, basis)

    reads = _inputs(use_case, table, computed)
    return begin_again(lake, use_case, reads, f"{use_case.name}/{table}", attempt)


def _inputs(use_case: UseCase, table: str, computed: Window) -> tuple[Read, ...]:
    """What a range of a table with windows is computed from, as `reads_of` declares it."""
    reads = [
        read_of(use_case, read.table, read.range(computed)) for read in reads_of(use_case, table)
    ]
    if table in BY_CHAMPION:
        reads.append(Read("promotions"))
    if reads_itself(use_case, table):
        reads.append(read_of(use_case, table, computed))
    if table in use_case.sources:
        reads.append(read_of(use_case, "quarantine", computed, only={"source": table}))
    versioned = {*use_case.sources, *map(feature_table, use_case.features), "labels"}
    then = [
        replace(read, table=version_table(read.table)) for read in reads if read.table in versioned
    ]
    return (*reads, *then)


def read_of(
    use_case: UseCase, table: str, covered: Window, only: Mapping[str, str] | None = None
) -> Read:
    """The windows of a table that overlap a range of event time."""
    first = use_case.calendar.window_at(covered.start).start
    return Read(table, (naive_utc(first), naive_utc(covered.end)), only or {})
