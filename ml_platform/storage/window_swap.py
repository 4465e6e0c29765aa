"""Windows of a table that come to hold other rows, in a transaction."""

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass
from datetime import datetime

import duckdb

from ml_platform.spec.queries import literal, quote
from ml_platform.storage.changes import note_emptied
from ml_platform.storage.data_files import DataFiles
from ml_platform.storage.months import crowded_months, month_of, take_out
from ml_platform.storage.tables import SNAPSHOT, WINDOW_START, Table


@dataclass(frozen=True)
class Swap:
    """Windows that are to hold other rows: fingerprints before and after, and which they are."""

    table: Table
    scope: str
    """SQL that holds for the rows to replace, where a table is shared."""
    staged: str
    """Temporary table of the new rows."""
    files: DataFiles | None
    """Files that hold the rows already; those that do not are staged."""
    before: Mapping[datetime, tuple[int, int]]
    after: Mapping[datetime, tuple[int, int]]
    changed: Set[datetime]
    snapshot: int
    """The one that the transaction makes."""

    @property
    def gone(self) -> Set[datetime]:
        return self.changed & self.before.keys()

    @property
    def come(self) -> Set[datetime]:
        return self.changed & self.after.keys()

    def carry_out(self, transaction: duckdb.DuckDBPyConnection) -> None:
        """Delete what the windows held, insert what they are to hold."""
        table, gone = self.table, self.gone
        names = ", ".join(quote(c) for c in (WINDOW_START, *table.columns))
        months = crowded_months(transaction, table, self.changed)
        rows = []
        if months:
            going = f"{among(gone, self.before)} AND {self.scope}" if gone else "false"
            rows.append(take_out(transaction, table, months, going))
        # Each statement on a table of the lake searches the catalog for files, the most expensive
        # part of replacing a small window, so a window that was empty before is not deleted from.
        if left := {start for start in gone if month_of(start) not in months}:
            present = [start for start in self.before if month_of(start) not in months]
            transaction.execute(
                f"DELETE FROM {table.sql} WHERE {among(left, present)} AND {self.scope}"
            )
        come_in = self.come
        if self.files is not None:
            come_in = self.files.register(transaction, table, self.come)
        if come_in:
            come = among(come_in, self.after)
            rows.append(f"SELECT {names}, {self.snapshot:d} FROM temp.{self.staged} WHERE {come}")
        if rows:
            order = ", ".join(quote(c) for c in (WINDOW_START, *table.order))
            transaction.execute(
                f"INSERT INTO {table.sql} ({names}, {SNAPSHOT}) "
                f"FROM ({' UNION ALL '.join(rows)}) ORDER BY {order}"
            )
        if emptied := gone - self.come:
            note_emptied(transaction, table, emptied, self.snapshot)


def among(starts: Set[datetime], present: Collection[datetime]) -> str:
    """SQL that holds, of the windows that are present, for some; its bounds prune files."""
    first, last = min(starts), max(starts)
    where = f"{WINDOW_START} >= {moment(first)} AND {WINDOW_START} <= {moment(last)}"
    if all(start in starts for start in present if first <= start <= last):
        return where
    return f"{where} AND {WINDOW_START} IN ({', '.join(moment(start) for start in starts)})"


def moment(naive: datetime) -> str:
    """SQL of a moment as `window_start` is stored."""
    return f"TIMESTAMP {literal(str(naive))}"
