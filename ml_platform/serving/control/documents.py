"""How what is under way is told: one shape for runs, backfills and rollbacks."""

from collections.abc import Callable, Mapping
from typing import Any

from ml_platform.errors import RunUnknown

STATUSES = ("queued", "running", "ending", "succeeded", "failed", "ended")
OVER = frozenset({"succeeded", "failed", "ended"})

Visible = Callable[[str], bool]
"""Whether the one who asks may know of a use case."""


def document(
    run_id: str, use_case: str, status: str, more: Mapping[str, Any], link: str
) -> dict[str, Any]:
    """A run, where to look at it, and where a person sees it."""
    known = {"id": run_id, "use_case": use_case, "status": status, "is_over": status in OVER}
    return {"run": {**known, **more}, "links": {"self": path_of(run_id), "dagster": link}}


def path_of(run_id: str) -> str:
    """Where it is looked at."""
    return f"/control/runs/{run_id}"


def unknown(run_id: str) -> RunUnknown:
    """That there is no such run; the same where there is one that the caller may not know of."""
    return RunUnknown(f"there is no run '{run_id[:60]}' of a use case that you may read")
