"""An impact as a document that programs read: its keys stay."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from ml_platform.impact.data_impact import DataImpact
from ml_platform.impact.subjects import Subject
from ml_platform.impact.versions import Rows, VersionImpact
from ml_platform.registry import Promotion
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window

Document = dict[str, Any]


def data_document(use_case: UseCase, impact: DataImpact) -> Document:
    """What some rows touched; partitions by key, in order of time."""
    return {
        "use_case": use_case.name,
        "subject": _subject(use_case, impact.subject),
        "tables": {
            table: {
                "may_have_read": _keys(use_case, each.read),
                "changed": _keys(use_case, (w for w in each.read if w in each.changed)),
                "computed_before": _keys(use_case, each.before),
                "dependent_rows": None
                if impact.dependents is None
                else _rows(use_case, impact.dependents.get(table, {})),
            }
            for table, each in impact.tables.items()
        },
        "trained_versions": [
            {"version": each.version, "cutoff": each.cutoff.isoformat(), "snapshot": each.snapshot}
            for each in impact.trained
        ],
        "decisions": [_decision(each) for each in impact.decisions],
        "by_these_versions": {
            table: _keys(use_case, windows) for table, windows in impact.by_versions.items()
        },
    }


def version_document(use_case: UseCase, impact: VersionImpact) -> Document:
    """What a model version touched; rows by partition."""
    return {
        "use_case": use_case.name,
        "version": impact.version.version,
        "cutoff": impact.version.cutoff.isoformat(),
        "snapshot": impact.version.snapshot,
        "served": [
            {"from": since.isoformat(), "until": _moment(until)} for since, until in impact.served
        ],
        "decisions": [_decision(each) for each in impact.decisions],
        "compared_as_champion": [_decision(each) for each in impact.compared],
        "ended_by_rollback": [_decision(each) for each in impact.rolled_back],
        "tried": [
            {"mode": each.mode, "share": each.share, "decided_by": each.decided_by,
             "decided_at": each.decided_at.isoformat(), "reason": each.reason}
            for each in impact.tried
        ],
        "tables": {table: _rows(use_case, rows) for table, rows in impact.tables.items()},
    }  # fmt: skip


def _subject(use_case: UseCase, subject: Subject) -> Document:
    return {
        "named": subject.named,
        "source": subject.source,
        "rows": subject.rows,
        "landed_rows": subject.landed,
        "quarantined_rows": subject.quarantined,
        "known_from": _moment(subject.known_from),
        "partitions": [
            {"partition": use_case.calendar.key(window), "rows": span.rows, "snapshot": span.since}
            for window, span in subject.spans.items()
        ],
        "waiting": _keys(use_case, subject.waiting),
        "versions": [
            {"file": each.file, "row": each.number, "event_time": each.event_time.isoformat(),
             "known_from": each.known_from.isoformat(), "known_until": _moment(each.known_until),
             "asked": subject.chosen is None or subject.chosen == place}
            for place, each in enumerate(subject.versions)
        ],
    }  # fmt: skip


def _decision(decision: Promotion) -> Document:
    return {
        "version": decision.version,
        "decision": decision.outcome,
        "decided_at": decision.decided_at.isoformat(),
        "decided_by": decision.decided_by,
        "effective_from": decision.effective_from.isoformat(),
        "reason": decision.reason,
    }


def _keys(use_case: UseCase, windows: Iterable[Window]) -> list[str]:
    return [use_case.calendar.key(window) for window in windows]


def _rows(use_case: UseCase, rows: Rows) -> dict[str, int]:
    return {use_case.calendar.key(window): count for window, count in rows.items()}


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
