"""Evidently's own drift report of one window as a page, drawn only when somebody asks.

It takes seconds to draw and megabytes to keep, so windows have scores in the lake instead and a
page on demand. The page compares the very rows that the stored scores were computed from.
"""

import os
import re
import tempfile
import warnings
from html import escape
from pathlib import Path
from urllib.parse import quote

import duckdb
import pandas as pd

from ml_platform.extras import extra
from ml_platform.monitoring.columns import MonitoredColumn, vanished_columns
from ml_platform.monitoring.distributions import compared_rows
from ml_platform.monitoring.stored_drift import StoredDrift, stored_drift
from ml_platform.registry import Registry
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START, naive_utc


def report_path(settings: Settings, use_case: UseCase, window: Window) -> Path:
    """File of a window's page."""
    return settings.reports / use_case.name / "drift" / f"{use_case.calendar.key(window)}.html"


def report_url(settings: Settings, use_case: UseCase, window: Window) -> str:
    """Where the pages show a window's drift report."""
    key = quote(use_case.calendar.key(window), safe="")
    return f"{settings.pages_url.rstrip('/')}/{use_case.name}/drift/{key}"


def render_drift_html(lake: Lake, registry: Registry, use_case: UseCase, window: Window) -> Path:
    """Draw the page of a window's stored report, unless the file is there and still its page.

    Columns that Evidently cannot draw (gone, new, or without a value) are named above its report.
    Raises EmptyPartition where the window has no drift report.
    """
    (stored,) = stored_drift(lake, use_case, window)
    path = report_path(lake.settings, use_case, window)
    mark = f"<!-- drift report: version {stored.version}, snapshot {stored.snapshot} -->\n"
    if path.exists():
        with path.open(encoding="utf-8") as file:
            if file.readline() == mark:
                return path
    page = _page(lake, registry, use_case, window, stored)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(mark + page)
        Path(name).chmod(0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink()
        raise
    return path


def _page(
    lake: Lake, registry: Registry, use_case: UseCase, window: Window, stored: StoredDrift
) -> str:
    compared = compared_rows(lake, registry, use_case, window, stored)
    rows, current, reference = compared.rows, compared.current, compared.reference
    with lake.cursor(use_case.timezone) as cursor:
        scores = _scores(cursor, lake, use_case, window)
    notes = []
    if compared.expired:
        notes.append(
            f"Snapshot {stored.snapshot}, which the stored scores were computed from, has "
            f"expired; this page shows snapshot {compared.snapshot}."
        )
    drawn = [
        c for c in compared.columns
        if c.name in reference
        and current[c.name].notna().any() and reference[c.name].notna().any()
    ]  # fmt: skip
    gone = [c.name for c in vanished_columns(use_case, compared.model.fitted_columns)]
    left_out = [c.name for c in compared.columns if c not in drawn] + gone
    if left_out:
        notes.append(f"Not drawn, having no value on one of the sides: {', '.join(left_out)}.")
    key = use_case.calendar.key(window)
    heading = (
        f"<h1>{escape(use_case.name)}, drift of {escape(key)}</h1>"
        f"<p>{len(current)} rows from {rows.since.isoformat()} to {rows.until.isoformat()}, held "
        f"against {len(reference)} rows that version {stored.version} was trained on.</p>"
        + scores
        + "".join(f"<p>{escape(note)}</p>" for note in notes)
    )
    names = [c.name for c in drawn]
    html = _draw(use_case, drawn, reference[names], current[names]) if drawn else "<body></body>"
    style = "font-family: sans-serif; margin: 2em"
    return re.sub(
        r"<body[^>]*>", lambda body: f'{body[0]}<div style="{style}">{heading}</div>', html, count=1
    )


def _scores(
    cursor: duckdb.DuckDBPyConnection, lake: Lake, use_case: UseCase, window: Window
) -> str:
    """The stored scores as a table: Evidently's report below knows neither nulls nor fences."""
    relation = lake.relation(cursor, use_case.name, "drift_report")
    rows = cursor.execute(
        f"""SELECT column_name, drifted, status, score, threshold, evidently_score,
        reference_null_share, null_share, null_score, null_threshold FROM {relation}
        WHERE {WINDOW_START} = ? ORDER BY drifted DESC NULLS LAST, null_score DESC NULLS LAST,
        column_name""",
        [naive_utc(window.start)],
    ).fetchall()
    cells = ["".join(f"<td>{escape(_cell(value))}</td>" for value in row) for row in rows]
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return (
        "<table cellpadding=4><tr><th>column<th>drifted<th>status<th>score<th>threshold"
        "<th>Evidently's score<th>share of nulls, reference<th>now<th>difference<th>threshold</tr>"
        f"{body}</table>"
    )


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _draw(
    use_case: UseCase,
    columns: list[MonitoredColumn],
    reference: pd.DataFrame,
    current: pd.DataFrame,
) -> str:
    with extra():
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

    drift = use_case.monitoring.drift
    definition = DataDefinition(
        numerical_columns=[c.name for c in columns if c.numeric],
        categorical_columns=[c.name for c in columns if not c.numeric],
    )
    preset = DataDriftPreset(
        drift_share=drift.share,
        num_method=drift.method,
        num_threshold=drift.threshold,
        cat_method="psi" if drift.method == "psi" else "jensenshannon",
        cat_threshold=drift.categorical_threshold,
    )
    with warnings.catch_warnings():
        # Evidently draws constant columns and correlations of them with warnings.
        warnings.simplefilter("ignore")
        report = Report([preset]).run(
            Dataset.from_pandas(current, data_definition=definition),
            Dataset.from_pandas(reference, data_definition=definition),
        )
        return str(report.get_html_str(as_iframe=False))
