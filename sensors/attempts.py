"""Which attempt a run is of what a sensor asks for: one that failed is asked for again, later.

Dagster starts nothing twice for one run key, also where the first run never started. So each
attempt has a key of its own.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

# A name that Dagster keeps to itself; tests/test_sensors_alerts.py fails when it moves.
from dagster._core.storage.tags import WILL_RETRY_TAG

ATTEMPT_OF = "ml_platform/attempt_of"
"""Tag of a run: what it is an attempt of, whichever attempt."""
FIRST_WAIT = timedelta(minutes=2)
LONGEST_WAIT = timedelta(hours=6)
SEPARATOR = "/"
MOST_ATTEMPTS_SEEN = 50
LOST = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


@dataclass(frozen=True)
class Attempt:
    """The next attempt of something that a sensor asks for."""

    run_key: str
    tags: dict[str, str]
    waits_for: str = ""
    """Why it is not made yet; empty where it may be."""


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
    records = instance.get_run_records(
        dg.RunsFilter(tags={ATTEMPT_OF: subject}, statuses=LOST), limit=MOST_ATTEMPTS_SEEN
    )
    return [r for r in records if r.dagster_run.tags.get(WILL_RETRY_TAG) != "true"]
