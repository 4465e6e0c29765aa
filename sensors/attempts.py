"""Which attempt a run is of what a sensor or a schedule asks for: a lost one is asked for again.

Dagster starts nothing twice for one run key, also where the first run never started. So each
attempt has a key of its own. Its own run retries do not do here: they follow at once, all of them
within a minute of a fault that lasts for an hour; and where the code server is unavailable at that
moment, as it is where a run never started, Dagster gives up and marks the run as not to be retried.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from ml_platform.orchestrator import ATTEMPT_OF
from ml_platform.orchestrator.records import WILL_RETRY
from ml_platform.spec.use_case import UseCase

RETRIED_BY = "ml_platform/retried_by"
"""Tag of a run that is asked for by one and, where it is lost, again by another sensor: its name.

A schedule fires only at its times, and the rollback sensor follows each rollback once.
"""
FIRST_WAIT = timedelta(minutes=2)
LONGEST_WAIT = timedelta(hours=6)
SEPARATOR = "/"
LOST = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


@dataclass(frozen=True)
class Attempt:
    """The next attempt of something that is asked for."""

    run_key: str
    tags: dict[str, str]
    waits_for: str = ""
    """Why it is not made yet; empty where it may be."""


def tags_of_retried(use_case: UseCase, what: str, asked_by: str) -> dict[str, str]:
    """Tags of a run that the sensor of retries asks for again where it is lost.

    what: names it, the same for every attempt; asked_by: the sensor or schedule.
    """
    return {ATTEMPT_OF: f"{asked_by}{SEPARATOR}{what}", RETRIED_BY: retrier_of(use_case)}


def retrier_of(use_case: UseCase) -> str:
    """The name of the sensor of retries."""
    return f"{use_case.name}_retries"


def next_attempt(instance: dg.DagsterInstance, what: str, asked_by: str, now: datetime) -> Attempt:
    """The attempt that follows the ones that failed, each after twice as long a wait.

    what: names it, the same for every attempt; asked_by: the sensor.
    """
    subject = f"{asked_by}{SEPARATOR}{what}"
    lost = lost_attempts(instance, subject)
    tags = {ATTEMPT_OF: subject}
    if not lost:
        return Attempt(what, tags)
    last = max(lost, key=lambda record: record.update_timestamp)
    ended = last.update_timestamp.replace(tzinfo=UTC)
    due = ended + min(FIRST_WAIT * 2 ** (len(lost) - 1), LONGEST_WAIT)
    waits = (
        f"attempt {len(lost)}, run {last.dagster_run.run_id}, failed at {ended:%Y-%m-%d %H:%M} "
        f"UTC; the next one follows at {due:%H:%M} UTC"
    )
    return Attempt(f"{what}-{len(lost)}", tags, waits if now < due else "")


def lost_attempts(instance: dg.DagsterInstance, subject: str) -> list[dg.RunRecord]:
    """Attempts that failed, never started or were ended, but for those that Dagster tries again."""
    # All of them: their number is part of the next one's run key, which may not come twice.
    records = instance.get_run_records(dg.RunsFilter(tags={ATTEMPT_OF: subject}, statuses=LOST))
    return [r for r in records if r.dagster_run.tags.get(WILL_RETRY) != "true"]
