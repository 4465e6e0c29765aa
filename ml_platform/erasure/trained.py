"""Which model versions may have been trained on an entity's rows: these stay in their weights."""

from collections.abc import Mapping, Sequence

from ml_platform.erasure.lake_rows import TableFiles, columns_of
from ml_platform.erasure.matching import Matching
from ml_platform.impact import SourceSpan, Subject, data_impact
from ml_platform.registry import Registry, TrainedVersion
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import version_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START


def windows_of(
    matching: Matching, tables: Sequence[TableFiles]
) -> dict[str, dict[Window, SourceSpan]]:
    """Windows that hold, or once held, rows of the entity, by source."""
    found = {}
    for source in matching.use_case.sources:
        named = {source, version_table(source)}
        if spans := _spans(matching, source, [t for t in tables if t.table in named]):
            found[source] = spans
    return found


def versions_trained_on(
    lake: Lake,
    registry: Registry,
    matching: Matching,
    windows: Mapping[str, Mapping[Window, SourceSpan]],
) -> list[TrainedVersion]:
    """Versions whose training set may have held rows of the entity, or features made from them."""
    found: dict[int, TrainedVersion] = {}
    for source, spans in windows.items():
        subject = Subject(source, "rows of the entity", spans, "false", None)
        impact = data_impact(lake, registry, matching.use_case, subject, recompute=False)
        found |= {each.version: each for each in impact.trained}
    return [found[version] for version in sorted(found)]


def _spans(
    matching: Matching, source: str, tables: Sequence[TableFiles]
) -> dict[Window, SourceSpan]:
    """The entity's rows of a source, by window."""
    calendar = matching.use_case.calendar
    time = quote(matching.use_case.sources[source].event_time)
    found: dict[Window, SourceSpan] = {}
    for table in tables:
        for relation, _ in table.relations:
            columns = columns_of(matching.cursor, relation)
            where = matching.of_columns(columns)
            if where is None or WINDOW_START not in columns:
                continue
            for start, count in matching.cursor.execute(
                f"SELECT {WINDOW_START}, count(*) FROM {relation} WHERE {where} AND {time} "
                f"IS NOT NULL GROUP BY 1 ORDER BY 1"
            ).fetchall():
                window = calendar.window_stored(start)
                rows = count + (found[window].rows if window in found else 0)
                # Since when they were there is not asked: of versions none is left out.
                found[window] = SourceSpan(rows, window, 0)
    return dict(sorted(found.items(), key=lambda item: item[0].start))
