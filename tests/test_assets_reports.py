"""What Dagster shows of reports: texts that people read, figures in an order that matters."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from ml_platform.monitoring import (
    ColumnDrift,
    PerformanceReport,
    PerformanceRun,
    Trend,
    WindowDrift,
)
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.watching import Monitoring, Performance
from ml_platform_dagster.assets.reports import (
    drift_metadata,
    drift_verdict,
    performance_metadata,
    performance_verdict,
    with_trend,
)
from tests import trips_use_case as trips

LINK = "http://127.0.0.1:3001/trips/drift/2024-03-09"
NEAR = ColumnDrift(
    column="near", kind="feature", method="wasserstein", score=0.012345678, threshold=0.3,
    drifted=False, status="scored", current_rows=500, reference_rows=500, null_share=0.0,
    reference_null_share=0.0, null_score=0.0, null_threshold=0.1, nulls_drifted=False,
    evidently_score=0.012345678, new_categories=None,
)  # fmt: skip
FAR = replace(NEAR, column="far", score=0.456789, drifted=True)
FARTHER = replace(NEAR, column="farther", score=1.23456789, drifted=True)
CITY = replace(
    NEAR, column="city", method="jensenshannon", score=0.2, threshold=0.1, drifted=True,
    new_categories=3,
)  # fmt: skip
EMPTIED = replace(
    NEAR, column="emptied", score=0.05, drifted=True, nulls_drifted=True, null_share=0.5,
    reference_null_share=0.0, null_score=0.5,
)  # fmt: skip
VANISHED = replace(
    NEAR, column="vanished", score=None, status="absent", drifted=True, evidently_score=None,
    null_share=None, null_score=None, nulls_drifted=None,
)  # fmt: skip
UNJUDGED = replace(NEAR, column="unjudged", score=None, status="too few values", drifted=None)


def drift(*columns: ColumnDrift) -> WindowDrift:
    return WindowDrift(version=7, columns=columns, limit=0.3)


def shown(metadata: dict[str, object], name: str) -> str:
    value = metadata[name]
    assert isinstance(value, dg.MarkdownMetadataValue)
    return value.value or ""


def test_a_drift_check_names_the_three_farthest_columns_and_where_to_look() -> None:
    verdict = drift_verdict(drift(NEAR, FAR, CITY, FARTHER, EMPTIED, UNJUDGED), LINK)
    assert not verdict.passed
    assert verdict.description == (
        "4 of 5 columns drifted (80%, limit 30%): emptied (nulls 0% → 50%), "
        f"farther 1.23 (limit 0.3), city 0.20 (limit 0.1) and 1 more; see {LINK}"
    )


def test_what_vanished_is_the_farthest() -> None:
    verdict = drift_verdict(drift(FARTHER, VANISHED, NEAR), None)
    assert verdict.description == (
        "2 of 3 columns drifted (67%, limit 30%): vanished has no values any more, "
        "farther 1.23 (limit 0.3)"
    )


def test_columns_are_compared_by_their_limits_p_values_too() -> None:
    small, smaller = (
        replace(FAR, column=f"ks_{value}", method="ks", score=value, threshold=0.05)
        for value in (0.04, 0.01)
    )
    assert [c.column for c in drift(small, smaller, FAR).worst] == ["ks_0.01", "far", "ks_0.04"]


def test_nulls_are_compared_by_their_limit() -> None:
    emptier = replace(EMPTIED, column="emptier", null_score=0.6)
    assert [c.column for c in drift(EMPTIED, emptier, FARTHER).worst] == [
        "emptier", "emptied", "farther",
    ]  # fmt: skip
    barely = replace(EMPTIED, null_score=0.11)
    assert [c.column for c in drift(barely, FARTHER).worst] == ["farther", "emptied"]


def test_a_drift_check_that_passes_says_how_far_it_is_from_its_limit() -> None:
    verdict = drift_verdict(drift(NEAR, NEAR, NEAR, FAR), None)
    assert verdict.passed
    assert verdict.description == "1 of 4 columns drifted (25%, limit 30%): far 0.46 (limit 0.3)"
    assert drift_verdict(drift(NEAR), None).description == "0 of 1 columns drifted (0%, limit 30%)"


def test_drift_shows_what_matters_first_in_figures_that_can_be_read() -> None:
    metadata = drift_metadata(drift(NEAR, FAR, CITY, FARTHER, EMPTIED), LINK, 5)
    assert list(metadata) == [
        "status", "worst columns", "report", "share drifted", "columns drifted", "columns judged",
        "largest score", "scores", "champion", "snapshot", "score emptied", "score farther",
        "score city", "score far", "score near", "null share emptied",
    ]  # fmt: skip
    assert metadata["status"] == "drifted"
    assert shown(metadata, "worst columns").splitlines()[2:] == [
        "| emptied | 0.050 | 0.3 | 0.0% → 50.0% |",
        "| farther | 1.235 | 0.3 | 0.0% → 0.0% |",
        "| city | 0.200 | 0.1 | 0.0% → 0.0% |",
    ]
    assert (metadata["score near"], metadata["largest score"]) == (0.01235, 1.2346)
    names = [line.split("|")[1].strip() for line in shown(metadata, "scores").splitlines()[2:]]
    assert names == ["**emptied**", "**farther**", "**city**", "**far**", "near"]


def test_drift_that_keeps_its_limit_says_so() -> None:
    metadata = drift_metadata(drift(NEAR), None, 5)
    assert metadata["status"] == "within limits"
    assert "worst columns" not in metadata
    assert drift_metadata(drift(UNJUDGED), None, 5)["status"] == "too few rows"


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    monitoring = Monitoring(performance=Performance(min=0.65))
    return trips.write_folder(tmp_path, "binary").model_copy(update={"monitoring": monitoring})


def measured(auc: float | None, kept: bool | None = None) -> PerformanceReport:
    metrics = {} if auc is None else {"brier": 0.1234567, "roc_auc": auc}
    return PerformanceReport(
        rows=900, labelled=800, versions=(3,), labels_known_by=datetime(2024, 3, 9, tzinfo=UTC),
        metrics=metrics, kept={} if kept is None else {"roc_auc": kept},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (measured(0.6467218, kept=False), "out of bounds: roc_auc 0.6467 (at least 0.65)"),
        (measured(0.7336505, kept=True), "within bounds"),
        (measured(0.7336505), "measured, no bounds"),
        (measured(None), "too few labels"),
    ],
)
def test_performance_says_whether_its_bounds_are_kept(
    use_case: UseCase, found: PerformanceReport, status: str
) -> None:
    assert performance_metadata(use_case, found, PerformanceRun(5))["status"] == status


def test_performance_shows_the_models_metric_first(use_case: UseCase) -> None:
    metadata = performance_metadata(use_case, measured(0.6467218, kept=False), PerformanceRun(5))
    assert list(metadata) == [
        "status", "roc_auc", "brier", "labelled", "coverage", "model versions",
        "dagster/partition_row_count", "snapshot",
    ]  # fmt: skip
    assert (metadata["roc_auc"], metadata["coverage"]) == (0.6467, 0.8889)


@pytest.mark.parametrize(
    ("auc", "kept", "said"),
    [(0.6467218, False, "is not at least 0.65"), (0.7336505, True, "is at least 0.65")],
)
def test_a_performance_check_says_the_bound_and_on_how_many_rows(
    use_case: UseCase, auc: float, kept: bool, said: str
) -> None:
    verdict = performance_verdict(use_case, measured(auc, kept=kept))
    assert verdict.passed is kept
    assert verdict.description == f"roc_auc {auc:.4f} {said} on 800 labelled rows"


def test_the_trend_stands_after_the_status() -> None:
    trend = Trend("roc_auc", "2024-03-01", "2024-03-02", (0.7, 0.6), (0.65,))
    metadata = with_trend({"status": "within bounds", "roc_auc": 0.6}, trend)
    assert list(metadata) == ["status", "trend", "roc_auc"]
    assert shown(metadata, "trend").startswith("![roc_auc](<data:image/svg+xml,")
    assert with_trend({"status": "within bounds"}, None) == {"status": "within bounds"}
