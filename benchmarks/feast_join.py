"""The point-in-time join by Feast on its DuckDB offline store; runs in Feast's own environment.

Speaks like `benchmarks.joins`, and imports nothing of this repository.
"""

import json
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, FileSource, RepoConfig
from feast.value_type import ValueType

Task = dict[str, Any]


def main(file: str) -> None:
    """Answer until standard input ends or `finish` is read."""
    task: Task = json.loads(Path(file).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        store = _store(task, Path(folder))
        joined = pd.DataFrame()
        for line in sys.stdin:
            if line.strip() == "finish":
                break
            started, cpu_started = perf_counter(), process_time()
            joined = _join(store, task)
            _answer(seconds=perf_counter() - started, cpu_seconds=process_time() - cpu_started)
        # Read before anything is counted, which takes memory too.
        peak = _peak_mib()
        names = [f"{view['name']}__{f}" for view in task["views"] for f in view["features"]]
        filled = int(joined[names].notna().to_numpy().sum())
        _answer(peak_mib=peak, rows=len(joined), filled=filled)


def _answer(**values: float) -> None:
    print("answer " + json.dumps(values), flush=True)


def _peak_mib() -> float:
    # Not getrusage, whose maximum begins with that of the process this one was started by.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _store(task: Task, folder: Path) -> FeatureStore:
    """A feature store with the task's views, applied; what that takes is not timed."""
    config = RepoConfig(
        project="benchmark",
        provider="local",
        registry=str(folder / "registry.db"),
        offline_store={"type": "duckdb"},
        online_store=None,
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    entities = {
        key: Entity(name=key, join_keys=[key], value_type=ValueType.STRING)
        for view in task["views"]
        for key in view["entity"]
    }
    views = [
        FeatureView(
            name=view["name"],
            entities=[entities[key] for key in view["entity"]],
            ttl=timedelta(seconds=view["ttl_seconds"]),
            source=FileSource(
                name=f"{view['name']}_file",
                path=str(Path(task["folder"], f"{view['name']}.parquet")),
                timestamp_field="event_time",
            ),
        )
        for view in task["views"]
    ]
    store.apply([*entities.values(), *views])
    return store


def _join(store: FeatureStore, task: Task) -> pd.DataFrame:
    examples = pq.read_table(Path(task["folder"], "examples.parquet")).to_pandas()
    examples = examples.rename(columns={"event_time": "event_timestamp"})
    references = [f"{view['name']}:{f}" for view in task["views"] for f in view["features"]]
    return store.get_historical_features(
        entity_df=examples, features=references, full_feature_names=True
    ).to_df()


if __name__ == "__main__":
    main(*sys.argv[1:])
