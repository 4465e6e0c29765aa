"""Everything that the service writes down: requests and feedback."""

import asyncio
from dataclasses import dataclass

from ml_platform.serving.feedback import FeedbackInbox
from ml_platform.serving.outbox import Outbox
from ml_platform.serving.request_log import RequestLog
from ml_platform.serving.review import ReviewQueue

SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class Records:
    """What lands of a service."""

    requests: RequestLog
    feedback: FeedbackInbox
    reviews: ReviewQueue
    outbox: Outbox

    async def land_old(self) -> None:
        """Land files as they grow old, until cancelled."""
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            await asyncio.to_thread(self._land_old)

    def close(self) -> None:
        """Land everything."""
        self.requests.close()
        self.feedback.close()
        self.outbox.empty()

    def _land_old(self) -> None:
        self.requests.land_old()
        self.feedback.land_old()
        self.outbox.empty()
