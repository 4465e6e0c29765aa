import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster import EventLogEntry

from ml_platform_dagster.resources import event_log, range_tags
from ml_platform_dagster.resources.event_log import BatchingSqliteEventLogStorage

PARTITIONS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-02-01")


@dg.asset(
    partitions_def=PARTITIONS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    dagster_type=dg.Nothing,
)
def table(context: dg.AssetExecutionContext):
    for day, key in enumerate(context.partition_keys):
        context.add_asset_metadata({"rows": day}, partition_key=key)
    yield dg.MaterializeResult()


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.DagsterInstance:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
    (tmp_path / "dagster.yaml").write_text(
        f"""
telemetry: {{enabled: false}}
event_log_storage:
  module: ml_platform_dagster.resources.event_log
  class: BatchingSqliteEventLogStorage
  config: {{base_dir: {tmp_path}}}
"""
    )
    return dg.DagsterInstance.from_config(str(tmp_path))


def materialize(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = dg.Definitions([table]).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance, tags=range_tags(PARTITIONS.get_partition_keys())
    )


def test_a_range_is_recorded_partition_by_partition(instance: dg.DagsterInstance) -> None:
    assert materialize(instance).success
    records = instance.fetch_materializations(table.key, limit=100).records
    rows = {
        r.partition_key: r.asset_materialization.metadata["rows"].value
        for r in records
        if r.asset_materialization
    }
    assert rows == {key: day for day, key in enumerate(PARTITIONS.get_partition_keys())}


def test_the_events_of_a_batch_are_stored_together_or_not_at_all(
    instance: dg.DagsterInstance,
) -> None:
    run_id = materialize(instance).run_id
    storage = instance.event_log_storage
    assert isinstance(storage, BatchingSqliteEventLogStorage)
    entries = [r.event_log_entry for r in storage.get_records_for_run(run_id).records]
    broken: list[EventLogEntry] = [*entries[:3], "no event"]  # type: ignore[list-item]
    before = len(storage.get_records_for_run(run_id).records)
    with pytest.raises(AttributeError, match="dagster_event_type"):
        storage.store_event_batch(broken)
    assert len(storage.get_records_for_run(run_id).records) == before
    storage.store_event_batch(entries[:3])
    assert len(storage.get_records_for_run(run_id).records) == before + 3


@pytest.mark.slow
def test_a_run_that_is_ended_while_it_stores_events_locks_nobody_out(
    instance: dg.DagsterInstance,
) -> None:
    run_id = materialize(instance).run_id
    # Not in this process: an interrupt that comes too early would end the tests.
    process = multiprocessing.get_context("spawn").Process(
        target=store_and_be_interrupted, args=(instance.root_directory, run_id)
    )
    process.start()
    process.join()
    assert process.exitcode == 0


def store_and_be_interrupted(home: str, run_id: str) -> None:
    storage = dg.DagsterInstance.from_config(home).event_log_storage
    events = list(storage.get_logs_for_run(run_id))
    event_log.BUSY_SECONDS = 1
    moments = random.Random(0)
    for _ in range(50):
        try:
            delay = moments.uniform(0, 0.02)
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
            storage.store_event_batch(events)
            time.sleep(0.5)
        except KeyboardInterrupt:
            # As while Dagster handles it: the exception, and all its frames hold, is alive.
            storage.store_event(events[0])


@pytest.mark.slow
def test_a_batch_leaves_what_its_events_leave_one_by_one(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    batched = seen(instance)
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "0")
    with dg.DagsterInstance.from_config(str(other)) as one_by_one:
        assert seen(one_by_one) == batched


def seen(instance: dg.DagsterInstance) -> list[object]:
    """What the UI is given about the table after a run, less what is another in every run."""
    run_id = materialize(instance).run_id
    storage = instance.event_log_storage
    (asset,) = storage.get_asset_records([table.key])
    last = asset.asset_entry.last_materialization_record
    assert last is not None
    ids = storage.get_latest_storage_id_by_partition(
        table.key, dg.DagsterEventType.ASSET_MATERIALIZATION
    )
    tags = storage.get_latest_tags_by_partition(
        table.key, dg.DagsterEventType.ASSET_MATERIALIZATION, ["dagster/data_version"]
    )
    records = storage.get_records_for_run(run_id, limit=200).records
    return [
        last.partition_key,
        last.storage_id == max(ids.values()),
        asset.asset_entry.last_run_id == run_id,
        sorted(ids, key=lambda key: ids[key]),
        {key: sorted(found) for key, found in tags.items()},
        [r.event_log_entry.dagster_event_type for r in records],
    ]
