"""Replay a range of history under several policies; nothing of the platform is written to."""

from collections.abc import Callable, Sequence

from ml_platform.errors import EmptyPartition
from ml_platform.replay.comparison import PolicyComparison, compare
from ml_platform.replay.replay_inputs import ReplayInputs, looking_back
from ml_platform.replay.replay_request import Policy
from ml_platform.replay.versions import Versions
from ml_platform.replay.walk import Walked, walk
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake


def replay(
    lake: Lake,
    use_case: UseCase,
    window_range: Window,
    policies: Sequence[Policy],
    *,
    threads: int,
    progress: Callable[[Walked], None] = lambda _: None,
) -> PolicyComparison:
    """Live through a range under each policy, and hold side by side what came of it.

    threads: of model fitting, as the live settings have it; progress: called with each policy as it
    is through. Models are kept in memory and nothing is written: neither tables nor registry.
    Raises EmptyPartition, TableNotFound, TrainingFailed or LabelsNotArrived where there is too
    little to replay.
    """
    known = ReplayInputs.read(lake, use_case, looking_back(use_case, window_range))
    rows = known.positions(window_range)
    if rows.start == rows.stop:
        raise EmptyPartition(
            f"{use_case.name} has no examples in {window_range}; ingest some first"
        )
    versions = Versions(known, threads)
    walks = []
    for policy in policies:
        walks.append(walk(policy, use_case, versions, window_range))
        progress(walks[-1])
    return compare(use_case, versions, walks, window_range)
