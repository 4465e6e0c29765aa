"""The alerts sensor of a small use case, on real runs and a real web receiver."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from definitions import build_definitions
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from resources import LakeResource
from sensors.alerts import build_alerts
from tests import trips_use_case as trips
from tests.alert_receivers import WebReceiver, web_receiver


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


def test_a_failed_run_is_told_once_with_its_error_and_a_link(
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
    assert when.startswith("When: ")
    assert when.endswith("America/New_York")
    assert done == "Done: nothing; look at the run, and run it again from there."
    assert link == f"http://127.0.0.1:3000/runs/{run_id}"


def test_the_failed_run_of_another_use_case_is_no_matter(
    use_case: UseCase, receiver: WebReceiver
) -> None:
    with dg.instance_for_test() as instance:
        fail(instance, "trips_too")
        result = tick(use_case, instance)
    assert receiver.received == []
    assert result.skip_reason == dg.SkipReason("nothing new to tell")


def test_a_run_that_is_tried_again_by_itself_is_not_told(
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
    assert result.skip_reason == dg.SkipReason("1 event; sent: 1 message")
    assert len(receiver.received) == 1


def test_every_use_case_has_its_alerts_sensor(use_case: UseCase) -> None:
    names = {s.name for s in build_definitions(Settings()).sensors or ()}
    assert {"trips_alerts", "trips_too_alerts"} <= names
