"""What people say of predictions that wait for them: once each, and only of those that wait.

Two who answer at the same moment, in two workers, may both be taken: neither sees the other's
answer before it is written. Which label holds is then decided as between any two.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from ml_platform.errors import NotReviewed, WaitsNoMore
from ml_platform.features import instant, windows_sql
from ml_platform.serving.calls import event_time_of
from ml_platform.serving.records.audit_notes import AuditNotes
from ml_platform.serving.records.feedback import REVIEW, SKIP, FeedbackInbox, Said
from ml_platform.serving.records.items import KINDS
from ml_platform.serving.records.outbox import Outbox
from ml_platform.serving.records.review import ReviewQueue, uncertain_sql
from ml_platform.serving.records.unread import FeedbackRecord, unread_feedback
from ml_platform.settings import ServingSettings, Settings
from ml_platform.spec.use_case import FEEDBACK, REQUESTS, UseCase
from ml_platform.storage import Lake


@contextmanager
def answering(
    settings: Settings,
    serving: ServingSettings,
    lake: Lake,
    case: UseCase,
    classes: Callable[[], frozenset[str]],
) -> Iterator["ReviewAnswers"]:
    """What takes answers outside of a service; at the end they are landed and in the audit.

    classes: what a label can be, asked where the task has classes.
    """
    outbox, notes = Outbox(lake, [case]), AuditNotes(settings, lake)
    inbox = FeedbackInbox(settings, serving, [case], notes, lambda _: classes())
    try:
        yield ReviewAnswers(lake, ReviewQueue(lake, [case]), inbox)
    finally:
        inbox.close()
        notes.close()
        outbox.empty()
    notes.deliver()


@dataclass(frozen=True)
class ReviewAnswers:
    """Takes answers; threads may share it."""

    lake: Lake
    queue: ReviewQueue
    inbox: FeedbackInbox

    def label(
        self, name: str, prediction_id: str, label: Any, said: Said, *, corrects: bool = False
    ) -> bool:
        """Keep a person's label of a prediction; false where they had said just that before.

        corrects: take it also where somebody has answered or skipped the prediction before.
        Raises NotReviewed where it never waited, WaitsNoMore where it does not any more, and as
        `FeedbackInbox.take` does.
        """
        before = self._before(name, prediction_id)
        if before is not None:
            if _said_by(before, said, KINDS) and before.label == label:
                return False
            if not corrects:
                raise WaitsNoMore(f"{_no_more(before)}; to change that, send a correction")
        kind = "correction" if corrects else "label"
        self.inbox.answer(name, prediction_id, label, kind, said)
        return True

    def skip(self, name: str, prediction_id: str, said: Said) -> bool:
        """Note that a person has no answer; returns and raises as `label` does."""
        before = self._before(name, prediction_id)
        if before is not None:
            if _said_by(before, said, (SKIP,)):
                return False
            raise WaitsNoMore(_no_more(before))
        self.inbox.skip(name, prediction_id, said)
        return True

    def _before(self, name: str, prediction_id: str) -> FeedbackRecord | None:
        """What was said of a prediction last; None while it waits for somebody to say something."""
        case = self.queue.require(name)
        event_time = event_time_of(prediction_id)
        with self.lake.cursor(case.timezone) as cursor:
            answered_at = self._asked(cursor, case, prediction_id, event_time)
            unread = unread_feedback(self.lake, cursor, case, answered_at)
            said = [given for given in unread if given.prediction_id == prediction_id]
            said += self._stored(cursor, case, prediction_id, event_time)
        if said:
            return max(said, key=lambda given: (given.origin == REVIEW, given.received_at))
        assert case.serving.review is not None
        within = case.serving.review.within
        if answered_at < within.before(datetime.now(UTC), case.calendar.timezone):
            raise WaitsNoMore(
                f"prediction '{prediction_id}' waits no more: it was made at "
                f"{_shown(answered_at)}, longer ago than {within}; say its label as feedback"
            )
        return None

    def _asked(
        self,
        cursor: duckdb.DuckDBPyConnection,
        case: UseCase,
        prediction_id: str,
        event_time: datetime,
    ) -> datetime:
        """When a prediction was made that the queue has, or had."""
        row = None
        if event_time in case.partitions and REQUESTS in self.lake.tables(cursor, case.name):
            relation = self.lake.relation(cursor, case.name, REQUESTS)
            row = cursor.execute(
                f"""SELECT answered_at, mode = 'live' AND {uncertain_sql(case)} FROM {relation}
                WHERE {_at(case, event_time)} AND prediction_id = $1""",
                [prediction_id],
            ).fetchone()
        if row is None:
            raise NotReviewed(
                f"no prediction '{prediction_id}' of {case.name} waits for a person: there is none "
                "of that id, or it has not been ingested yet"
            )
        answered_at, waited = row
        if not waited:
            raise NotReviewed(
                f"prediction '{prediction_id}' of {case.name} never waited for a person, as it was "
                "certain enough or answered nobody; say its label as feedback"
            )
        assert isinstance(answered_at, datetime)
        return answered_at

    def _stored(
        self,
        cursor: duckdb.DuckDBPyConnection,
        case: UseCase,
        prediction_id: str,
        event_time: datetime,
    ) -> list[FeedbackRecord]:
        if FEEDBACK not in self.lake.tables(cursor, case.name):
            return []
        rows = cursor.execute(
            f"""SELECT kind, origin, received_at, prediction_id, label, given_by
            FROM {self.lake.relation(cursor, case.name, FEEDBACK)}
            WHERE {_at(case, event_time)} AND prediction_id = $1""",
            [prediction_id],
        ).fetchall()
        return [FeedbackRecord(*row) for row in rows]


def _said_by(given: FeedbackRecord, said: Said, kinds: tuple[str, ...]) -> bool:
    """Whether the same person said something of these kinds, as an answer."""
    return given.origin == said.origin and given.given_by == said.by and given.kind in kinds


def _no_more(given: FeedbackRecord) -> str:
    when = _shown(given.received_at)
    label = str(given.label).lower() if isinstance(given.label, bool) else given.label
    did = f"answered '{label}'" if given.origin == REVIEW else f"said '{label}' as feedback"
    if given.kind == SKIP:
        did = "skipped it"
    by = given.given_by or "somebody"
    return f"prediction '{given.prediction_id}' waits no more: {by} {did} at {when}"


def _at(case: UseCase, event_time: datetime) -> str:
    # Only the files of one window are opened.
    window = case.calendar.window_at(event_time)
    return f"{windows_sql(case, window)} AND event_time = {instant(event_time)}"


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
