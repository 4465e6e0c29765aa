"""Health as plain data, with keys that stay."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ml_platform.alerts.freshness import Freshness
from ml_platform.errors import PlatformError, SpecErrors
from ml_platform.monitoring.latest import Latest
from ml_platform.orchestrator.ticks import Failing
from ml_platform.spec.use_case import UseCase
from ml_platform.status.costs import costs_document
from ml_platform.status.dagster import Dagster, owner_of
from ml_platform.status.grouping import AlertGroup, grouped
from ml_platform.status.health import Health, OpenAlert

MOST_ALERTS = 100
"""Single alerts of the document; `alert_count` says how many there are."""
MOST_MEMBERS = 10
"""Keys that a group names, the newest first."""


def health_document(health: Health) -> dict[str, Any]:
    """Partitions by their keys, moments in UTC, shares from 0 to 1; null where nothing is known."""
    case = health.use_case
    champion = health.champion
    monitoring = case.monitoring
    return {
        "use_case": case.name,
        "at": _moment(health.at),
        "timezone": case.timezone,
        "is_over": health.is_over,
        "tables": {table.table: _table(case, table) for table in health.tables},
        "champion": champion
        and {
            "version": champion.version,
            "cutoff": _moment(champion.cutoff),
            "effective_from": _moment(champion.effective_from),
            "decided_by": champion.decided_by,
            "age_days": round(champion.age_days, 3),
            "trained_without": list(champion.left_out),
            "too_good_to_be_true": champion.too_good or None,
        },
        "drift": health.drift
        and {
            **_latest(case, health.drift),
            "share": health.drift.value,
            "limit": monitoring.drift.share,
            "columns_judged": health.drift.rows,
            "columns_drifted": [column.column for column in health.drift.columns],
        },
        "performance": health.performance
        and {
            **_latest(case, health.performance),
            "metric": case.model.metric,
            "value": health.performance.value,
            "min": monitoring.performance.min,
            "max": monitoring.performance.max,
            "labelled": health.performance.rows,
        },
        "quarantine": {
            "limit": monitoring.quarantine.share,
            "partitions": [
                {
                    "source": each.source,
                    "partition": case.calendar.key(each.window),
                    "rows": each.rows,
                    "landed": each.landed,
                    "share": each.share,
                }
                for each in health.quarantine
            ],
        },
        "leak_checks": {
            each.table: {
                "partitions": each.partitions,
                "checked": each.checked,
                "moments": each.moments,
                "rows_compared": each.rows_compared,
                "last_checked_at": _moment(each.last_checked_at),
                "leaks_found": each.found,
            }
            for each in health.leak_checks
        },
        "approvals": [
            {"version": p.version, "since": _moment(p.decided_at), "reason": p.reason}
            for p in health.approvals
        ],
        "alert_count": len(health.alerts),
        "alert_groups": [_group(group) for group in grouped(health.alerts)],
        "alerts": [_alert(alert) for alert in health.alerts[:MOST_ALERTS]],
        "mirrors": [
            {
                "mirror": each.mirror,
                "shows": each.holds,
                "should": each.should,
                "problem": each.problem,
            }
            for each in health.mirrors
        ],
        "costs": costs_document(health.costs),
        "environment": health.environment
        and {
            "state": health.environment.state,
            "requirements": str(health.environment.requirements),
        },
    }


def status_document(
    found: Sequence[Health],
    dagster: Dagster,
    broken: Mapping[str, PlatformError],
    use_cases: list[str],
) -> dict[str, Any]:
    """A deployment: its use cases, the broken ones with their first mistake, and Dagster."""
    return {
        "use_cases": {
            health.use_case.name: {
                **health_document(health),
                "failing": [_failing(f) for f in dagster.of(health.use_case.name, use_cases)],
            }
            for health in found
        },
        "broken": {name: first_problem(error) for name, error in broken.items()},
        "dagster": {
            "url": dagster.url,
            "reachable": dagster.problem is None,
            "failing": [_failing(f) for f in dagster.failing if owner_of(f, use_cases) is None],
        },
    }


def first_problem(error: PlatformError) -> str:
    """What is said of a use case that cannot be shown: of several mistakes the first."""
    return str(error.errors[0] if isinstance(error, SpecErrors) else error)


def _failing(failing: Failing) -> dict[str, Any]:
    return {
        "kind": failing.kind,
        "name": failing.name,
        "failed_at": _moment(failing.failed_at),
        "error": failing.error,
    }


def _table(case: UseCase, table: Freshness) -> Mapping[str, Any]:
    return {
        "newest": case.calendar.key(table.newest) if table.newest else None,
        "behind": len(table.missing),
        "late": len(table.late),
    }


def _latest(case: UseCase, latest: Latest) -> Mapping[str, Any]:
    return {
        "partition": case.calendar.key(latest.window),
        "passed": latest.passed,
        "since": case.calendar.key(latest.streak.since),
        "partitions_in_a_row": latest.streak.windows,
        "versions": list(latest.versions),
        "not_judged_since": {case.calendar.key(u.window): u.why for u in latest.unjudged},
    }


def _group(group: AlertGroup) -> Mapping[str, Any]:
    condition = group.newest.condition
    first, last = group.partitions
    return {
        "kind": condition.kind,
        "severity": condition.severity,
        "title": group.title,
        "cause": condition.cause or None,
        "count": len(group.alerts),
        "notified": len(group.notified),
        "since": _moment(group.since),
        "first_partition": first or None,
        "last_partition": last or None,
        "newest": [a.condition.key for a in group.alerts[: -MOST_MEMBERS - 1 : -1]],
    }


def _alert(alert: OpenAlert) -> Mapping[str, Any]:
    condition = alert.condition
    return {
        "key": condition.key,
        "kind": condition.kind,
        "severity": condition.severity,
        "title": condition.title,
        "since": _moment(condition.since),
        "noted_at": _moment(alert.noted_at) if alert.noted_at else None,
        "notified_at": _moment(alert.notified_at) if alert.notified_at else None,
        "link": condition.link.split("\n")[0],
    }


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
