"""The alerts sensor of a small use case, on real runs and a real web receiver."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.test_utils import create_run_for_test
from dagster._utils.error import SerializableErrorInfo

from ml_platform.alerts import FailedRun
from ml_platform.cli.health_page import _notified
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.status import AlertGroup, OpenAlert, open_alerts
from ml_platform.storage import Lake
from ml_platform_dagster.definitions import build_definitions
from ml_platform_dagster.resources import LakeResource, range_tags
from ml_platform_dagster.sensors.alerts import build_alerts
from ml_platform_dagster.sensors.attempts import ATTEMPT_OF, next_attempt
from ml_platform_dagster.sensors.failures import failed_since, standing_runs
from tests import trips_use_case as trips
from tests.alert_receivers import WebReceiver, web_receiver

pytestmark = pytest.mark.slow


@pytest.fixture
def receiver() -> Iterator[WebReceiver]:
    with web_receiver() as receiver:
        yield receiver


@pytest.fixture
def use_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receiver: WebReceiver) -> UseCase:
    monkeypatch.setenv("ML_PLATFORM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(tmp_path / "use_cases"))
    monkeypatch.setenv("ML_PLATFORM_ALERTS", receiver.url)
    folder = tmp_path / "use_cases"
    trips.write_folder(folder, "binary", name="trips_too")
    spec = trips.write_folder(folder, "binary").folder / "use_case.yaml"
    # A history that is over: nothing of it is late.
    spec.write_text(
        spec.read_text().replace("start: 2024-03-01", "start: 2024-03-01, end: 2024-04-01")
    )
    return trips.load_use_case(spec.parent)


def tick(
    use_case: UseCase, instance: dg.DagsterInstance, cursor: str | None = None
) -> dg.SensorResult:
    (sensor,) = build_alerts(use_case, Settings())
    with dg.build_sensor_context(
        instance=instance,
        cursor=cursor,
        sensor_name=sensor.name,
        resources={"lake": LakeResource()},
    ) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result


def fail(instance: dg.DagsterInstance, name: str, tags: dict[str, str] | None = None) -> str:
    """A run that fails because nothing has landed; its id."""
    definitions = build_definitions(Settings())
    labels = definitions.resolve_assets_def(dg.AssetKey([name, "labels"]))
    result = dg.materialize(
        [labels],
        partition_key="2024-03-02",
        instance=instance,
        tags=tags,
        raise_on_error=False,
    )
    assert not result.success
    return str(result.run_id)


def succeed(instance: dg.DagsterInstance, use_case: UseCase, first: str, last: str) -> None:
    """A later run that computes the same table."""
    settings = Settings()
    lake = Lake(settings)
    trips.land(lake, use_case, trips.trips(1, 4), trips.days(1, 4))
    lake.close()
    labels = build_definitions(settings).resolve_assets_def(dg.AssetKey(["trips", "labels"]))
    assert dg.materialize([labels], instance=instance, tags=range_tags([first, last])).success


def test_a_failed_run_stands_until_a_later_one_of_its_partitions_has_succeeded(
    use_case: UseCase, receiver: WebReceiver
) -> None:
    with dg.instance_for_test() as instance:
        fail(instance, "trips")
        cursor = tick(use_case, instance).cursor
        lake = Lake(Settings())
        (alert,) = open_alerts(lake, use_case, datetime.now(UTC))
        assert alert.condition.title == "A run of trips failed: labels (2024-03-02)"
        assert alert.notified_at is not None
        assert alert.condition.done.startswith("nothing; look at the run")
        lake.close()
        succeed(instance, use_case, "2024-03-03", "2024-03-04")
        tick(use_case, instance, cursor)
        assert len(receiver.received) == 1
        succeed(instance, use_case, "2024-03-01", "2024-03-03")
        tick(use_case, instance, cursor)
        lake = Lake(Settings())
        assert open_alerts(lake, use_case, datetime.now(UTC)) == ()
        lake.close()
    assert receiver.titles[-1] == "All clear: A run of trips failed: labels (2024-03-02)"


def test_notified_is_said_only_where_a_channel_has_taken_it(
    use_case: UseCase, receiver: WebReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alert() -> OpenAlert:
        lake = Lake(Settings())
        (found,) = open_alerts(lake, use_case, datetime.now(UTC))
        lake.close()
        return found

    def notified() -> str:
        return _notified(use_case, AlertGroup((alert(),)))

    monkeypatch.delenv("ML_PLATFORM_ALERTS")
    with dg.instance_for_test() as instance:
        fail(instance, "trips")
        cursor = tick(use_case, instance).cursor
        found = alert()
        assert (found.notified_at, found.on_its_way) == (None, False)
        assert found.noted_at is not None
        assert notified().startswith("nobody, noted 20")
        monkeypatch.setenv("ML_PLATFORM_ALERTS", "json://127.0.0.1:9/dead")
        tick(use_case, instance, cursor)
        assert (alert().notified_at, alert().on_its_way) == (None, True)
        assert "on its way to a channel" in notified()
        monkeypatch.setenv("ML_PLATFORM_ALERTS", receiver.url)
        tick(use_case, instance, cursor)
    assert notified().startswith("nobody") is False


def test_what_began_without_a_channel_is_reported_once_there_is_one(
    use_case: UseCase, receiver: WebReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ML_PLATFORM_ALERTS")
    with dg.instance_for_test() as instance:
        fail(instance, "trips")
        cursor = tick(use_case, instance).cursor
        monkeypatch.setenv("ML_PLATFORM_ALERTS", receiver.url)
        tick(use_case, instance, cursor)
        tick(use_case, instance, cursor)
    assert receiver.titles == ["A run of trips failed: labels (2024-03-02)"]


def test_a_failed_backfill_stands_with_its_error(use_case: UseCase, receiver: WebReceiver) -> None:
    with dg.instance_for_test() as instance:
        labels, other = (dg.AssetKey([name, "labels"]) for name in ("trips", "trips_too"))
        for key in (labels, other):
            instance.add_backfill(
                PartitionBackfill(
                    backfill_id=f"of_{key.path[0]}",
                    status=BulkActionStatus.FAILED,
                    from_failure=False,
                    tags={},
                    backfill_timestamp=datetime.now(UTC).timestamp(),
                    asset_selection=[key],
                    error=SerializableErrorInfo("the daemon died", [], "RuntimeError"),
                )
            )
        tick(use_case, instance)
    assert receiver.titles == ["A backfill of trips failed: labels"]
    assert "the daemon died" in receiver.received[0]["message"]
    assert "/runs/b/of_trips" in receiver.received[0]["message"]


def test_attempts_of_the_same_are_one_alert_until_one_succeeds(
    use_case: UseCase, receiver: WebReceiver
) -> None:
    tags = {ATTEMPT_OF: "trips_landing/key"}
    with dg.instance_for_test() as instance:
        fail(instance, "trips", tags)
        cursor = tick(use_case, instance).cursor
        last = fail(instance, "trips", tags)
        cursor = tick(use_case, instance, cursor).cursor
        tick(use_case, instance, cursor)
        lake = Lake(Settings())
        (alert,) = open_alerts(lake, use_case, datetime.now(UTC))
        lake.close()
        assert alert.condition.key == "failed_run/trips_landing/key"
        records = failed_since(instance, datetime(2024, 1, 1, tzinfo=UTC))
        (run,) = standing_runs(instance, use_case, records, ["trips_landing/key"])
        assert (run.run_id, run.tried) == (last, 2)
        succeed(instance, use_case, "2024-03-01", "2024-03-03")
        tick(use_case, instance, cursor)
    assert receiver.titles == [
        "A run of trips failed: labels (2024-03-02)",
        "All clear: A run of trips failed: labels (2024-03-02)",
    ]
    assert "It is asked for again by itself." in receiver.received[0]["message"]


def test_a_failed_run_that_dagster_reports_is_one_alert_with_what_was_noted(
    use_case: UseCase, receiver: WebReceiver
) -> None:
    now = datetime.now(UTC)
    with dg.instance_for_test() as instance:
        noted = fail(instance, "trips")
        tick(use_case, instance)
    runs = [FailedRun(run_id, "labels", "no", now) for run_id in (noted, "another")]
    lake = Lake(Settings())
    found = {a.condition.key: a.noted_at for a in open_alerts(lake, use_case, now, runs)}
    lake.close()
    assert list(found) == [f"failed_run/{noted}", "failed_run/another"]
    assert found[f"failed_run/{noted}"] is not None
    assert found["failed_run/another"] is None


def test_an_alert_stands_while_the_next_attempt_is_under_way(
    use_case: UseCase, receiver: WebReceiver
) -> None:
    tags = {ATTEMPT_OF: "trips_landing/key"}
    with dg.instance_for_test() as instance:
        fail(instance, "trips", tags)
        cursor = tick(use_case, instance).cursor
        labels = frozenset({dg.AssetKey(["trips", "labels"])})
        create_run_for_test(
            instance, status=dg.DagsterRunStatus.STARTED, asset_selection=labels, tags=tags
        )
        tick(use_case, instance, cursor)
    assert receiver.titles == ["A run of trips failed: labels (2024-03-02)"]


def test_what_failed_is_asked_for_again_under_another_key_after_a_wait(use_case: UseCase) -> None:
    now = datetime.now(UTC)
    with dg.instance_for_test() as instance:
        first = next_attempt(instance, "key", "sensor", now)
        assert (first.run_key, first.waits_for) == ("key", "")
        run_id = fail(instance, "trips", first.tags)
        waiting = next_attempt(instance, "key", "sensor", now)
        assert f"attempt 1, run {run_id}, failed at" in waiting.waits_for
        second = next_attempt(instance, "key", "sensor", now + timedelta(minutes=5))
        assert (second.run_key, second.waits_for) == ("key-1", "")
        fail(instance, "trips", {**second.tags, "dagster/will_retry": "true"})
        fail(instance, "trips", second.tags)
        later = now + timedelta(minutes=5)
        assert next_attempt(instance, "key", "sensor", later).run_key == "key-2"
        assert next_attempt(instance, "other", "sensor", now).run_key == "other"


def test_a_failed_run_is_reported_once_with_its_error_and_a_link(
    use_case: UseCase, receiver: WebReceiver
) -> None:
    with dg.instance_for_test() as instance:
        run_id = fail(instance, "trips")
        first = tick(use_case, instance)
        tick(use_case, instance, first.cursor)
        tick(use_case, instance, None)
    (post,) = receiver.received
    assert post["title"] == "A run of trips failed: labels (2024-03-02)"
    what, when, done, link = post["message"].splitlines()
    assert what == (
        "nothing has been written to trips.trips at snapshot 0; materialise trips/trips first"
    )
    assert when.startswith("Since: ")
    assert when.endswith("America/New_York")
    assert done == (
        "Done: nothing; look at the run, and run it again from there. It is over once a later one "
        "of the same partitions has succeeded."
    )
    assert link == f"http://127.0.0.1:3000/runs/{run_id}"


def test_the_failed_run_of_another_use_case_is_no_matter(
    use_case: UseCase, receiver: WebReceiver
) -> None:
    with dg.instance_for_test() as instance:
        fail(instance, "trips_too")
        result = tick(use_case, instance)
    assert receiver.received == []
    assert result.skip_reason == dg.SkipReason("nothing new")


def test_a_run_that_is_tried_again_by_itself_is_not_reported(
    use_case: UseCase, receiver: WebReceiver
) -> None:
    with dg.instance_for_test() as instance:
        fail(instance, "trips", {"dagster/will_retry": "true"})
        tick(use_case, instance)
    assert receiver.received == []


def test_a_dead_channel_fails_no_tick(
    use_case: UseCase, receiver: WebReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_ALERTS", f"{receiver.url},json://127.0.0.1:9/dead")
    with dg.instance_for_test() as instance:
        fail(instance, "trips")
        result = tick(use_case, instance)
    assert result.skip_reason == dg.SkipReason("1 condition; sent: 1 message")
    assert len(receiver.received) == 1


def test_every_use_case_has_its_alerts_sensor(use_case: UseCase) -> None:
    names = {s.name for s in build_definitions(Settings()).sensors or ()}
    assert {"trips_alerts", "trips_too_alerts"} <= names
