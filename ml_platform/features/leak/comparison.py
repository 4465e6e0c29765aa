"""Rows that were stored against rows that were computed again, compared in DuckDB.

Floats are equal within what the order of a sum may change. DuckDB's threads add in another order
each time, and a longer range adds more rows: what is left of a difference of two totals is off by
digits of the totals, not of the difference.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import duckdb
from duckdb.sqltypes import DuckDBPyType

from ml_platform.spec.queries import literal, quote

RELATIVE_TOLERANCE = 1e-9
FLOATS = frozenset({"double", "float", "hugeint", "uhugeint"})
"""Parquet has no integers of 128 bits: what is stored of them are floats."""
NESTED = frozenset({"list", "struct", "map"})
TIME = "event_time"
FINGERPRINT = "__fingerprint"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class RowDifference:
    """A row that is not the same on both sides."""

    keys: Mapping[str, str | None]
    """Entity columns and their values, as text."""
    at: datetime
    """Event time, by the clocks of the use case."""
    feature: str | None
    """None where the row is on one side alone."""
    stored: str | None
    """The value, as text; of a row that is on one side alone, whether it is stored."""
    again: str | None

    @property
    def row(self) -> str:
        named = ", ".join(f"{key}={value or 'NULL'}" for key, value in self.keys.items())
        return f"{named} at {self.at.isoformat()}"

    def described(self, without: str) -> str:
        """The row, and what is different; without: what the second side was computed without."""
        if self.feature is None:
            said = "the row is gone" if self.stored else "the row appears"
            return f"{self.row}: {said}"
        stored, again = (value or "NULL" for value in (self.stored, self.again))
        return f"{self.row}: {self.feature}: stored {stored}, {without} {again}"


@dataclass(frozen=True)
class RowComparison:
    """How rows of one table are compared.

    columns: features and their types, as `types_of` finds them; tolerances: differences that are
    none, absolute, by feature. ignores_new: whether rows on the second side alone are as expected.
    """

    entity: tuple[str, ...]
    columns: Mapping[str, DuckDBPyType]
    tolerances: Mapping[str, float] = field(default_factory=dict)
    ignores_new: bool = False

    def tolerating(self, tolerances: Mapping[str, float]) -> "RowComparison":
        """The same with other absolute tolerances."""
        return replace(self, tolerances=tolerances)

    @property
    def floats(self) -> tuple[str, ...]:
        """Features with floating-point numbers in them."""
        return tuple(name for name, kind in self.columns.items() if _has_floats(kind))

    @property
    def plain_floats(self) -> tuple[str, ...]:
        """Features that are floating-point numbers themselves."""
        return tuple(name for name, kind in self.columns.items() if kind.id in FLOATS)

    def count(self, cursor: duckdb.DuckDBPyConnection, stored: str, again: str) -> tuple[int, int]:
        """How many stored rows were compared, and how many of both sides differ.

        stored, again: SELECTs with entity, event time and features.
        """
        return self._count(cursor, stored, again, self._differs())

    def count_fingerprints(
        self, cursor: duckdb.DuckDBPyConnection, stored: str, again: str
    ) -> tuple[int, int]:
        """As `count`, without tolerances, which take longer to plan than a small query to run.

        stored, again: SELECTs with entity, event time, and as `FINGERPRINT` the `fingerprint_sql`
        of the features.
        """
        same = f"s.{FINGERPRINT} = a.{FINGERPRINT}"
        return self._count(cursor, stored, again, self._differs(same))

    def _count(
        self, cursor: duckdb.DuckDBPyConnection, stored: str, again: str, differs: str
    ) -> tuple[int, int]:
        row = cursor.execute(
            f"SELECT count(s.__is), count(*) FILTER ({differs}) {self._joined(stored, again)}"
        ).fetchone()
        assert row is not None
        return int(row[0]), int(row[1])

    def first(
        self, cursor: duckdb.DuckDBPyConnection, stored: str, again: str, zone: ZoneInfo
    ) -> RowDifference | None:
        """Of all differences: a new row, a row that is gone, or the first feature's; the latest."""
        names = list(self.columns)
        cases = "".join(
            f" WHEN NOT {self._same(name)} THEN {n}" for n, name in enumerate(names, start=1)
        )
        keys = [f"coalesce(s.{quote(key)}, a.{quote(key)})" for key in self.entity]
        time = f"coalesce(s.{TIME}, a.{TIME})"
        values = ", ".join(
            f"CAST({side}.{quote(name)} AS VARCHAR)" for side in "sa" for name in names
        )
        row = cursor.execute(
            f"""SELECT CASE WHEN s.__is IS NULL THEN -1 WHEN a.__is IS NULL THEN 0{cases} END AS n,
                epoch_us({time}),
                [{", ".join(f"CAST({key} AS VARCHAR)" for key in keys)}], [{values}]
            {self._joined(stored, again)} WHERE {self._differs()}
            ORDER BY n, {", ".join(f"{each} DESC" for each in (time, *keys))} LIMIT 1"""
        ).fetchone()
        if row is None:
            return None
        number, micros, entity, texts = row
        at = moment_at(micros, zone)
        keyed = dict(zip(self.entity, entity, strict=True))
        if number <= 0:
            gone = "stored" if number == 0 else None
            return RowDifference(keyed, at, None, gone, None)
        feature = number - 1
        stored_text, again_text = texts[feature], texts[len(names) + feature]
        return RowDifference(keyed, at, names[feature], stored_text, again_text)

    def _differs(self, same: str | None = None) -> str:
        same = same or " AND ".join(map(self._same, self.columns)) or "true"
        new = "false" if self.ignores_new else "s.__is IS NULL"
        return f"({new} OR s.__is AND (a.__is IS NULL OR NOT ({same})))"

    def _same(self, name: str) -> str:
        one, other = f"s.{quote(name)}", f"a.{quote(name)}"
        return same_sql(self.columns[name], one, other, self.tolerances.get(name, 0.0))

    def _joined(self, stored: str, again: str) -> str:
        keys = " AND ".join(f"s.{key} IS NOT DISTINCT FROM a.{key}" for key in self._key_columns)
        return (
            f"FROM (SELECT *, true AS __is FROM ({stored})) s "
            f"FULL JOIN (SELECT *, true AS __is FROM ({again})) a ON {keys}"
        )

    @property
    def _key_columns(self) -> Sequence[str]:
        return [TIME, *map(quote, self.entity)]


def fingerprint_sql(values: Iterable[str]) -> str:
    """SQL of a number that is the same where all of some values of a row are.

    Thousands of columns are read in the time in which a comparison of each would be planned.
    """
    return f"hash({', '.join(values) or 'NULL'})"


def types_of(
    cursor: duckdb.DuckDBPyConnection, relation: str, names: Sequence[str]
) -> dict[str, DuckDBPyType]:
    """Types of some columns of a relation."""
    found = cursor.sql(f"SELECT {', '.join(map(quote, names))} FROM {relation} LIMIT 0")
    return dict(zip(names, found.types, strict=True))


def same_sql(kind: DuckDBPyType, one: str, other: str, tolerance: float, depth: int = 0) -> str:
    """SQL that holds where two values of a type are the same, NULL and NaN included.

    tolerance: difference of two floats that is none, beside `RELATIVE_TOLERANCE` of the larger one.
    """
    equal = f"{one} IS NOT DISTINCT FROM {other}"
    if not _has_floats(kind):
        return f"({equal})"
    close = _close_sql(kind, one, other, tolerance, depth)
    return f"({equal} OR coalesce({close}, false))"


def _close_sql(kind: DuckDBPyType, one: str, other: str, tolerance: float, depth: int) -> str:
    held = _held(kind)
    match kind.id:
        case "list":
            return _close_lists(held["child"], one, other, tolerance=tolerance, depth=depth)
        case "map":
            pairs = [f"list_sort(map_entries({each}))" for each in (one, other)]
            keys = " = ".join(f"list_transform({each}, lambda e: e.key)" for each in pairs)
            values = (f"list_transform({each}, lambda e: e.value)" for each in pairs)
            same = _close_lists(held["value"], *values, tolerance=tolerance, depth=depth)
            return f"({keys} AND {same})"
        case "struct":
            fields = [
                same_sql(each, f"{one}[{literal(name)}]", f"{other}[{literal(name)}]",
                         tolerance, depth)
                for name, each in held.items()
            ]  # fmt: skip
            return f"({one} IS NOT NULL AND {other} IS NOT NULL AND {' AND '.join(fields)})"
        case _:
            one, other = f"{one}::DOUBLE", f"{other}::DOUBLE"
            larger = f"greatest(abs({one}), abs({other}))"
            # An infinite difference is within a share of itself.
            return (
                f"(isfinite({one}) AND isfinite({other}) AND abs({one} - {other}) <= "
                f"{RELATIVE_TOLERANCE!r} * {larger} + {tolerance!r})"
            )


def _close_lists(kind: DuckDBPyType, one: str, other: str, *, tolerance: float, depth: int) -> str:
    pair = f"p{depth}"
    each = same_sql(kind, f"{pair}[1]", f"{pair}[2]", tolerance, depth + 1)
    zipped = f"list_zip({one}, {other})"
    return (
        f"(len({one}) = len({other}) AND "
        f"NOT list_contains(list_transform({zipped}, lambda {pair}: {each}), false))"
    )


def _held(kind: DuckDBPyType) -> dict[str, DuckDBPyType]:
    """Types that a nested type is made of, by name."""
    if kind.id not in NESTED:
        return {}
    return {name: held for name, held in kind.children if isinstance(held, DuckDBPyType)}


def _has_floats(kind: DuckDBPyType) -> bool:
    return kind.id in FLOATS or any(map(_has_floats, _held(kind).values()))


def micros_of(moment: datetime) -> int:
    """An aware datetime in microseconds since 1970."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def moment_at(micros: int, zone: ZoneInfo) -> datetime:
    """The moment so many microseconds after 1970, by the clocks of a zone."""
    return (EPOCH + timedelta(microseconds=micros)).astimezone(zone)
