"""Everything that the service writes down: requests and feedback."""

import asyncio
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from ml_platform.serving.records.answers import ReviewAnswers
from ml_platform.serving.records.audit_notes import AuditNotes
from ml_platform.serving.records.feedback import FeedbackInbox
from ml_platform.serving.records.outbox import Outbox
from ml_platform.serving.records.request_log import RequestLog
from ml_platform.serving.records.review import ReviewQueue

SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class Records:
    """What lands of a service."""

    requests: RequestLog
    feedback: FeedbackInbox
    reviews: ReviewQueue
    answers: ReviewAnswers
    outbox: Outbox
    notes: AuditNotes

    async def land_old(self, log: FilteringBoundLogger) -> None:
        """Land files as they grow old, and what was noted for the audit, until cancelled."""
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            await asyncio.to_thread(self._land_old)
            await asyncio.to_thread(self.notes.try_to_deliver, log)

    def close(self) -> None:
        """Land everything."""
        self.requests.close()
        self.feedback.close()
        self.outbox.empty()
        self.notes.close()

    def _land_old(self) -> None:
        self.requests.land_old()
        self.feedback.land_old()
        self.outbox.empty()
