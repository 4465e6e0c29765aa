"""Computed rows as they were known: current ones, or versions of those that were corrected."""

from datetime import datetime

from ml_platform.features.views import feature_view_table, instant, labels_table
from ml_platform.sources.known import KnownVersions
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import KNOWN_FROM, KNOWN_UNTIL, feature_table
from ml_platform.storage import Table
from ml_platform.storage.tables import WINDOW_START


def versions_if_asked(known: KnownVersions, table: str, where: str) -> str | None:
    """SQL of the versions of a computed table's rows; None where the newest rows are what is asked.

    where: predicate on `window_start`.
    """
    return known.sql(table, where) if known.use_case.is_as_known else None


def labels_sql(known: KnownVersions, where: str, known_by: datetime | None) -> str:
    """SQL of labels as they were known before a moment; `known_at` is from when on each was.

    Labels that were not known then may be among them, with a later `known_at`.
    where: predicate on `window_start`; known_by: None for what labels say now.
    """
    relation = _relation(known, "labels")
    versions = versions_if_asked(known, "labels", where)
    if versions is None or known_by is None:
        return relation
    moment = instant(known_by)
    return _known_sql(
        labels_table(known.use_case),
        f"(FROM {relation} WHERE {where})",
        versions,
        f"{KNOWN_FROM} < {moment} AND ({KNOWN_UNTIL} IS NULL OR {KNOWN_UNTIL} >= {moment})",
        {"known_at": KNOWN_FROM},
    )


def label_history_sql(known: KnownVersions, where: str) -> str | None:
    """SQL of every label that was known once, with `known_at` and `replaced_at`.

    None where the labels of the range were never corrected. where: predicate on `window_start`.
    """
    versions = versions_if_asked(known, "labels", where)
    if versions is None:
        return None
    relation = _relation(known, "labels")
    others = _known_sql(
        labels_table(known.use_case), f"(FROM {relation} WHERE {where})", versions, "false", {}
    )
    names = ", ".join(
        f"{KNOWN_FROM if name == 'known_at' else quote(name)} AS {quote(name)}"
        for name in (WINDOW_START, *labels_table(known.use_case).columns)
    )
    return f"""(SELECT *, NULL::TIMESTAMPTZ AS replaced_at FROM {others}
        UNION ALL BY NAME SELECT {names}, {KNOWN_UNTIL} AS replaced_at FROM {versions})"""


def features_sql(known: KnownVersions, view: str, where: str, at: datetime) -> str:
    """SQL of a view's rows as they were known at a moment. where: predicate on `window_start`."""
    table = feature_view_table(known.use_case, view)
    rows = _relation(known, feature_table(view))
    versions = versions_if_asked(known, table.name, where)
    if versions is None:
        return rows
    moment = instant(at)
    return _known_sql(
        table,
        f"(FROM {rows} WHERE {where})",
        versions,
        f"{KNOWN_FROM} <= {moment} AND ({KNOWN_UNTIL} IS NULL OR {KNOWN_UNTIL} > {moment})",
        {},
    )


def _relation(known: KnownVersions, table: str) -> str:
    return known.lake.relation(known.cursor, known.use_case.name, table, known.snapshot)


def _known_sql(table: Table, rows: str, versions: str, holds: str, instead: dict[str, str]) -> str:
    """Rows that were never corrected, and the versions of others that hold.

    instead: columns by whose name another one of the version is shown.
    """
    names = [WINDOW_START, *table.columns]
    shown = ", ".join(f"{instead.get(name, quote(name))} AS {quote(name)}" for name in names)
    # Not by USING: an entity may be NULL.
    same = " AND ".join(
        f"r.{column} IS NOT DISTINCT FROM v.{column}" for column in map(quote, table.order)
    )
    return f"""(SELECT {", ".join(map(quote, names))} FROM {rows} r ANTI JOIN {versions} v ON {same}
        UNION ALL SELECT {shown} FROM {versions} WHERE {holds})"""
