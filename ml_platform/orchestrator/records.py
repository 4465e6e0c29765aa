"""What Dagster says of runs, backfills and partitions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
PARTITION = "dagster/partition"
WILL_RETRY = "dagster/will_retry"
"""Tag of a failed run: "true" where Dagster itself tries it again."""
ATTEMPT_OF = "ml_platform/attempt_of"
"""Tag of a run: what it is an attempt of, whichever attempt."""


class RunStatus(StrEnum):
    """Where a run is in its life, in Dagster's words."""

    queued = "QUEUED"
    not_started = "NOT_STARTED"
    managed = "MANAGED"
    starting = "STARTING"
    started = "STARTED"
    suspended = "SUSPENDED"
    canceling = "CANCELING"
    success = "SUCCESS"
    failure = "FAILURE"
    canceled = "CANCELED"

    @property
    def is_over(self) -> bool:
        return self in {RunStatus.success, RunStatus.failure, RunStatus.canceled}


UNDER_WAY = tuple(status for status in RunStatus if not status.is_over)


class StepStatus(StrEnum):
    """What became of one step of a run."""

    in_progress = "IN_PROGRESS"
    success = "SUCCESS"
    failure = "FAILURE"
    skipped = "SKIPPED"


BACKFILL_UNDER_WAY = ("REQUESTED", "CANCELING", "FAILING")


@dataclass(frozen=True)
class Run:
    """A run as it was when it was asked for."""

    id: str
    status: RunStatus
    tags: Mapping[str, str]
    tables: tuple[str, ...]
    """Assets that it was asked to materialise, as `<use case>/<table>`; empty for a plain job."""
    created_at: datetime
    ended_at: datetime | None
    job: str = ""
    materialized: int = 0
    """Materialisations so far, one for each partition of each table."""
    steps: Mapping[str, StepStatus] = field(default_factory=dict)
    """By the name of the table; only steps that have begun."""

    @property
    def attempt_of(self) -> str:
        """What it is an attempt of; empty where nobody asks for it again."""
        return self.tags.get(ATTEMPT_OF, "")

    @property
    def failed_for_good(self) -> bool:
        """Whether it failed, or never started, and Dagster does not try it again."""
        return self.status is RunStatus.failure and self.tags.get(WILL_RETRY) != "true"

    @property
    def partitions(self) -> tuple[str, str] | None:
        """First and last partition that it is about; None where it has none."""
        if RANGE_START in self.tags and RANGE_END in self.tags:
            return self.tags[RANGE_START], self.tags[RANGE_END]
        if PARTITION in self.tags:
            return self.tags[PARTITION], self.tags[PARTITION]
        return None

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> "Run":
        """A run from GraphQL; fields that were not asked for stay empty."""
        stats = said.get("stats") or {}
        return cls(
            id=said["runId"],
            status=RunStatus(said["status"]),
            tags={tag["key"]: tag["value"] for tag in said["tags"]},
            tables=tuple("/".join(key["path"]) for key in said["assetSelection"] or ()),
            created_at=moment(said["creationTime"]),
            ended_at=moment(said["endTime"]) if said["endTime"] else None,
            job=said.get("jobName") or "",
            materialized=stats.get("materializations") or 0,
            steps={
                table_of_step(step["stepKey"]): StepStatus(step["status"])
                for step in said.get("stepStats") or ()
                if step["status"] in set(StepStatus)
            },
        )


@dataclass(frozen=True)
class Backfill:
    """A backfill that Dagster's daemon carries out."""

    id: str
    status: str
    """REQUESTED, then COMPLETED_SUCCESS, COMPLETED_FAILED, FAILED or CANCELED."""
    tags: Mapping[str, str]
    tables: tuple[str, ...]
    """Assets that it materialises, as `<use case>/<table>`; empty for one of a plain job."""
    created_at: datetime
    ended_at: datetime | None
    error: str | None = None
    targeted: int = 0
    """Partitions of all its assets."""
    materialized: int = 0
    failed: int = 0
    run_ids: tuple[str, ...] = ()

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> "Backfill":
        """A backfill from GraphQL; fields that were not asked for stay empty."""
        data = said.get("assetBackfillData") or {}
        counts = [each for each in data.get("assetBackfillStatuses", ()) if each]
        return cls(
            id=said["id"],
            status=said["status"],
            tags={tag["key"]: tag["value"] for tag in said["tags"]},
            tables=tuple("/".join(key["path"]) for key in said["assetSelection"] or ()),
            created_at=moment(said["timestamp"]),
            ended_at=moment(said["endTimestamp"]) if said["endTimestamp"] else None,
            error=(said["error"] or {}).get("message"),
            targeted=sum(each["numPartitionsTargeted"] for each in counts),
            materialized=sum(each["numPartitionsMaterialized"] for each in counts),
            failed=sum(each["numPartitionsFailed"] for each in counts),
            run_ids=tuple(run["runId"] for run in said.get("runs", ())),
        )

    @property
    def is_over(self) -> bool:
        return self.status not in BACKFILL_UNDER_WAY

    @property
    def succeeded(self) -> bool:
        return self.status in {"COMPLETED", "COMPLETED_SUCCESS"}


@dataclass(frozen=True)
class AssetPartitions:
    """Partitions of one asset by what Dagster knows of them: (first, last) keys, in order."""

    materialized: tuple[tuple[str, str], ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    """Those whose latest run failed, whatever was there before."""
    materializing: tuple[tuple[str, str], ...] = ()


def moment(seconds: float) -> datetime:
    """An instant from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def table_of_step(step: str) -> str:
    """`trips/pace_features` from the name that Dagster gives the step of an asset."""
    return step.replace("__", "/", 1)
