"""What a replay decides on a range is what the live assets and sensors decided on it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from ml_platform.registry import Registry, history
from ml_platform.replay import Policy, replay
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform_dagster.definitions import build_definitions
from ml_platform_dagster.resources import LakeResource, RegistryResource, range_tags
from ml_platform_dagster.resources.reasons import CAUSE, FAILED, REASON, TRAINING_WINDOW
from ml_platform_dagster.sensors.retraining import build_retraining, build_retraining_schedule
from tests import moody_trips as moods

FROM, TO = 11, 32
SHIFTS = (14, 24)
POLICY = "drift+performance+schedule"

SOURCES = ["trips", "arrivals", "pace_features", "labels"]
REPORTS = ["predictions", "drift_report", "performance_report"]

pytestmark = pytest.mark.slow


@dataclass
class Live:
    """A code location that lives day by day; every request of sensor and schedule is run."""

    use_case: UseCase
    settings: Settings
    instance: dg.DagsterInstance
    job: dg.JobDefinition
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Cutoff, cause and reason of each training, in order."""

    def run(self, tables: list[str], first: int, last: int, tags: dict[str, str]) -> None:
        names = [str(moods.day(number)) for number in (first, last)]
        result = self.job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(["moods", table]) for table in tables],
            tags={**range_tags(names), **tags},
        )
        assert result.success

    def train(self, request: dg.RunRequest) -> None:
        assert request.partition_key is not None
        self.asked.append((request.partition_key, request.tags[CAUSE], request.tags[REASON]))
        number = (datetime.fromisoformat(request.partition_key).date() - moods.FIRST).days
        self.run(["model", "promotions"], number, number, dict(request.tags))

    def schedule(self, number: int) -> None:
        """What the schedule asks for within a day."""
        (schedule,) = build_retraining_schedule(self.use_case, self.settings)
        start = self.use_case.calendar.window(str(moods.day(number))).start
        if start.weekday() == 2:
            fired = start + timedelta(hours=5)
            requests = schedule(dg.build_schedule_context(scheduled_execution_time=fired))
            assert isinstance(requests, list)
            self.train(requests[0])

    def sensor(self) -> dg.RunRequest | None:
        """What the sensor asks for at the end of a day."""
        (sensor,) = build_retraining(self.use_case, self.settings)
        resources = {"lake": LakeResource(), "registry": RegistryResource()}
        with dg.build_sensor_context(instance=self.instance, resources=resources) as context:
            asked = sensor(context)
        return asked if isinstance(asked, dg.RunRequest) else None

    def live(self, number: int) -> None:
        """One day: its files land, everything is computed, then the sensor looks at it."""
        # What arrives is about trips of this day and of the two before.
        self.run([*SOURCES, *REPORTS], max(FROM, number - 2), number, {})


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    root = tmp_path_factory.mktemp("live")
    use_case = moods.write_folder(root / "use_cases")
    rows = moods.trips(TO + 1, SHIFTS)
    with pytest.MonkeyPatch.context() as patch, dg.instance_for_test() as instance:
        patch.setenv("ML_PLATFORM_DATA", str(root / "data"))
        patch.setenv("ML_PLATFORM_USE_CASES", str(root / "use_cases"))
        job = build_definitions(Settings()).resolve_implicit_global_asset_job_def()
        world = Live(use_case, Settings(), instance, job)
        for number in range(FROM):
            moods.land(world.settings, rows, number)
        world.run(SOURCES, 0, FROM - 1, {})
        world.run(["model", "promotions"], FROM, FROM, {})
        for number in range(FROM, TO + 1):
            if number > FROM:
                world.schedule(number)
            moods.land(world.settings, rows, number)
            world.live(number)
            if request := world.sensor():
                world.train(request)
        yield world


def versions_and_snapshot(live: Live) -> tuple[list[tuple[str, list[str]]], int]:
    client = Registry(live.settings)._client
    found = client.search_model_versions("name = 'moods'")
    aliases = client.get_registered_model("moods").aliases
    versions = sorted((f"{entry.version} {entry.run_id}", sorted(aliases)) for entry in found)
    lake = Lake(live.settings)
    with lake.cursor() as cursor:
        snapshot = lake.snapshot(cursor)
    lake.close()
    return versions, snapshot


def replayed(live: Live) -> list[tuple[str, str, str, str, str]]:
    """Cutoff, cause, reason, decision and figures of each training after the first."""
    calendar = live.use_case.calendar
    window_range = Window(
        calendar.window(str(moods.day(FROM))).start, calendar.window(str(moods.day(TO))).end
    )
    lake = Lake(live.settings)
    policy = Policy.parse(POLICY, live.use_case)
    comparison = replay(lake, live.use_case, window_range, [policy], threads=live.settings.threads)
    lake.close()
    return [
        (calendar.key(d.cutoff), d.cause, d.reason, d.decision, d.why)
        for d in comparison.standings[0].decisions[1:]
    ]


@pytest.mark.exhaustive
def test_a_replay_decides_what_was_decided_live(live: Live) -> None:
    lake = Lake(live.settings)
    decided = history(lake, live.use_case)
    lake.close()
    found = replayed(live)
    assert [made[:3] for made in found] == live.asked
    assert [made[3:] for made in found] == [(p.decision, p.reason) for p in decided[1:]]
    causes = {made[1] for made in found}
    assert {"schedule", "drift", "performance"} <= set("+".join(causes).split("+"))
    assert {"promoted", "refused"} <= {made[3] for made in found}


def test_a_replay_leaves_tables_versions_and_alias_alone(live: Live) -> None:
    before = versions_and_snapshot(live)
    replayed(live)
    assert versions_and_snapshot(live) == before


def test_the_reason_is_kept_with_run_model_promotion_and_version(live: Live) -> None:
    cutoff, cause, reason = next(asked for asked in live.asked if asked[1] != "schedule")
    records = [
        live.instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey(["moods", table]), asset_partitions=[cutoff]), 1
        ).records[0]
        for table in ("model", "promotions")
    ]
    for record in records:
        assert record.asset_materialization is not None
        metadata = record.asset_materialization.metadata
        assert metadata["cause"].value == cause
        assert metadata["reason of training"].value == reason
        assert metadata["training window"].value == "6d"
    run = live.instance.get_run_by_id(records[0].run_id)
    assert run is not None
    assert run.tags[REASON] == reason
    registry = Registry(live.settings)
    start = live.use_case.calendar.window(cutoff).start
    version = registry.trained_at(live.use_case, start)
    tags = registry.tags(live.use_case, version)
    assert (tags[CAUSE], tags[REASON], tags[TRAINING_WINDOW]) == (cause, reason, "6d")
    assert tags[FAILED] == run.tags[FAILED]
    loaded = registry.load(live.use_case, version)
    assert loaded.trained_from.astimezone(UTC) == (start - timedelta(days=6)).astimezone(UTC)
