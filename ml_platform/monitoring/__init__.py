"""What happens to a champion after its promotion: drift of what it is given, how right it was."""

from ml_platform.monitoring.drift import (
    DriftRun,
    WindowDrift,
    drift_table,
    report_drift,
)
from ml_platform.monitoring.drift_page import render_drift_html, report_path, report_url
from ml_platform.monitoring.performance import (
    PerformanceReport,
    PerformanceRun,
    performance_table,
    report_performance,
)
from ml_platform.monitoring.scores import ColumnDrift
from ml_platform.monitoring.skew import Skew, compare_online
from ml_platform.monitoring.stored_drift import StoredDrift, stored_drift
from ml_platform.monitoring.trend import (
    Trend,
    describe_trend,
    drift_trend,
    performance_trend,
)
from ml_platform.monitoring.verdicts import Cause, retraining_verdicts, window_verdicts

__all__ = [
    "Cause",
    "ColumnDrift",
    "DriftRun",
    "PerformanceReport",
    "PerformanceRun",
    "Skew",
    "StoredDrift",
    "Trend",
    "WindowDrift",
    "compare_online",
    "describe_trend",
    "drift_table",
    "drift_trend",
    "performance_table",
    "performance_trend",
    "render_drift_html",
    "report_drift",
    "report_path",
    "report_performance",
    "report_url",
    "retraining_verdicts",
    "stored_drift",
    "window_verdicts",
]
