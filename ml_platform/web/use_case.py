"""The page of a use case: how it was over time, who served when, what it is made of."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_platform.alerts.condition import counted
from ml_platform.monitoring.segments import latest_segments
from ml_platform.monitoring.series import (
    DriftCell,
    DriftRow,
    DriftWindow,
    PerformanceWindow,
    drift_by_column,
    drift_windows,
    performance_windows,
)
from ml_platform.registry import Promotion, champion_periods, history, served_ranges
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.web.charts import LEVELS, Series, Value, diagram
from ml_platform.web.observer import Observer
from ml_platform.web.overview import drift_value, performance_value
from ml_platform.web.site import Site, path_to, shown_moment

MOST_WINDOWS = 400
"""Of a diagram: more than a year of days; earlier ones are another page."""
CELLS = 120
"""Of a row of the heat map."""
COLUMNS = 20
"""Of the heat map; all where they are asked for."""


def use_case_page(
    site: Site, observer: Observer, name: str, before: str | None, every_column: bool
) -> dict[str, Any]:
    """Values of the page.

    before: key of a partition, where only what was before it is asked for.
    """
    case = site.use_case(name)
    until = site.window(case, before).start if before else None
    performance = performance_windows(site.lake, case, MOST_WINDOWS, until=until)
    drift = drift_windows(site.lake, case, MOST_WINDOWS, until=until)
    decisions = history(site.lake, case)
    seen = observer.of(case)
    importances = seen.importances if seen else {}
    return {
        "case": case,
        "health": seen.health if seen else None,
        "seen_at": shown_moment(case, seen.at) if seen else None,
        "performance": performance_diagram(case, performance, decisions),
        "coverage": coverage_diagram(case, performance),
        "drift": drift_diagram(case, drift, decisions),
        "heat": _heat(site, case, drift, importances, every_column),
        "earlier": _earlier(case, performance, drift),
        "before": before,
        "served": _served(case, decisions),
        "decisions": [_decision(case, each) for each in reversed(decisions)],
        "segments": _segments(site, case),
        "readme": _readme(case),
        "dagster": f"{site.settings.dagster_url.rstrip('/')}/asset-groups/{case.name}",
        "tables": _tables(site, case, seen.health.tables if seen and seen.health else ()),
        "parts": _parts(case),
    }


def performance_diagram(
    case: UseCase, windows: Sequence[PerformanceWindow], decisions: Sequence[Promotion] = ()
) -> Series | None:
    """The model's metric over time, as now known and as first reported, with promotions."""
    metric = case.model.metric
    bounds = case.monitoring.performance.bounds_by(metric).get(metric)
    named = [("at least", bounds.min), ("at most", bounds.max)] if bounds else []
    return diagram(
        [performance_value(case, each) for each in windows],
        [(value, f"{word} {value:g}") for word, value in named if value is not None],
        dates=_dates(case, [each.window for each in windows]),
        marks=_marks(case, [each.window for each in windows], decisions),
        second=[each.first.get(metric) for each in windows],
    )


def coverage_diagram(case: UseCase, windows: Sequence[PerformanceWindow]) -> Series | None:
    """The share of predictions whose label is known; None where it is all of them."""
    if all(each.coverage == 1 for each in windows):
        return None
    values = [
        Value(each.coverage, f"{case.calendar.key(each.window)}: {each.coverage:.1%} labelled")
        for each in windows
    ]
    return diagram(values, dates=_dates(case, [w.window for w in windows]), floor=0.0)


def drift_diagram(
    case: UseCase, windows: Sequence[DriftWindow], decisions: Sequence[Promotion] = ()
) -> Series | None:
    """The share of drifted columns over time, with promotions."""
    limit = case.monitoring.drift.share
    return diagram(
        [drift_value(case, each) for each in windows],
        [(limit, f"limit {limit:g}")],
        dates=_dates(case, [each.window for each in windows]),
        marks=_marks(case, [each.window for each in windows], decisions),
        floor=0.0,
    )


def _dates(case: UseCase, windows: Sequence[Window]) -> list[tuple[int, str]]:
    """About six labels below an axis."""
    step = max(1, -(-len(windows) // 6))
    return [(i, case.calendar.key(windows[i])) for i in range(0, len(windows), step)]


def _marks(
    case: UseCase, windows: Sequence[Window], decisions: Sequence[Promotion]
) -> list[tuple[int, str, str]]:
    """The first partition that each champion answers for."""
    if not windows:
        return []
    found = []
    for period in champion_periods(decisions):
        later = [i for i, window in enumerate(windows) if window.end > period.since]
        if later and windows[0].start <= period.since:
            page = path_to(case, "versions", period.version)
            found.append((later[0], f"version {period.version}", page))
    return found


def _heat(
    site: Site,
    case: UseCase,
    windows: Sequence[DriftWindow],
    importances: Mapping[str, float],
    every_column: bool,
) -> dict[str, Any] | None:
    """Drift by column over time, columns that matter most first: by importance times drift."""
    rows = drift_by_column(site.lake, case, [each.window for each in windows], CELLS)
    if not rows:
        return None
    ordered = sorted(rows, key=lambda row: (-_weight(row, importances), row.column))
    shown = ordered if every_column else ordered[:COLUMNS]
    each = -(-len(windows) // CELLS)
    count = -(-len(windows) // each)
    return {
        "rows": [_heat_row(case, row, importances) for row in shown],
        "left": len(ordered) - len(shown),
        "cells": count,
        "each": counted(each, "partition"),
        "dates": [
            (i // each, case.calendar.key(windows[i].window))
            for i in range(0, len(windows), max(1, -(-count // 6)) * each)
        ],
    }


def _weight(row: DriftRow, importances: Mapping[str, float]) -> float:
    far = [cell.severity or 0.0 for cell in row.cells.values()]
    nulls = sum(cell.nulls_drifted for cell in row.cells.values())
    drift = sum(min(value, 4.0) for value in far) + nulls
    # Predictions and labels have no importance of their own, and matter as the farthest does.
    least = 0.02 * max(importances.values(), default=1.0)
    weight = importances.get(row.column, max(importances.values(), default=1.0))
    return drift * max(weight, least)


def _heat_row(case: UseCase, row: DriftRow, importances: Mapping[str, float]) -> dict[str, Any]:
    return {
        "column": row.column,
        "kind": row.kind,
        "importance": importances.get(row.column),
        "cells": [
            {
                "at": position,
                "level": _level(cell),
                "nulls": cell.nulls_drifted,
                "new": cell.new_categories > 0,
                "label": _cell_label(case, row.column, cell),
                "href": path_to(case, "drift", case.calendar.key(cell.window)),
            }
            for position, cell in row.cells.items()
            if _level(cell) or cell.nulls_drifted or cell.new_categories
        ],
    }


def _level(cell: DriftCell) -> int:
    """How dark a cell is: 0 far below the threshold, 2 and more where it drifted."""
    if cell.severity is None:
        return 2 if cell.drifted and not cell.nulls_drifted else 0
    return sum(cell.severity >= level for level in LEVELS)


def _cell_label(case: UseCase, column: str, cell: DriftCell) -> str:
    said = [f"{cell.severity:.2f} of the threshold" if cell.severity is not None else "not judged"]
    if cell.nulls_drifted:
        said.append("share of nulls drifted")
    if cell.new_categories:
        said.append(f"{cell.new_categories} new categories")
    return f"{column}, {case.calendar.key(cell.window)}: {', '.join(said)}"


def _earlier(
    case: UseCase, performance: Sequence[PerformanceWindow], drift: Sequence[DriftWindow]
) -> str | None:
    """Key of the first window shown, where there are more than fit on a page."""
    firsts = [each[0].window for each in (performance, drift) if len(each) == MOST_WINDOWS]
    return case.calendar.key(max(firsts, key=lambda w: w.start)) if firsts else None


def _served(case: UseCase, decisions: Sequence[Promotion]) -> list[dict[str, Any]]:
    return [
        {
            "version": period.version,
            "page": path_to(case, "versions", period.version),
            "since": shown_moment(case, period.since),
            "until": shown_moment(case, end) if end else None,
        }
        for period, end in reversed(served_ranges(decisions))
    ]


def _decision(case: UseCase, decision: Promotion) -> dict[str, Any]:
    return {
        "version": decision.version,
        "page": path_to(case, "versions", decision.version),
        "outcome": decision.outcome,
        "from": shown_moment(case, decision.effective_from),
        "at": shown_moment(case, decision.decided_at),
        "by": decision.decided_by,
        "reason": decision.reason,
    }


def _segments(site: Site, case: UseCase) -> dict[str, Any] | None:
    found = latest_segments(site.lake, case)
    if found is None:
        return None
    window, segments = found
    ordered = sorted(segments, key=lambda s: (s.failed is not True, s.segment_column, s.segment))
    return {"key": case.calendar.key(window), "segments": ordered}


def _tables(site: Site, case: UseCase, tables: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": table.table,
            "newest": case.calendar.key(table.newest) if table.newest else None,
            "behind": len(table.missing),
            "late": len(table.late),
            "href": site.in_dagster(case, table.table),
        }
        for table in tables
    ]


def _parts(case: UseCase) -> dict[str, Any]:
    """Its lineage in small: sources, features, what is made of them."""
    return {
        "sources": list(case.sources),
        "features": [(name, case.features[name].entity) for name in case.features],
        "model": case.model,
    }


def _readme(case: UseCase) -> str:
    file = case.folder / "README.md"
    return file.read_text(encoding="utf-8") if file.is_file() else ""
