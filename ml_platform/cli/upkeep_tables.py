"""What upkeep did, or would do, as tables for people."""

import sys
from typing import TYPE_CHECKING

from ml_platform.cli import printing

if TYPE_CHECKING:
    from ml_platform.upkeep import LakeUpkeep


def show_upkeep(report: "LakeUpkeep", *, dry_run: bool) -> None:
    """What became of snapshots and files; problems go to standard error."""
    would = "would be " if dry_run else ""
    for each in report.dropped:
        printing.show_line(
            f"{each.use_case.name}.{each.table}: {each.rows:,} rows of {each.windows:,} windows "
            f"before {each.before:%Y-%m-%d %H:%M} UTC {would}deleted, {each.reason}"
        )
    if (plan := report.expiry) is not None:
        printing.show_table(
            ("snapshots", "kept since"), [(f"{n:,}", why) for why, n in plan.reasons.items()]
        )
        expired = len(plan.expired) if dry_run else report.expired
        printing.show_line(f"snapshots: {plan.kept:,} kept, {expired:,} {would}expired")
    if report.compacted:
        heading = ("table", "files before", "files now", "bytes before", "bytes now")
        rows = [
            (
                each.before.name, f"{each.before.files:,}", f"{each.after.files:,}",
                f"{each.before.bytes:,}", f"{each.after.bytes:,}",
            )
            for each in report.compacted
        ]  # fmt: skip
        printing.show_table(heading, rows)
    files = sum(each.files for each in report.files)
    printing.show_line(f"files of the newest snapshot: {files:,} of {len(report.files)} tables")
    if (cleaned := report.cleaned) is not None:
        printing.show_line(
            f"files {would}deleted: {len(cleaned.scheduled):,} that no snapshot needs, "
            f"{len(cleaned.orphans.files):,} that nothing names"
        )
    if report.old_logs:
        size = sum(each.file.size for each in report.old_logs) / 2**20
        printing.show_line(
            f"landing files of the service {would}deleted: {len(report.old_logs):,} with "
            f"{size:,.1f} MiB, ingested and older than their use case keeps them"
        )
    if report.mlflow_runs:
        printing.show_line(
            f"runs of MLflow {would}deleted: {len(report.mlflow_runs):,} that no version names"
        )
    for problem in report.problems:
        print(f"problem: {problem}", file=sys.stderr)
