"""The review queue: uncertain predictions that wait for a person.

What was asked is read from the lake, what was answered from the lake and from the files of
feedback that have not been ingested yet, so that nobody is asked twice.

Neither is read further back than `review.within`. DuckLake knows the least and the greatest value
of a column in each file, and `answered_at` and `received_at` rise with time: of a year of requests
only the files are opened that hold something of the last weeks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ml_platform.errors import NotServed, RequestRefused
from ml_platform.features import instant
from ml_platform.serving.records.unread import unread_feedback
from ml_platform.spec.logged import logged_columns
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import FEEDBACK, REQUESTS, UseCase
from ml_platform.storage import Lake

NOT_SHOWN = frozenset({"request_id", "latency_ms", "protocol", "mode", "by_key"})
MOST_LISTED = 1000


@dataclass(frozen=True)
class Uncertain:
    """A prediction that waits for an answer."""

    prediction_id: str
    answered_at: datetime
    columns: dict[str, Any]
    """Everything else that a person may want to see: entity, inputs, prediction."""


class ReviewQueue:
    """What waits for a person, by use case; threads may share it."""

    def __init__(self, lake: Lake, use_cases: Iterable[UseCase]) -> None:
        self._lake = lake
        self._cases = {c.name: c for c in use_cases if c.serving.review is not None}

    def waiting(self, name: str, limit: int = 50) -> list[Uncertain]:
        """Predictions that nobody answered or skipped, those that were made last first.

        Those that were made longer ago than `review.within` do not wait any more.
        Raises NotServed where nothing is reviewed, RequestRefused for an odd limit.
        """
        case = self.require(name)
        if not 1 <= limit <= MOST_LISTED:
            raise RequestRefused(f"`limit` should be from 1 to {MOST_LISTED}")
        return self._read(case, limit)

    def require(self, name: str) -> UseCase:
        """The use case, if its predictions are reviewed; NotServed."""
        if name not in self._cases:
            known = ", ".join(self._cases) or "none"
            raise NotServed(
                f"no use case '{name[:60]}' has a review queue, which `serving.review` declares; "
                f"there are: {known}"
            )
        return self._cases[name]

    def _read(self, case: UseCase, limit: int) -> list[Uncertain]:
        with self._lake.cursor(case.timezone) as cursor:
            tables = self._lake.tables(cursor, case.name)
            if REQUESTS not in tables:
                return []
            review = case.serving.review
            assert review is not None
            since = review.within.before(datetime.now(UTC), case.calendar.timezone)
            unread = unread_feedback(self._lake, cursor, case, since)
            fresh = [given.prediction_id for given in unread if given.prediction_id is not None]
            relation = self._lake.relation(cursor, case.name, REQUESTS)
            answered = "SELECT unnest($1::VARCHAR[])"
            if FEEDBACK in tables:
                stored = self._lake.relation(cursor, case.name, FEEDBACK)
                # What is said of a prediction is received after it was answered.
                there = f"received_at >= {instant(since)} AND prediction_id IS NOT NULL"
                answered += f" UNION ALL SELECT prediction_id FROM {stored} WHERE {there}"
            columns = [name for name in logged_columns(case) if name not in NOT_SHOWN]
            rows = cursor.execute(
                f"""SELECT {", ".join(quote(name) for name in columns)} FROM {relation}
                WHERE answered_at >= {instant(since)} AND mode = 'live'
                AND {uncertain_sql(case)}
                AND prediction_id NOT IN ({answered})
                ORDER BY answered_at DESC, prediction_id LIMIT {limit}""",
                [fresh],
            ).fetchall()
        found = (dict(zip(columns, row, strict=True)) for row in rows)
        return [Uncertain(r.pop("prediction_id"), r.pop("answered_at"), r) for r in found]


def uncertain_sql(use_case: UseCase) -> str:
    """Predicate that holds for the rows of `requests` that a person should look at."""
    review = use_case.serving.review
    if review and review.uncertain:
        low, high = review.uncertain
        return f"probability BETWEEN {low!r} AND {high!r}"
    if review and review.below is not None:
        # JSON text of an object: class to probability.
        largest = "list_max(json_extract(probabilities, '$.*')::DOUBLE[])"
        return f"{largest} < {review.below!r}"
    return "false"
