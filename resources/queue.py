"""In which turn queued runs start, so that no use case waits for a backfill of another."""

from dagster import DagsterRun, QueuedRunCoordinator

from ml_platform_dagster.resources.private import BACKFILL, PRIORITY, SubmitRunContext

USE_CASE = "ml_platform/use_case"
"""Tag of each run whose assets are those of one use case; the queue limits runs by its value."""
BEHIND_OTHERS = "-1"


class SharedRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue, whose runs name their use case, and in which those of backfills give way.

    Dagster starts runs by priority, then by age, and counts running ones by the value of a tag. A
    backfill of years queues hundreds of runs before anything that sensors ask for later: by the
    priority set here the next place that becomes free is theirs, and by `tag_concurrency_limits`
    on `USE_CASE` no use case takes all places. A priority that a run already has is kept.
    """

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Queue a run with the tags that its turn depends on."""
        run = context.dagster_run
        tags = {name: value for name, value in queue_tags(run).items() if name not in run.tags}
        if tags:
            self._instance.add_run_tags(run.run_id, tags)
        return super().submit_run(context)


def queue_tags(run: DagsterRun) -> dict[str, str]:
    """Tags that the turn of a run depends on."""
    tags = {PRIORITY: BEHIND_OTHERS} if BACKFILL in run.tags else {}
    use_cases = {key.path[0] for key in run.asset_selection or ()}
    return {**tags, USE_CASE: use_cases.pop()} if len(use_cases) == 1 else tags
