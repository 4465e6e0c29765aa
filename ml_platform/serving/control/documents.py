"""How what is under way is shown: one shape for runs, backfills and rollbacks."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NotRequired, TypedDict, cast

from msgspec import Meta

from ml_platform.errors import RunUnknown
from ml_platform.serving.callbacks import CallbackState

Status = Literal["queued", "running", "ending", "succeeded", "failed", "ended"]
OVER = frozenset[str]({"succeeded", "failed", "ended"})

Visible = Callable[[str], bool]
"""Whether the one who asks may know of a use case."""


class PartitionProgress(TypedDict):
    """How many partitions of a run are done."""

    first: NotRequired[str]
    last: NotRequired[str]
    done: NotRequired[int | None]
    of: NotRequired[Annotated[int | None, Meta(description="Null where it is not known.")]]


class RowProgress(TypedDict):
    """How many rows of a batch by reference are done."""

    done: int
    of: int | None


class PipelineRun(TypedDict):
    """The published pipeline that a run is of."""

    name: str
    version: Annotated[str | None, Meta(description="Commit of its code.")]


class ControlRun(TypedDict):
    """A run, a backfill, a rollback or a batch by reference."""

    id: str
    use_case: str
    status: Status
    is_over: bool
    tables: NotRequired[list[str]]
    partitions: NotRequired[PartitionProgress | None]
    left: NotRequired[Annotated[dict[str, int], Meta(description="PartitionProgress by table.")]]
    rows: NotRequired[RowProgress]
    answers: NotRequired[str]
    version: NotRequired[int]
    by: NotRequired[str | None]
    reason: NotRequired[str | None]
    created_at: NotRequired[str | None]
    ended_at: NotRequired[str | None]
    failures: NotRequired[list[str]]
    pipeline: NotRequired[PipelineRun]
    parameters: NotRequired[
        Annotated[dict[str, Any] | None, Meta(description="Defaults included.")]
    ]
    callbacks: NotRequired[list[CallbackState]]


class Links(TypedDict):
    """Where it is looked at."""

    self: str
    dagster: NotRequired[Annotated[str, Meta(description="Where a person sees it.")]]


class Look(TypedDict):
    """What is under way."""

    run: ControlRun
    links: Links


Decision = TypedDict(
    "Decision",
    {"version": int, "decision": str, "from": str, "by": str, "reason": str, "at": str},
)


class PartitionRange(TypedDict):
    """Consecutive partitions, by their first and last keys."""

    first: str
    last: str


class Done(TypedDict, total=False):
    """What was decided, or would be done; `run` is null where nothing is to do."""

    run: None
    dry_run: bool
    decided: Decision
    would: Decision
    replaced: Annotated[list[int], Meta(description="Versions whose predictions are replaced.")]
    ends_canary: int | None
    partitions: int
    recomputed: dict[str, list[PartitionRange]]
    tables: Annotated[
        dict[str, dict[str, Any]], Meta(description="What is to be computed of each, and why.")
    ]
    parameters: dict[str, Any]


def document(run_id: str, use_case: str, status: str, more: Mapping[str, Any], link: str) -> Look:
    """A run, where to look at it, and where a person sees it."""
    known = {"id": run_id, "use_case": use_case, "status": status, "is_over": status in OVER}
    run = cast("ControlRun", {**known, **more})
    return {"run": run, "links": {"self": path_of(run_id), "dagster": link}}


def path_of(run_id: str) -> str:
    """Where it is looked at."""
    return f"/control/runs/{run_id}"


def unknown(run_id: str) -> RunUnknown:
    """That there is no such run; the same where there is one that the caller may not know of."""
    return RunUnknown(f"there is no run '{run_id[:60]}' of a use case that you may read")
