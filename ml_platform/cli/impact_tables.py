"""What rows and versions touched, as tables."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ml_platform.cli.printing import moment_in, range_in, show_line, show_table

if TYPE_CHECKING:
    from ml_platform.impact import DataImpact, Subject, VersionImpact
    from ml_platform.registry import Promotion
    from ml_platform.spec.use_case import UseCase
    from ml_platform.spec.windows import Window

MOST_RANGES = 3
TABLES: tuple[str, ...] = (
    "table",
    "may have read it",
    "changed since",
    "computed before it, not since",
)


def show_data_impact(case: "UseCase", impact: "DataImpact") -> None:
    """Partitions by table, then versions and decisions, then what the versions wrote."""
    _show_subject(case, impact.subject)
    rows: list[tuple[str, ...]] = []
    for table, each in impact.tables.items():
        cells: tuple[str, ...] = (
            table,
            _partitions(case, each.read),
            _partitions(case, each.changed),
            _partitions(case, each.before),
        )
        if impact.dependents is not None:
            found = impact.dependents.get(table, {})
            depend = f"{sum(found.values()):,} in {_partitions(case, list(found))}"
            cells = (*cells, depend if found else "")
        rows.append(cells)
    header = TABLES if impact.dependents is None else (*TABLES, "rows that depend on it")
    show_table(header, rows)
    zone = case.calendar.timezone
    show_table(
        ("trained on it", "cutoff"),
        [(f"version {each.version}", moment_in(zone, each.cutoff)) for each in impact.trained],
    )
    _show_decisions(case, "decided about these versions, or against one", impact.decisions)
    show_table(
        ("by these versions", "partitions"),
        [(table, _partitions(case, windows)) for table, windows in impact.by_versions.items()],
    )


def show_version_impact(case: "UseCase", impact: "VersionImpact") -> None:
    """Where it served, what it wrote, what was decided about it and with it."""
    zone = case.calendar.timezone
    cutoff = moment_in(zone, impact.version.cutoff)
    show_line(f"version {impact.version.version} of {case.name}, cutoff {cutoff}")
    for since, until in impact.served:
        end = f"to {moment_in(zone, until)}" if until else "and serves now"
        show_line(f"champion from {moment_in(zone, since)} {end}")
    if not impact.served:
        show_line("it is champion of no partition")
    show_table(
        ("table", "rows", "partitions"),
        [
            (table, f"{sum(rows.values()):,}", _partitions(case, list(rows)))
            for table, rows in impact.tables.items()
        ],
    )
    _show_decisions(case, "decided about it", impact.decisions)
    _show_decisions(case, "compared with it as champion", impact.compared)
    _show_decisions(case, "rolled back from it", impact.rolled_back)
    show_table(
        ("tried beside the champion", "since", "by", "why"),
        [
            (each.mode, moment_in(zone, each.decided_at), each.decided_by, each.reason)
            for each in impact.tried
        ],
    )


def _show_subject(case: "UseCase", subject: "Subject") -> None:
    zone = case.calendar.timezone
    show_line(f"{case.name}: {subject.named}")
    if subject.landed:
        kept = f"{subject.rows:,} kept the contract, {subject.quarantined:,} in quarantine"
        show_line(f"{subject.landed:,} rows landed, {kept}")
    known = f", known from {moment_in(zone, subject.known_from)}" if subject.known_from else ""
    if subject.spans:
        show_line(f"in {_partitions(case, list(subject.spans))}{known}")
    if subject.waiting:
        show_line(f"not ingested yet: {_partitions(case, subject.waiting)}")
    show_table(
        ("version", "from", "until", "file", "row"),
        [
            (str(place), moment_in(zone, each.known_from),
             moment_in(zone, each.known_until) if each.known_until else "now",
             each.file, str(each.number))
            for place, each in enumerate(subject.versions, 1)
        ],
    )  # fmt: skip


def _show_decisions(case: "UseCase", about: str, decisions: Sequence["Promotion"]) -> None:
    zone = case.calendar.timezone
    show_table(
        (about, "decision", "decided", "by"),
        [
            (f"version {each.version}", each.outcome, moment_in(zone, each.decided_at),
             each.decided_by)
            for each in decisions
        ],
    )  # fmt: skip


def _partitions(case: "UseCase", windows: Collection["Window"]) -> str:
    """How many, and the ranges that they are."""
    if not windows:
        return ""
    named = [range_in(case.calendar.keys(each)) for each in case.calendar.ranges(windows)]
    more = f", and {len(named) - MOST_RANGES} more" if len(named) > MOST_RANGES else ""
    return f"{len(windows)}: {', '.join(named[:MOST_RANGES])}{more}"
