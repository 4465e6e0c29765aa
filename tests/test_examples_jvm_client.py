"""The batch application on the JVM: compiled, run against a real service and a real MariaDB."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml_platform.registry import predict
from ml_platform.training import train
from tests.database_servers import Database, mysql_database
from tests.endpoint_front import Front, Said, front_of
from tests.served import Deployment, deployed
from tests.test_scoring_endpoint_swaps import decide, wait_until_served
from tests.trips_use_case import COMMIT, at, trips

SOURCE = Path(__file__).parents[1] / "examples" / "jvm_client" / "ScoreTable.java"
DRIVER = Path("/usr/share/java/mariadb-java-client.jar")
pytestmark = pytest.mark.slow


@dataclass
class World:
    made: Deployment
    front: Front
    database: Database
    classes: Path

    def command(self, table: str, **more: str) -> tuple[list[str], dict[str, str]]:
        url = f"jdbc:mariadb://127.0.0.1:{self.database.address['port']}/{self.database.schema}"
        environment = {
            **os.environ,
            "MODEL_URL": f"http://{self.front.address}/v2/models/trips",
            "JDBC_URL": f"{url}?rewriteBatchedStatements=true",
            "DB_USER": self.database.address["user"],
            "DB_PASSWORD": self.database.address["password"],
            "SOURCE_TABLE": "to_score",
            "TARGET_TABLE": table,
            "CHUNK_ROWS": "50",
            **more,
        }
        return ["java", "-cp", f"{self.classes}:{DRIVER}", "ScoreTable"], environment

    def run(self, table: str, **more: str) -> "subprocess.CompletedProcess[str]":
        command, environment = self.command(table, **more)
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=300
        )

    def written(self, table: str) -> list[tuple[Any, ...]]:
        return self.database.run(f"SELECT id, prediction, model_version FROM {table} ORDER BY id")


def some_rows() -> pd.DataFrame:
    """Trips of which the 200th has a city that no model has seen."""
    known = trips(1, 10).reset_index(drop=True)
    rows = pd.DataFrame({"city": known["city"], "distance": known["distance"]})
    rows["pace__pace"] = rows["distance"] / 60
    rows.loc[200, "city"] = 'Bos"tn\\'
    return rows


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, mariadb: Any) -> Iterator[World]:
    if shutil.which("javac") is None:
        pytest.skip("javac is not installed; apt-get install openjdk-17-jdk-headless")
    if not DRIVER.exists():
        pytest.skip("there is no JDBC driver; apt-get install libmariadb-java")
    root = tmp_path_factory.mktemp("jvm")
    subprocess.run(
        ["javac", "-Xlint:all", "-Werror", "-d", str(root / "classes"), str(SOURCE)], check=True
    )
    database = mysql_database(mariadb, "jvm_client")
    database.run(
        "CREATE TABLE to_score (id BIGINT PRIMARY KEY, city VARCHAR(40), distance DOUBLE, "
        "pace__pace DOUBLE)"
    )
    rows = some_rows().astype(object)
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO to_score VALUES (%s, %s, %s, %s)",
            [(i, *row) for i, row in enumerate(rows.where(rows.notna(), None).to_numpy().tolist())],
        )
    with deployed(root) as made, made.served() as served, front_of(served.http) as front:
        yield World(made, front, database, root / "classes")


def test_predictions_are_in_the_table_to_the_bit_and_what_is_refused_beside_it(
    world: World,
) -> None:
    world.front.rule = lambda number, body: Said(503) if number % 3 == 0 else None
    done = world.run("predictions")
    assert (done.returncode, done.stdout) == (0, "400 rows, 1 skipped in all\n"), done.stderr
    rows = some_rows()
    model = world.made.registry.load(world.made.use_case, 1)
    asked = rows.drop(index=200)
    expected = predict(world.made.use_case, model, asked)["probability"]
    assert world.written("predictions") == [
        (i, value, 1) for i, value in zip(asked.index, expected, strict=True)
    ]
    ((skipped, reason),) = world.database.run("SELECT * FROM predictions_skipped")
    assert skipped == 200
    assert "column 'city'" in reason
    # A finished job asks for nothing.
    world.front.asked.clear()
    assert world.run("predictions").returncode == 0
    assert world.front.asked == []


def test_a_job_that_is_killed_continues_after_its_last_chunk(world: World) -> None:
    come = threading.Event()
    world.front.asked.clear()
    world.front.passed.clear()

    def rule(number: int, body: bytes) -> Said | None:
        if number < 3:
            return None
        come.set()
        return Said(503, headers={"retry-after": "60"})

    world.front.rule = rule
    command, environment = world.command("restarted")
    process = subprocess.Popen(command, env=environment)
    try:
        assert come.wait(120)
    finally:
        process.kill()
        process.wait()
    assert len(world.written("restarted")) == 150
    before = list(world.front.passed)
    world.front.rule = lambda number, body: None
    world.front.asked.clear()
    done = world.run("restarted")
    assert (done.returncode, done.stdout) == (0, "250 rows, 1 skipped in all\n"), done.stderr
    assert not set(world.front.asked) & set(before)
    assert world.written("restarted") == world.written("predictions")


def test_more_refusals_than_are_allowed_end_the_job(world: World) -> None:
    done = world.run("few_skips", SKIP_LIMIT="0")
    assert done.returncode == 1
    assert done.stderr.startswith("error: 1 rows are refused, more than 0; row 200: HTTP 4")
    assert len(done.stderr.splitlines()) == 1
    assert len(world.written("few_skips")) == 200


def test_a_service_that_is_not_there_is_named(world: World) -> None:
    done = world.run(
        "unavailable", MODEL_URL="http://127.0.0.1:1/v2/models/trips", PATIENCE_SECONDS="1"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: http://127.0.0.1:1/v2/models/trips: ConnectException")
    assert "hush" not in done.stderr


def test_a_promotion_in_the_middle_stops_nothing_and_each_row_has_its_version(
    world: World,
) -> None:
    made = world.made
    newer = train(made.lake, made.registry, made.use_case, at(22), COMMIT, tags={}).version

    def promote(number: int, body: bytes) -> Said | None:
        if number == 3:
            decide(made, newer, 22)
            wait_until_served(world.front, newer)
        return None

    world.front.asked.clear()
    world.front.rule = promote
    done = world.run("blue_green")
    assert (done.returncode, done.stdout) == (0, "400 rows, 1 skipped in all\n"), done.stderr
    # Chunks of 50 rows: the fourth and later ones are answered by the new version.
    written = world.written("blue_green")
    assert [version for *_, version in written[:150]] == [1] * 150
    assert {version for *_, version in written[150:]} == {newer}
    models = {v: made.registry.load(made.use_case, v) for v in (1, newer)}
    rows = some_rows().drop(index=200)
    expected = {v: predict(world.made.use_case, m, rows)["probability"] for v, m in models.items()}
    assert [value for _, value, _ in written] == [expected[v][i] for i, _, v in written]
