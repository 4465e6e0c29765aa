"""Failed runs and backfills that no later success has made up for: one rule, whoever asks."""

import re
from collections.abc import Iterable, Sequence

from ml_platform.orchestrator.records import Backfill, Run

MODEL = "model"
OWN_ERROR = re.compile(r"^(\w+/\w+: )?ml_platform\.errors\.\w+: ")
"""The class of one, behind the table whose step raised it."""


def unanswered(use_case: str, ended: Iterable[Run], succeeded: Sequence[Run]) -> list[Run]:
    """Failed runs of a use case that still stand, in order of creation.

    ended: runs that failed or were canceled; of attempts at the same thing the last one speaks for
    all, so what a person has canceled stands no longer. succeeded: runs that may answer them.
    """
    last: dict[str, Run] = {}
    for run in sorted(ended, key=lambda each: each.created_at):
        last[run.attempt_of or run.id] = run
    return [
        run
        for run in last.values()
        if run.failed_for_good
        and concerns(use_case, run)
        and not any(is_answered(use_case, run, other) for other in succeeded)
    ]


def concerns(use_case: str, run: Run) -> bool:
    """Whether a run materialises a table of a use case, or is a rollback of it."""
    # By its whole name: a use case may be called like the beginning of another one's jobs.
    return bool(tables_of(use_case, run.tables)) or _is_rollback(use_case, run)


def is_answered(use_case: str, run: Run, other: Run) -> bool:
    """Whether a run that succeeded was created later and has made up for a failed one.

    It has where it computed the same tables of the use case, in the same partitions at least. Any
    later training answers one that failed: it has seen more.
    """
    if other.created_at <= run.created_at:
        return False
    if run.attempt_of and run.attempt_of == other.attempt_of:
        return True
    tables, made = (set(tables_of(use_case, each.tables)) for each in (run, other))
    if not tables:
        return other.job == run.job
    return MODEL in tables & made or (tables <= made and _covers(other, run))


def unanswered_backfills(
    use_case: str, failed: Iterable[Backfill], succeeded: Sequence[Backfill]
) -> list[Backfill]:
    """Backfills that failed themselves, with no later one of the same tables that succeeded.

    Where only runs of a backfill failed, these runs stand.
    """

    def is_followed(backfill: Backfill) -> bool:
        tables = set(tables_of(use_case, backfill.tables))
        return any(
            other.created_at > backfill.created_at
            and tables <= set(tables_of(use_case, other.tables))
            for other in succeeded
        )

    return [b for b in failed if tables_of(use_case, b.tables) and not is_followed(b)]


def tables_of(use_case: str, tables: Iterable[str]) -> tuple[str, ...]:
    """Names, in order, of those tables that belong to a use case."""
    split = (table.split("/", maxsplit=1) for table in tables)
    return tuple(sorted(parts[-1] for parts in split if parts[0] == use_case))


def sentence(error: str) -> str:
    """What a step raised as a person reads it.

    The platform's own errors are sentences; of others the class says something too.

    >>> sentence("ml_platform.errors.TableNotFound: nothing has been written to trips.labels")
    'nothing has been written to trips.labels'
    """
    return OWN_ERROR.sub(r"\1", error.strip())


def _is_rollback(use_case: str, run: Run) -> bool:
    return not run.tables and run.job == f"{use_case}_rollback"


def _covers(other: Run, run: Run) -> bool:
    wanted, had = run.partitions, other.partitions
    if wanted is None or had is None:
        return wanted == had
    # Keys of one calendar are in order of time.
    return had[0] <= wanted[0] and wanted[1] <= had[1]
