import os
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed: make install-spark")
# Minutes; test_engines_spark_cluster tries the engine on a cluster for `make test-all`.
pytestmark = [pytest.mark.exhaustive, pytest.mark.spark]
ROOT = Path(__file__).parents[1]


def test_one_command_runs_it_on_a_cluster() -> None:
    done = subprocess.run(
        [ROOT / "examples" / "spark_lake" / "run"],
        env={k: v for k, v in os.environ.items() if not k.startswith("ML_PLATFORM_")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [line.strip("|").split("|") for line in done.stdout.splitlines() if "|2024-" in line]
    versions = {day.strip(): version.strip() for day, version, _ in rows}
    assert len(versions) == 9
    assert {day for day, version in versions.items() if version == "2"} == {
        "2024-03-28", "2024-03-29", "2024-03-30",
    }  # fmt: skip
