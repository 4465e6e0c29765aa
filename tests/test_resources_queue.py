"""Turns in the run queue, by the `dagster.yaml` that ships: a backfill keeps nobody waiting."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import (
    QueuedRunCoordinatorDaemon,
)

from ml_platform_dagster.resources.queue import SharedRunCoordinator
from tests.dagster_servers import ROOT

PLACES, OF_ONE = 10, 6
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("ml-platform"), "repository"), "job"
)
OF_BACKFILL = {"dagster/backfill": "years"}


def deployed(name: str) -> dict[str, Any]:
    said = yaml.safe_load((ROOT / "deploy" / name).read_text())
    return {key: said[key] for key in ("run_coordinator", "concurrency", "run_monitoring")}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance that queues runs as the deployed one does."""
    with dg.instance_for_test(overrides=deployed("dagster.yaml")) as instance:
        assert isinstance(instance.run_coordinator, SharedRunCoordinator)
        yield instance


def queue(
    instance: dg.DagsterInstance, *tables: str, tags: dict[str, str] | None = None
) -> dg.DagsterRun:
    """A run of some assets, `<use case>/<table>`, as whoever launches it hands it over."""
    selected = frozenset(dg.AssetKey(table.split("/")) for table in tables)
    run = create_run_for_test(
        instance, asset_selection=selected or None, tags=tags, remote_job_origin=ORIGIN
    )
    return instance.run_coordinator.submit_run(SubmitRunContext(run, None))  # type: ignore[arg-type]


def start(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_dagster_event(
        dg.DagsterEvent("PIPELINE_START", run.job_name), run_id=run.run_id
    )


def next_runs(instance: dg.DagsterInstance) -> list[str]:
    """What the daemon would start now, in order."""
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
    found = daemon._get_runs_to_dequeue(instance, instance.get_concurrency_config(), None)
    return [run.run_id for run in found]


def test_a_home_on_postgres_has_the_same_queue() -> None:
    assert deployed("dagster_postgres.yaml") == deployed("dagster.yaml")


def test_a_backfill_of_years_keeps_no_other_use_case_waiting(instance: dg.DagsterInstance) -> None:
    years = [queue(instance, "big/predictions", tags=OF_BACKFILL) for _ in range(30)]
    hourly = queue(instance, "small/predictions")
    assert next_runs(instance) == [hourly.run_id, *(run.run_id for run in years[:OF_ONE])]


def test_two_backfills_advance_side_by_side(instance: dg.DagsterInstance) -> None:
    years = [queue(instance, "big/predictions", tags=OF_BACKFILL) for _ in range(20)]
    week = [queue(instance, "small/predictions", tags=OF_BACKFILL) for _ in range(7)]
    expected = [*years[:OF_ONE], *week[: PLACES - OF_ONE]]
    assert next_runs(instance) == [run.run_id for run in expected]


def test_the_next_free_place_is_for_what_is_not_a_backfill(instance: dg.DagsterInstance) -> None:
    for use_case in ("big", "bigger"):
        for _ in range(PLACES // 2):
            start(instance, queue(instance, f"{use_case}/labels", tags=OF_BACKFILL))
    waiting = [queue(instance, "big/labels", tags=OF_BACKFILL) for _ in range(3)]
    hourly = queue(instance, "small/labels", "small/predictions")
    assert next_runs(instance) == []
    first = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))[0]
    instance.report_run_canceled(first)
    assert next_runs(instance) == [hourly.run_id]
    assert waiting[0].run_id not in next_runs(instance)


def test_a_run_says_which_use_case_it_is_of(instance: dg.DagsterInstance) -> None:
    assert queue(instance, "a/labels", "a/model").tags["ml_platform/use_case"] == "a"
    # It takes no place of either, and no place is its own.
    assert "ml_platform/use_case" not in queue(instance, "a/labels", "b/labels").tags
    assert "ml_platform/use_case" not in queue(instance).tags


def test_a_priority_that_somebody_gave_is_kept(instance: dg.DagsterInstance) -> None:
    urgent = {**OF_BACKFILL, "dagster/priority": "3"}
    assert queue(instance, "a/labels", tags=urgent).tags["dagster/priority"] == "3"
    assert queue(instance, "a/labels", tags=OF_BACKFILL).tags["dagster/priority"] == "-1"
    assert "dagster/priority" not in queue(instance, "a/labels").tags
