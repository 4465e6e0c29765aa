"""The example as one command: it starts what it needs, and a scheduler's part is played out.

`run --keep` leaves everything running until it is interrupted, to look around in Dagster's pages.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from published_pipeline.parcels import land
from published_pipeline.processes import ROOT, until
from published_pipeline.stack import HERE, Stack, stack

PIPELINES = "/control/parcels/pipelines"
AIRFLOW = ROOT / ".venv-airflow" / "bin"
DAG = "published_pipeline"


def main() -> None:
    """Parse the command line and run the example."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave it running afterwards")
    parser.add_argument("--without-airflow", action="store_true", help="leave Airflow out")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="published-pipeline-") as folder,
        stack(Path(folder)) as s,
    ):
        where = s.environment.get("ML_PLATFORM_LAKE_FILES", "a folder; Azurite is not installed")
        print(f"The service is at {s.url}, Dagster at {s.dagster_url}; the lake is in {where}")
        show(s)
        if AIRFLOW.is_dir() and not asked.without_airflow:
            print("\nAirflow runs its DAG against the service")
            print(said_last(airflow(s, {})))
        elif not asked.without_airflow:
            print("\nAirflow is not installed: `make airflow` does it")
        if asked.keep:
            print("Interrupt to end")
            while True:
                time.sleep(1)


def show(s: Stack) -> None:
    """What a scheduler does: land, refresh, train with parameters, choose a version, score."""
    land(s.settings, "", date(2024, 3, 1), date(2024, 3, 26))
    start(s, "refresh", {"from": "2024-03-01", "to": "2024-03-26"})
    print("A value that is not allowed")
    refused = s.ask(f"{PIPELINES}/challenger/runs", {"parameters": {"window": "90d"}})
    print(f"  {refused[0]}: {refused[1]['detail']}")
    start(s, "challenger", {"cutoff": "2024-03-24", "window": "20d", "sample": 0.5})
    start(s, "challenger", {"cutoff": "2024-03-25", "window": "20d"}, version=s.earlier)
    land(s.settings, "archive/late/", date(2024, 3, 27), date(2024, 3, 28))
    start(
        s, "refresh",
        {"from": "2024-03-27", "to": "2024-03-28", "locations": {"parcels": "archive/late"}},
    )  # fmt: skip
    started = start(s, "scores", {"from": "2024-03-26", "to": "2024-03-28"})
    called = until(lambda: [c for c in s.calls if c.body["run"]["id"] == started["id"]], "the call")
    signed = "signed" if called[0].is_signed else "not signed"
    print(f"  the orchestrator was notified: {called[0].body['run']['status']}, {signed}")


def start(
    s: Stack, name: str, parameters: Mapping[str, Any], version: str | None = None
) -> dict[str, Any]:
    """Start a pipeline and follow it until it succeeds."""
    at = f"/versions/{version}" if version else ""
    print(f"POST {PIPELINES}/{name}{at}/runs {json.dumps(parameters)}")
    status, answer = s.ask(f"{PIPELINES}/{name}{at}/runs", {"parameters": dict(parameters)})
    if status != 202:
        raise SystemExit(f"{status}: {answer['detail']}")
    run: dict[str, Any] = s.follow(answer["links"]["self"])
    print(f"  {run['status']} by version {run['pipeline']['version'][:10]}: {run['tables']}")
    if run["status"] != "succeeded":
        raise SystemExit("\n".join(run["failures"]))
    return run


def airflow(s: Stack, chosen: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run the DAG as `airflow dags test` does, by SQLite, with parameters of the DAG."""
    home = s.root / "airflow"
    (home / "dags").mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "airflow" / f"{DAG}.py", home / "dags")
    environment = {
        # Nothing of the platform can be imported there.
        **{k: v for k, v in os.environ.items() if k != "PYTHONPATH" and "ML_PLATFORM" not in k},
        "PATH": f"{AIRFLOW}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW_CONN_ML_PLATFORM": json.dumps({"conn_type": "http", "host": s.url}),
        "NO_PROXY": "127.0.0.1",
    }
    if not (home / "airflow.db").exists():
        migrate = [AIRFLOW / "airflow", "db", "migrate"]
        subprocess.run(migrate, check=True, capture_output=True, env=environment)
    return subprocess.run(
        [AIRFLOW / "airflow", "dags", "test", DAG, "--conf", json.dumps(chosen)],
        check=False, capture_output=True, text=True, env=environment, cwd=home,
    )  # fmt: skip


def said_last(done: subprocess.CompletedProcess[str]) -> str:
    """What Airflow says of the run as a whole."""
    lines = (done.stdout + done.stderr).splitlines()
    return "\n".join(f"  {line[:200]}" for line in lines if "Marking run" in line)


if __name__ == "__main__":
    main()
