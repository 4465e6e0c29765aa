"""Tables of lakes that release 0.1.0 or before wrote, in the shape of version 2.

Every table with windows says by which calendar they are and has `_snapshot`; promotions and
performance reports have all of their columns; callbacks say when they were notified.
"""

import json
from collections.abc import Iterator
from datetime import UTC
from functools import partial

import duckdb

from ml_platform.errors import CalendarChanged
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.windows import Cadence, Calendar
from ml_platform.storage.known_files import METADATA
from ml_platform.storage.migrations.place import MigrationStep, Place

WITHOUT_WINDOWS = ("landings", "ingestions")
"""Tables with a column `window_start` whose rows lie in no windows."""
COLUMNS = {
    "promotions": {"left_out": "VARCHAR[]", "too_good": "VARCHAR"},
    "performance_report": {"standard_error": "DOUBLE"},
    "live_performance_report": {"standard_error": "DOUBLE"},
}
CALLBACKS = "ml_platform_callbacks"


def steps(place: Place) -> Iterator[MigrationStep]:
    """What is left to be done."""
    for schema, table, columns, comment in _tables(place.cursor):
        named, sql = f"{schema}.{table}", f"lake.{quote(schema)}.{quote(table)}"
        if "window_start" in columns and table not in WITHOUT_WINDOWS:
            if "_snapshot" not in columns:
                yield MigrationStep(
                    f"{named}: add the column _snapshot, share files by month",
                    partial(_add_snapshot, sql),
                )
            if comment is None:
                yield MigrationStep(
                    f"{named}: note the calendar of its windows",
                    partial(_note_calendar, schema, table, sql),
                )
        for column, kind in COLUMNS.get(table, {}).items():
            if column not in columns:
                yield MigrationStep(
                    f"{named}: add the column {column}", partial(_add_column, sql, column, kind)
                )
    if place.settings.catalog_uri.startswith("postgres:") and _has_old_callbacks(place.cursor):
        what = f"{CALLBACKS}: rename the column told_at to notified_at"
        yield MigrationStep(what, _rename_in_postgres, is_in_lake=False)


def _tables(
    cursor: duckdb.DuckDBPyConnection,
) -> list[tuple[str, str, list[str], str | None]]:
    """Schema, name, columns and comment of every table."""
    return cursor.execute(
        f"""SELECT s.schema_name, t.table_name, list(c.column_name), any_value(g.value)
        FROM {METADATA}.ducklake_table t
        JOIN {METADATA}.ducklake_schema s ON s.schema_id = t.schema_id
        JOIN {METADATA}.ducklake_column c ON c.table_id = t.table_id
        LEFT JOIN (FROM {METADATA}.ducklake_tag WHERE key = 'comment' AND end_snapshot IS NULL) g
            ON g.object_id = t.table_id
        WHERE t.end_snapshot IS NULL AND s.end_snapshot IS NULL AND c.end_snapshot IS NULL
        GROUP BY ALL ORDER BY ALL"""
    ).fetchall()


def _add_snapshot(sql: str, place: Place) -> None:
    # Of rows without a value DuckLake says itself with which snapshot they came.
    place.cursor.execute(f"ALTER TABLE {sql} ADD COLUMN _snapshot BIGINT")
    place.cursor.execute(
        f"ALTER TABLE {sql} SET PARTITIONED BY (year(window_start), month(window_start))"
    )


def _add_column(sql: str, column: str, kind: str, place: Place) -> None:
    place.cursor.execute(f"ALTER TABLE {sql} ADD COLUMN {column} {kind}")


def _note_calendar(schema: str, table: str, sql: str, place: Place) -> None:
    calendar = place.calendars.get(schema)
    if calendar is not None:
        _require_starts(place.cursor, f"{schema}.{table}", sql, calendar)
    text = json.dumps({"calendar": _noted(calendar)})
    place.cursor.execute(f"COMMENT ON TABLE {sql} IS {literal(text)}")


def _noted(calendar: Calendar | None) -> dict[str, object]:
    if calendar is None:
        # No use case is declared that could say it, and one that comes back may have another one.
        return {"cadence": "not noted", "start": "", "timezone": ""}
    weekly = calendar.cadence is Cadence.weekly
    return {
        "cadence": str(calendar.cadence),
        "start": calendar.start.isoformat(),
        "timezone": str(calendar.timezone),
        "week_starts": str(calendar.week_starts) if weekly else None,
        "since": 0,
    }


def _require_starts(
    cursor: duckdb.DuckDBPyConnection, named: str, sql: str, calendar: Calendar
) -> None:
    """Raise CalendarChanged where a window begins that is none of the calendar."""
    for (start,) in cursor.execute(f"SELECT DISTINCT window_start FROM {sql}").fetchall():
        moment = start.replace(tzinfo=UTC)
        if calendar.window_at(moment).start.astimezone(UTC) != moment:
            raise CalendarChanged(
                f"{named} has a window that begins at {start} UTC, which is none of the calendar "
                "that `partitions` declares: change `partitions` back to the one that it was "
                "written by, and upgrade again"
            )


def _has_old_callbacks(cursor: duckdb.DuckDBPyConnection) -> bool:
    query = (
        f"SELECT 1 FROM information_schema.columns WHERE table_name = '{CALLBACKS}' "
        "AND column_name = 'told_at'"
    )
    found = cursor.execute(f"FROM postgres_query({literal(METADATA)}, {literal(query)})").fetchone()
    return found is not None


def _rename_in_postgres(place: Place) -> None:
    rename = f"ALTER TABLE {CALLBACKS} RENAME COLUMN told_at TO notified_at"
    place.cursor.execute(f"CALL postgres_execute({literal(METADATA)}, {literal(rename)})")
