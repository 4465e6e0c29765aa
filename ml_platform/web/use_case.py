"""The page of a use case: how it was over time, who served when, what it is made of."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_platform.alerts.condition import counted
from ml_platform.monitoring.segments import latest_segments
from ml_platform.monitoring.series import DriftCell, DriftRow
from ml_platform.registry import Promotion, history, served_ranges
from ml_platform.spec.use_case import UseCase
from ml_platform.web.charts import LEVELS, Value, sparkline
from ml_platform.web.histories import CELLS, MOST_WINDOWS, History
from ml_platform.web.observer import Observer
from ml_platform.web.site import Site, path_to, shown_moment
from ml_platform.web.timelines import (
    coverage_diagram,
    delay_diagram,
    drift_diagram,
    performance_diagram,
    predictions_diagram,
)

COLUMNS = 20
"""Of the heat map; all where they are asked for."""


def known(site: Site, name: str, before: str | None) -> dict[str, Any]:
    """What is known of a use case at once; raises PageNotFound where there is no such partition."""
    case = site.use_case(name)
    if before:
        site.window(case, before)
    root = site.settings.dagster_url.rstrip("/")
    return {"case": case, "dagster": f"{root}/asset-groups/{case.name}"}


def use_case_page(
    site: Site, observer: Observer, name: str, before: str | None, every_column: bool
) -> dict[str, Any]:
    """Values of the page.

    before: key of a partition, where only what was before it is asked for.
    """
    case = site.use_case(name)
    until = site.window(case, before).start if before else None
    past = site.histories.of(case, until)
    decisions = history(site.lake, case)
    seen = observer.of(case)
    importances = seen.importances if seen else {}
    return {
        "case": case,
        "health": seen.health if seen else None,
        "seen_at": shown_moment(case, seen.at) if seen else None,
        "performance": performance_diagram(case, past.performance, decisions),
        "coverage": coverage_diagram(case, past.performance),
        "drift": drift_diagram(case, past.drift, decisions),
        "predictions": predictions_diagram(case, past.predicted, decisions),
        "classes": list(past.predicted[-1].shares) if past.predicted else [],
        "delays": delay_diagram(case, past.delays),
        "contributed": _contributed(case, past),
        "heat": _heat(case, past, importances, every_column),
        "earlier": _earlier(case, past),
        "before": before,
        "served": _served(case, decisions),
        "decisions": [_decision(case, each) for each in reversed(decisions)],
        "segments": _segments(site, case),
        "readme": _readme(case),
        "tables": _tables(site, case, seen.health.tables if seen and seen.health else ()),
        "parts": _parts(case),
        "contract": _contract(case),
    }


def _heat(
    case: UseCase, past: History, importances: Mapping[str, float], every_column: bool
) -> dict[str, Any] | None:
    """Drift by column over time, columns that matter most first: by importance times drift."""
    if not past.columns:
        return None
    windows = past.drift
    ordered = sorted(past.columns, key=lambda row: (-_weight(row, importances), row.column))
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


def _contributed(case: UseCase, past: History) -> list[dict[str, Any]]:
    """What predictions rest on: columns by how much they moved those that are explained."""
    found = []
    for each in past.contributed[:COLUMNS]:
        values = [
            Value(
                value,
                f"{case.calendar.key(window)}: {value:.3g}",
                path_to(case, "drift", case.calendar.key(window)),
            )
            for window, value in each.windows.items()
        ]
        found.append({"column": each.column, "mean": each.mean, "line": sparkline(values)})
    return found


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


def _earlier(case: UseCase, past: History) -> str | None:
    """Key of the first window shown, where there are more than fit on a page."""
    histories: tuple[Sequence[Any], ...] = (past.performance, past.drift, past.predicted)
    firsts = [each[0].window for each in histories if len(each) == MOST_WINDOWS]
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


def _contract(case: UseCase) -> list[dict[str, Any]]:
    """What each source promises: a row that breaks it goes into quarantine."""
    return [
        {
            "name": name,
            "description": source.description,
            "lands_as": source.lands_as,
            "key": ", ".join(source.key),
            "event_time": source.event_time,
            "known_at": source.known_at or source.event_time,
            "columns": list(source.columns.items()),
            "required": {*source.key, source.event_time, *source.required},
            "rules": source.rules,
        }
        for name, source in case.sources.items()
    ]


def _readme(case: UseCase) -> str:
    file = case.folder / "README.md"
    return file.read_text(encoding="utf-8") if file.is_file() else ""
