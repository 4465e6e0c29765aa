"""What is started in Dagster: trainings, scoring, backfills."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ml_platform.backfill import States, counts, judge
from ml_platform.backfill.plan import Due, chunks, due_with_followers
from ml_platform.backfill.request import BackfillRequest, look_at_landing, with_examples
from ml_platform.backfill.runs import BackfillRuns
from ml_platform.backfill.upkeep import newest_complete
from ml_platform.errors import EmptyPartition, ParameterRefused
from ml_platform.orchestrator import CodeLocation, Orchestrator
from ml_platform.orchestrator.parameters import PARAMETERS
from ml_platform.registry import champions_of
from ml_platform.serving.control.once import (
    BODY_NAME,
    KEY_NAME,
    ControlOutcome,
    ControlRequest,
    Once,
)
from ml_platform.serving.control.recording import Recorder
from ml_platform.serving.control.references import References
from ml_platform.serving.control.requests import (
    BackfillParameters,
    Score,
    Train,
    cutoff_in,
    range_in,
    window_in,
)
from ml_platform.serving.control.runs import REASON, Runs
from ml_platform.settings import Settings
from ml_platform.spec.tables import code_version, tables_of
from ml_platform.spec.use_case import UseCase, feature_table
from ml_platform.spec.values import unknown
from ml_platform.spec.windows import Window, utc
from ml_platform.storage import Commit, Lake

CAUSE = {"ml_platform/cause": "request"}
"""Tag of a training, which its model keeps."""
BACKFILL = "backfill"
BACKFILL_OF = "dagster/backfill"
"""Tag of a run that belongs to a backfill of the daemon."""


@dataclass(frozen=True)
class Launches:
    """Launches runs, each once under one key.

    All raise ParameterRefused where a parameter is wrong, OrchestratorUnavailable and LaunchRefused
    where Dagster does not answer or does not start it, KeyReused, and what the lake raises.
    """

    lake: Lake
    settings: Settings
    dagster: Orchestrator
    runs: Runs
    once: Once
    recorder: Recorder
    references: References

    def train(self, request: ControlRequest, asked: Train) -> ControlOutcome:
        """Train a challenger, and have the gate decide about it."""

        def launch() -> ControlOutcome:
            case, now = request.use_case, datetime.now(UTC)
            cutoff = cutoff_in(case, asked.cutoff, now) if asked.cutoff else self.newest(case, now)
            key = case.calendar.key(cutoff)
            tags = {**CAUSE, **because(asked.reason)}
            return self.launch(request, "train", ("model", "promotions"), (key, key), tags)

        return self._once(request, "train", launch)

    def score(self, request: ControlRequest, asked: Score) -> ControlOutcome:
        """Predict a partition or a range; features that are due are computed first, in the run.

        Where rows of a file or table are named, they are predicted here, without Dagster: see
        `References`.
        Raises NoChampion where no partition has one.
        """
        if asked.rows is not None or asked.answers is not None:
            return self._score_rows(request, asked)

        def launch() -> ControlOutcome:
            case = request.use_case
            window_range = _range_to_score(case, asked)
            champions, lacking = champions_of(self.lake, case, window_range)
            if lacking and not champions and not case.scored_by_any_version:
                raise next(iter(lacking.values()))
            features = [feature_table(view) for view in case.model_views]
            due = due_with_followers(case, judge(self.lake, case, window_range, features))
            tables = [*(name for name in features if due[name]), "predictions"]
            keys = case.calendar.keys(window_range)
            return self.launch(request, "score", tables, keys, because(asked.reason))

        return self._once(request, "score", launch)

    def _score_rows(self, request: ControlRequest, asked: Score) -> ControlOutcome:
        rows, answers = asked.rows, asked.answers
        if rows is None or answers is None:
            lacking = "rows" if rows is None else "answers"
            raise ParameterRefused(lacking, "name where the rows are and where the answers go")
        for name, given in (("partition", asked.partition), ("from", asked.first),
                            ("to", asked.last)):  # fmt: skip
            if given is not None:
                raise ParameterRefused(name, "give partitions, or rows, not both")
        return self.once(
            request, lambda: self.references.begin(request, rows, answers, asked.reason)
        )

    def backfill(self, request: ControlRequest, asked: BackfillParameters) -> ControlOutcome:
        """Compute what is missing, failed or stale; a run that computes all of it is joined."""

        def launch() -> ControlOutcome:
            due, shown = self._due(request, asked)
            if not any(due.values()):
                return ControlOutcome({"run": None, **shown})
            return self._launch_backfill(request, due, shown, because(asked.reason))

        if asked.dry_run:
            return ControlOutcome({"dry_run": True, **self._due(request, asked)[1]})
        return self._once(request, BACKFILL, launch)

    def _once(
        self, request: ControlRequest, what: str, launch: Callable[[], ControlOutcome]
    ) -> ControlOutcome:
        return self.once(request, lambda: self._launched(request, what) or launch())

    def started_once(
        self, request: ControlRequest, launch: Callable[[], ControlOutcome]
    ) -> ControlOutcome:
        """What `launch` starts, or started under the same key before."""
        return self._once(request, "run", launch)

    def _launched(self, request: ControlRequest, what: str) -> ControlOutcome | None:
        """What was launched under the key before, by a worker that did not live to say so."""
        if request.key is None:
            return None
        tag = {KEY_NAME: request.key}
        if found := self.dagster.runs(tag, limit=1):
            tags, run_id = found[0].tags, found[0].tags.get(BACKFILL_OF, found[0].id)
        elif what == BACKFILL and (backfill_id := self.dagster.latest_backfill(tag)) is not None:
            # The daemon has not launched any of its runs yet.
            tags, run_id = self.dagster.backfill(backfill_id).tags, backfill_id
        else:
            return None
        request.require_same(tags.get(BODY_NAME))
        return ControlOutcome(self.runs.look(run_id, lambda name: True), run_id, is_repeat=True)

    def launch(
        self,
        request: ControlRequest,
        what: str,
        tables: Sequence[str],
        keys: tuple[str, str],
        tags: Mapping[str, str],
        location: CodeLocation | None = None,
        **details: str | None,
    ) -> ControlOutcome:
        """Start a run of all tables from the first to the last partition; recorded right before.

        location: whose code runs, by default the current version's. details: for the audit.
        """
        names = [f"{request.use_case.name}/{table}" for table in tables]

        def before() -> None:
            self._record(request, what, tables, keys, tags, **details)

        tags = {**request.tags, **tags}
        run = self.dagster.launch_range(names, *keys, tags, before, location)
        return ControlOutcome(self.runs.of_run(run), run.id)

    def _launch_backfill(
        self, request: ControlRequest, due: Due, shown: Mapping[str, Any], tags: Mapping[str, str]
    ) -> ControlOutcome:
        case, lock = request.use_case, self.settings.root / "backfill.lock"
        runs = BackfillRuns(self.dagster, case, lock, request.by, {**request.tags, **tags})
        first, *others = chunks(case, due)
        longest = self.settings.max_partitions_per_run or len(first.windows)
        joined = False
        tables = [table for table, windows in due.items() if windows]
        windows = sorted((w for each in due.values() for w in each), key=lambda w: utc(w.start))
        keys = case.calendar.keys(Window(windows[0].start, windows[-1].end))

        def before() -> None:
            self._record(request, BACKFILL, tables, keys, tags)

        if not others and len(first.windows) <= longest:
            run, joined = runs.start(first, before)
            document, run_id = self.runs.of_run(run), run.id
        else:
            # One run for each piece, and each when what it reads is there: that is the daemon's.
            run_id = runs.start_by_daemon(due, before)
            document = self.runs.of_backfill(self.dagster.backfill(run_id))
        return ControlOutcome({**document, "joined": joined, **shown}, run_id)

    def _record(
        self,
        request: ControlRequest,
        what: str,
        tables: Sequence[str],
        keys: tuple[str, str],
        tags: Mapping[str, str],
        **details: str | None,
    ) -> None:
        self.recorder.record(
            request, what, ", ".join(tables), partitions="...".join(keys), reason=tags.get(REASON),
            parameters=tags.get(PARAMETERS), **details,
        )  # fmt: skip

    def _due(
        self, request: ControlRequest, asked: BackfillParameters
    ) -> tuple[Due, dict[str, Any]]:
        """What a backfill has to compute, and that in words."""
        case = request.use_case
        known = tables_of(case)
        for name in asked.tables:
            if name not in known:
                raise ParameterRefused(
                    "tables", f"{case.name}: {unknown('table', name[:60], known)}"
                )
        tables = BackfillRequest(
            tuple(asked.tables), only=asked.only, with_sources=asked.with_sources
        ).tables_in(case)
        window_range = self._range_to_fill(case, asked)
        look_at_landing(
            self.lake, case, tables,
            lambda name: Commit(request.run_id, code_version(case, name), f"{case.name}/{name}"),
        )  # fmt: skip
        states = judge(self.lake, case, window_range, tables)
        due = due_with_followers(case, states, asked.every)
        return due, _shown(case, states, due)

    def _range_to_fill(self, case: UseCase, asked: BackfillParameters) -> Window:
        now = datetime.now(UTC)
        begin = window_in(case, "from", asked.first).start if asked.first else case.calendar.start
        if asked.last:
            end = range_in(case, now, asked.last, asked.last, ("to", "to")).end
        else:
            newest = newest_complete(case, now)
            if newest is None:
                raise EmptyPartition(f"no partition of {case.name} is over yet")
            end = min(with_examples(self.lake, case).end, newest.end, key=utc)
        if utc(end) <= utc(begin):
            raise ParameterRefused("from", f"'{asked.first}' is not before the end, {end}")
        return Window(begin, end)

    def newest(self, case: UseCase, now: datetime) -> Window:
        """The newest cutoff: the partition that follows the last one with examples, once begun."""
        calendar, end = case.calendar, case.partitions.closes_at
        last = now if end is None else min(now, end - timedelta(microseconds=1), key=utc)
        following = calendar.window_at(with_examples(self.lake, case).end)
        return min(following, calendar.window_at(last), key=lambda window: utc(window.start))


def _range_to_score(case: UseCase, asked: Score) -> Window:
    now = datetime.now(UTC)
    if asked.partition is not None:
        if asked.first is not None or asked.last is not None:
            raise ParameterRefused("partition", "give a partition, or `from` and `to`, not both")
        return range_in(case, now, asked.partition, asked.partition, ("partition", "partition"))
    if asked.first is not None and asked.last is not None:
        return range_in(case, now, asked.first, asked.last, ("from", "to"))
    lacking = "partition" if asked.first is asked.last else "from" if asked.last else "to"
    raise ParameterRefused(lacking, "give a partition, or a range by `from` and `to`")


def _shown(case: UseCase, states: States, due: Due) -> dict[str, Any]:
    found = {
        table: {
            **{standing.value: count for standing, count in counts(by_window.values()).items()},
            "to_compute": len(due[table]),
            "which": window_ranges(case, due[table]),
        }
        for table, by_window in states.items()
    }
    return {"partitions": sum(map(len, due.values())), "tables": found}


def window_ranges(case: UseCase, windows: Iterable[Window]) -> list[dict[str, Any]]:
    """Unbroken ranges of partitions, by their first and last keys."""
    return [
        {"first": first, "last": last}
        for first, last in map(case.calendar.keys, case.calendar.ranges(windows))
    ]


def because(reason: str | None) -> Mapping[str, str]:
    """The tag that says why somebody started a run."""
    return {} if reason is None else {REASON: reason}
