"""Which rows depend on some source rows: those that come out different without them.

Feature views and labels are computed twice, as sources are now and as they would be without the
rows; a correction is compared with what it replaced. That costs what computing the partitions
that may have read the rows costs, and says what ranges of event time cannot: which entities.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb

from ml_platform.errors import TableNotFound
from ml_platform.features import (
    Sight,
    examples_sql,
    feature_view_table,
    inside_sql,
    instant,
    labels_table,
    own_labels_sql,
    view_sql,
    windows_sql,
)
from ml_platform.impact.partitions import TableImpact, covering_range
from ml_platform.impact.subjects import Subject
from ml_platform.impact.versions import Rows
from ml_platform.sources.known import KnownVersions
from ml_platform.sources.tables import source_table
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import KNOWN_FROM, UseCase, feature_table
from ml_platform.spec.windows import Window, utc
from ml_platform.storage import Lake, Table
from ml_platform.storage.comparison import alike_sql
from ml_platform.storage.tables import WINDOW_START, naive_utc

AFFECTED = "temp.__affected"


@dataclass(frozen=True)
class DependentsQuery:
    """What is needed to compute tables with and without the rows of a subject."""

    lake: Lake
    cursor: duckdb.DuckDBPyConnection
    use_case: UseCase
    subject: Subject
    snapshot: int

    def dependents(self, tables: Mapping[str, TableImpact]) -> dict[str, Rows]:
        """Rows that depend on the subject, by table and partition.

        tables: the partitions of each that may have read it. Raises QueryFailed where a query
        fails, TableNotFound where a source that it reads is empty.
        """
        case, found = self.use_case, {}
        self._create_affected()
        for view, declared in case.features.items():
            name = feature_table(view)
            if self.subject.source in declared.reads and name in tables:
                windows = tables[name].read
                found[name] = self._different(feature_view_table(case, view), windows, view)
                if view in case.model_views:
                    self._add_examples(view, found[name])
        if self.subject.source in case.label.reads and "labels" in tables:
            found["labels"] = self._different(labels_table(case), tables["labels"].read, None)
        if "predictions" in tables:
            found["predictions"] = self._predictions(tables["predictions"].read)
        return {table: rows for table, rows in found.items() if rows}

    def _create_affected(self) -> None:
        """The examples that are rows of the subject themselves."""
        case, source = self.use_case, self.subject.source
        entity = ", ".join(map(quote, case.examples.entity))
        time = f"CAST({quote(case.sources[source].event_time)} AS TIMESTAMPTZ) AS event_time"
        where = self.subject.where
        if source != case.examples.source:
            source, where = case.examples.source, "false"
            time = "NULL::TIMESTAMPTZ AS event_time"
        elif self.subject.spans:
            where += f" AND {windows_sql(case, covering_range(list(self.subject.spans)))}"
        relation = self.lake.relation(self.cursor, case.name, source)
        self.cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE __affected AS "
            f"SELECT {entity}, {time} FROM {relation} WHERE {where}"
        )

    def _different(self, table: Table, windows: Sequence[Window], view: str | None) -> Rows:
        """Put the keys of rows that come out different in a temporary table; count them."""
        key = ", ".join(quote(column) for column in table.order)
        listed = ", ".join(f"{quote(c)} {table.columns[c]}" for c in table.order)
        name = f"__different_{table.name}"
        self.cursor.execute(f"CREATE OR REPLACE TEMP TABLE {quote(name)} ({listed})")
        for part in self.use_case.calendar.ranges(windows):
            for moment in self._moments():
                with_it, without = self._queries(view, Sight(part, self.snapshot, as_of=moment))
                self.cursor.execute(
                    f"INSERT INTO temp.{quote(name)} {_apart_sql(table, with_it, without)} "
                    f"EXCEPT SELECT {key} FROM temp.{quote(name)}"
                )
        return self._counted(f"temp.{quote(name)}", windows)

    def _moments(self) -> Iterator[datetime | None]:
        """One for each version of the rows that was the truth; None for now."""
        subject = self.subject
        chosen = subject.versions if subject.chosen is None else [subject.versions[subject.chosen]]
        if not chosen or chosen[-1].known_until is None:
            yield None
        if self.use_case.is_as_known:
            for version in chosen:
                if version.known_until is not None:
                    yield utc(version.known_until) - datetime.resolution

    def _queries(self, view: str | None, sight: Sight) -> tuple[str, str]:
        case, relations = self.use_case, {self.subject.source: self._without(view, sight)}
        given = (self.lake, self.cursor, case)
        if view is None:
            return own_labels_sql(*given, sight), own_labels_sql(*given, sight, relations)
        return view_sql(*given, view, sight), view_sql(*given, view, sight, relations)

    def _without(self, view: str | None, sight: Sight) -> str:
        """SQL of the source without the rows; with those in their place that they replaced."""
        case, subject = self.use_case, self.subject
        zone = case.calendar.timezone
        if view is None:
            seen = Window(sight.range.start, sight.end(case.label.horizon, zone))
        else:
            seen = Window(sight.start(case.features[view].lookback, zone), sight.range.end)
        near = windows_sql(case, seen)
        known = KnownVersions(self.lake, self.cursor, case, self.snapshot)
        moment = instant(sight.as_of) if sight.as_of else None
        rows = known.source_sql(subject.source, near, moment)
        columns = (WINDOW_START, *source_table(case, subject.source).columns)
        names = ", ".join(map(quote, columns))
        others = f"SELECT {names} FROM {rows} WHERE {near} AND NOT ({subject.where})"
        versions = known.sql(subject.source, near)
        if versions is None or (subject.versions and not subject.chosen):
            return f"({others})"
        if subject.corrected is not None:
            began = instant(subject.corrected.known_from.astimezone(UTC))
            before = f"FROM {versions} WHERE {subject.where} AND {KNOWN_FROM} = {began}"
        else:
            key = ", ".join((WINDOW_START, *map(quote, case.sources[subject.source].key)))
            before = (
                f"FROM {versions} SEMI JOIN (FROM {rows} WHERE {near} AND {subject.where}) "
                f"USING ({key}) WHERE NOT ({subject.where}) "
                f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {KNOWN_FROM} DESC) = 1"
            )
        return f"({others} UNION ALL SELECT {names} {before})"

    def _counted(self, relation: str, windows: Sequence[Window]) -> Rows:
        """Rows of a relation with `event_time` by window."""
        if not windows:
            return {}
        bounds = ", ".join(
            f"({number}, {instant(w.start)}, {instant(w.end)})" for number, w in enumerate(windows)
        )
        rows = self.cursor.execute(
            f"""SELECT w.number, count(*) FROM {relation} r
            JOIN (VALUES {bounds}) w(number, first, past)
            ON r.event_time >= w.first AND r.event_time < w.past GROUP BY 1 ORDER BY 1"""
        ).fetchall()
        return {windows[number]: count for number, count in rows}

    def _add_examples(self, view: str, rows: Rows) -> None:
        """Add the examples that look up one of a view's rows that depend on the subject.

        The latest of a view's rows, whether they are there with the subject or without it, decides.
        """
        if not rows:
            return
        case, declared = self.use_case, self.use_case.features[view]
        different = f"temp.{quote(f'__different_{feature_table(view)}')}"
        key = ", ".join((*map(quote, declared.entity), "event_time"))
        on = " AND ".join(f"e.{quote(c)} = f.{quote(c)}" for c in declared.entity)
        first, last = (
            min(rows, key=lambda w: utc(w.start)), max(rows, key=lambda w: utc(w.start))
        )  # fmt: skip
        expires = max(utc(case.expiry(view).of(last.end)), utc(last.end)) + datetime.resolution
        near = Window(first.start, expires)
        stored = self.lake.relation(self.cursor, case.name, feature_table(view), self.snapshot)
        entity = ", ".join(f"e.{quote(c)}" for c in case.examples.entity)
        fresh = case.expiry(view).fresh_sql("e.event_time", "f.event_time")
        examples = examples_sql(self.cursor, self.lake, case, near, self.snapshot)
        self.cursor.execute(
            f"""INSERT INTO {AFFECTED} SELECT {entity}, e.event_time FROM ({examples}) e
            ASOF JOIN (
                SELECT {key}, false AS __depends FROM {stored} ANTI JOIN {different} USING ({key})
                WHERE {windows_sql(case, near)} AND {inside_sql(near)}
                UNION ALL SELECT {key}, true FROM {different}
            ) f ON {on} AND e.event_time >= f.event_time WHERE f.__depends AND {fresh}"""
        )

    def _predictions(self, windows: Sequence[Window]) -> Rows:
        case = self.use_case
        try:
            relation = self.lake.relation(self.cursor, case.name, "predictions", self.snapshot)
        except TableNotFound:
            return {}
        by = ", ".join((*map(quote, case.examples.entity), "event_time"))
        if not windows:
            return {}
        correction = self.subject.is_correction and case.is_as_known
        since = self.subject.known_from if correction else None
        known = f"event_time >= {instant(since.astimezone(UTC))}" if since else "true"
        rows = self.cursor.execute(
            f"""SELECT {WINDOW_START}, count(*) FROM {relation}
            SEMI JOIN {AFFECTED} USING ({by})
            WHERE {windows_sql(case, covering_range(windows))} AND {known} GROUP BY 1 ORDER BY 1"""
        ).fetchall()
        read = {naive_utc(window.start): window for window in windows}
        return {read[start]: count for start, count in rows if start in read}


def _apart_sql(table: Table, one: str, other: str) -> str:
    """SELECT of the keys whose rows differ, or of which only one has a row."""
    join = " AND ".join(f"a.{quote(c)} IS NOT DISTINCT FROM b.{quote(c)}" for c in table.order)
    keys = ", ".join(f"coalesce(a.{quote(c)}, b.{quote(c)})" for c in table.order)
    alike = " AND ".join(
        alike_sql(f"a.{quote(column)}", f"b.{quote(column)}", kind, table.tolerance)
        for column, kind in table.columns.items()
        if column not in table.order
    )
    return f"""SELECT {keys} FROM (SELECT *, true AS _is FROM ({one})) a
        FULL JOIN (SELECT *, true AS _is FROM ({other})) b ON {join}
        WHERE a._is IS NULL OR b._is IS NULL OR NOT ({alike or "true"})"""
