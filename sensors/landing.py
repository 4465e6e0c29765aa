"""What lands is ingested: one run for each unbroken run of partitions that are behind."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import dagster as dg

from ml_platform.errors import LakeError, LandingError
from ml_platform.settings import Settings
from ml_platform.sources import Arrivals, arrivals
from ml_platform.spec.use_case import LOGGED_SOURCES, UseCase, digest
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit
from ml_platform_dagster.resources import LakeResource, range_tags
from ml_platform_dagster.sensors.attempts import next_attempt
from ml_platform_dagster.sensors.circumstances import windows_in_runs
from ml_platform_dagster.sensors.launching import IN_PROCESS
from ml_platform_dagster.sensors.status import sensor_status

SECONDS_BETWEEN_TICKS = 30


def build_landing(use_case: UseCase, settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor that starts runs for partitions that new or corrected files have rows for."""

    @dg.sensor(
        name=f"{use_case.name}_landing",
        target=dg.AssetSelection.assets(*([use_case.name, name] for name in use_case.sources)),
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        default_status=sensor_status(settings),
        description="Ingests what lands; the tables that depend on it follow by automation.",
    )
    def sensor(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult:
        seen = json.loads(context.cursor) if context.cursor else {}
        commit = Commit(f"sensor {context.sensor_name}", use_case.code_version, "index landing")
        found: dict[str, Arrivals] = {}
        failed: list[str] = []
        for source in use_case.sources:
            try:
                found[source] = arrivals(
                    lake.lake, use_case, source, commit, datetime.now(UTC), seen.get(source)
                )
            except (LandingError, LakeError) as error:
                failed.append(str(error))
                context.log.error(str(error))
        for source in found.keys() & {*LOGGED_SOURCES}:
            if found[source].windows:
                found[source] = _but_under_way(context.instance, use_case, source, found[source])
        for source, each in found.items():
            for name, reason in each.left.items():
                context.log.info(f"{name} is left for now: it {reason}")
            for window, reason in each.waiting.items():
                context.log.info(f"{source} {use_case.calendar.key(window)}: {reason}")
        requests = []
        for request in _requests(use_case, found):
            name = f"{use_case.name}_landing"
            attempt = next_attempt(context.instance, str(request.run_key), name, datetime.now(UTC))
            if attempt.waits_for:
                context.log.info(attempt.waits_for)
                found = {source: replace(each, state=None) for source, each in found.items()}
                continue
            tags = {**request.tags, **attempt.tags}
            requests.append(request.with_replaced_attrs(run_key=attempt.run_key, tags=tags))
        if failed and not requests:
            # The other sources come first; without news from them the tick shows what is wrong.
            raise LandingError("; ".join(failed))
        states = {source: each.state for source, each in found.items() if each.state}
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason(_reason(found)),
            cursor=json.dumps(states),
        )

    return [sensor]


def _but_under_way(
    instance: dg.DagsterInstance, use_case: UseCase, source: str, found: Arrivals
) -> Arrivals:
    # A log's next file lands before the run that ingests the last one has ended.
    runs = {window for table, window in windows_in_runs(instance, use_case) if table == source}
    if runs.isdisjoint(found.windows):
        return found
    waiting = {window: "a run ingests it already" for window in found.windows if window in runs}
    windows = {window: what for window, what in found.windows.items() if window not in runs}
    return replace(found, windows=windows, waiting={**found.waiting, **waiting}, state=None)


def _requests(use_case: UseCase, found: dict[str, Arrivals]) -> list[dg.RunRequest]:
    # Feedback is about many old partitions, of which nothing else that the service writes is news.
    apart = [{source: each} for source, each in found.items() if source in LOGGED_SOURCES]
    others = {source: each for source, each in found.items() if source not in LOGGED_SOURCES}
    return [
        _request(use_case, together, window_range)
        for together in (others, *apart)
        for window_range in use_case.calendar.ranges(
            {window for each in together.values() for window in each.windows}
        )
    ]


def _request(use_case: UseCase, found: dict[str, Arrivals], window_range: Window) -> dg.RunRequest:
    inside = {
        source: [what for window, what in each.windows.items() if window.start in window_range]
        for source, each in found.items()
    }
    sources = [source for source, digests in inside.items() if digests]
    begin, end = use_case.calendar.keys(window_range)
    # What has landed is part of the run key: with the partitions alone, a correction of the same
    # day would be taken for the run that was there before.
    return dg.RunRequest(
        run_key=f"{begin}-{end}-{digest(inside)}",
        asset_selection=[dg.AssetKey([use_case.name, source]) for source in sources],
        run_config=IN_PROCESS,
        tags=range_tags([begin, end]),
    )


def _reason(found: dict[str, Arrivals]) -> str:
    unfinished = sum(len(each.left) for each in found.values())
    waiting = sum(len(each.waiting) for each in found.values())
    if unfinished:
        return f"{unfinished} files are not whole yet"
    return (
        f"{waiting} partitions of what the service writes wait"
        if waiting
        else "nothing new has landed"
    )
