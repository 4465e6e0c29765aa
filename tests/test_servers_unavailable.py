"""Servers that stop under commands: what may wait waits, and no password is ever shown."""

import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, urlsplit

import pytest

from ml_platform.settings import Settings
from ml_platform.storage import Lake
from tests.dagster_servers import ROOT, land_trips
from tests.object_stores import s3_thread
from tests.severed import Proxy
from tests.trips_use_case import write_folder

pytestmark = pytest.mark.slow

PASSWORD = "hush-hush-8f3a"
CLI = [sys.executable, "-m", "ml_platform.cli"]
RANGE = ("trips", "--range", "2024-03-01...2024-03-08")
WRITERS = (("ingest", *RANGE), ("features", *RANGE), ("labels", *RANGE))
READERS = (("status", "trips"), ("history", "trips"))


@dataclass(frozen=True)
class Place:
    """A deployment whose catalog, and whose files where they are on S3, are behind proxies."""

    environment: dict[str, str]
    """In which passwords are references to a file that holds them."""
    reference: str
    proxies: dict[str, Proxy]

    def start(self, *command: str, **variables: str) -> "Running":
        return Running(
            subprocess.Popen(
                [*CLI, *command], env={**self.environment, **variables}, cwd=ROOT, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip

    def run(self, *command: str, **variables: str) -> "Running":
        running = self.start(*command, **variables)
        running.wait()
        return running

    def rows(self) -> dict[str, tuple[int, int]]:
        """Rows of each table, and how many different ones."""
        settings = Settings(
            **{k.removeprefix("ML_PLATFORM_").lower(): v.replace(self.reference, PASSWORD)
               for k, v in self.environment.items()
               if k.startswith("ML_PLATFORM_")
               and not k.startswith(("ML_PLATFORM_DAGSTER", "ML_PLATFORM_SERVING"))}
        )  # fmt: skip
        lake = Lake(settings)
        with lake.cursor() as cursor:
            found = {
                table: cursor.execute(
                    f"SELECT count(*), count(DISTINCT trip) FROM lake.trips.{table}"
                ).fetchone()
                for table in ("trips", "pace_features", "labels")
            }
        lake.close()
        return found


class Running:
    """A command under way, and what it has said so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []
        self.waits = threading.Event()
        self._threads = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (process.stdout, process.stderr)
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self.said.append(line)
                if line.startswith("waiting up to"):
                    self.waits.set()

    def wait(self) -> int:
        code = self.process.wait()
        for thread in self._threads:
            thread.join()
        return code

    @property
    def text(self) -> str:
        return "".join(self.said)

    @property
    def errors(self) -> list[str]:
        return [line for line in self.said if line.startswith("error: ")]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PASSWORD)
    with s3_thread(PASSWORD) as store:
        store.client.create_bucket(Bucket="lake")
        host, _, port = store.authority.partition(":")
        yield host, int(port)


@pytest.fixture(params=["postgres", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, postgres) -> Iterator[Place]:
    postgres.psql("CREATE DATABASE unavailable;")
    server = parse_qs(urlsplit(postgres.get_uri("unavailable")).query)["host"][0]
    write_folder(tmp_path / "use_cases", "binary")
    land_trips(tmp_path / "data", 1, 8)
    (tmp_path / "password").write_text(PASSWORD)
    reference = f"${{file:{tmp_path}/password}}"
    with tempfile.TemporaryDirectory() as folder:
        name = ".s.PGSQL.5432"
        proxies = {"postgres": Proxy(f"{folder}/{name}", f"{server}/{name}")}
        environment = {
            **os.environ,
            "ML_PLATFORM_DATA": str(tmp_path / "data"),
            "ML_PLATFORM_USE_CASES": str(tmp_path / "use_cases"),
            "ML_PLATFORM_DAGSTER_URL": "http://127.0.0.1:9",
            "ML_PLATFORM_CATALOG": f"postgres:host={folder} user=postgres password={reference} "
            "dbname=unavailable",
        }
        if request.param == "s3":
            address = request.getfixturevalue("s3")
            proxies = {"s3": Proxy(("127.0.0.1", 0), address)}
            host, port = proxies["s3"].listen
            environment |= {
                "ML_PLATFORM_LAKE_FILES": "s3://lake/files/",
                "ML_PLATFORM_EXTENSIONS": "httpfs",
                "ML_PLATFORM_SECRETS_SQL": "CREATE SECRET (TYPE s3, KEY_ID 'key', SECRET "
                f"'{reference}', ENDPOINT '{host}:{port}', URL_STYLE 'path', USE_SSL false, "
                "REGION 'us-east-1')",
            }
        yield Place(environment, reference, proxies)
        for proxy in proxies.values():
            proxy.close()
    postgres.psql("DROP DATABASE unavailable WITH (FORCE);")


@pytest.mark.exhaustive
def test_commands_wait_for_a_server_that_comes_back(place: Place) -> None:
    draw = random.Random(9)
    (proxy,) = place.proxies.values()
    waited = 0
    for command in (*WRITERS, *READERS, *WRITERS):
        closed = proxy.close_after(draw.randint(1, 40))
        running = place.start(*command)
        # It may be over before so many messages were sent.
        while not closed.wait(0.05) and running.process.poll() is None:
            pass
        if closed.is_set():
            while not running.waits.wait(0.05) and running.process.poll() is None:
                pass
            waited += running.waits.is_set()
            proxy.open()
        assert running.wait() == 0, running.text
        assert "Traceback" not in running.text
        assert PASSWORD not in running.text
    assert waited
    assert place.rows() == dict.fromkeys(("trips", "pace_features", "labels"), (320, 320))


@pytest.mark.exhaustive
def test_commands_fail_in_one_line_where_it_does_not_come_back(
    place: Place, tmp_path: Path
) -> None:
    draw = random.Random(10)
    (proxy,) = place.proxies.values()
    for command in WRITERS:
        assert place.run(*command).process.returncode == 0
    failed = 0
    for command in (*WRITERS, *READERS, ("train", "trips", "--cutoff", "2024-03-08")) * 2:
        closed = proxy.close_after(draw.randint(1, 30))
        for day in range(1, 9):
            # Other content each time, so that there is something to write.
            os.utime(tmp_path / "data" / "landing" / "trips" / f"2024-03-0{day}.csv")
        running = place.run(*command, ML_PLATFORM_SERVER_WAIT_SECONDS="0.5")
        if closed.is_set():
            proxy.open()
        assert "Traceback" not in running.text, running.text
        assert PASSWORD not in running.text
        assert "backfill" not in running.text, running.text
        if running.process.returncode and command[0] != "train":
            failed += 1
            assert len(running.errors) == 1 or command[0] == "status", running.text
            assert "unavailable" in running.text or "cannot be opened" in running.text
    assert failed
    settled(place, proxy)
    hidden(tmp_path / "data")


def settled(place: Place, proxy: Proxy) -> None:
    """Nothing was lost or doubled, and the same commands succeed."""
    proxy.close_after(10**9)
    for command in WRITERS:
        assert place.run(*command).process.returncode == 0
    assert place.rows() == dict.fromkeys(("trips", "pace_features", "labels"), (320, 320))


def hidden(folder: Path) -> None:
    """The password is in no file that was written: catalogs, logs, artifacts."""
    for file in folder.rglob("*"):
        if file.is_file():
            assert PASSWORD.encode() not in file.read_bytes(), file


RUNS = """
import sys
import dagster as dg
from ml_platform_dagster.definitions import defs
from ml_platform.settings import Settings

with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    job = defs.resolve_implicit_global_asset_job_def()
    for day in range(1, 5):
        result = job.execute_in_process(
            instance=instance, raise_on_error=False, partition_key=f"2024-03-0{day}",
            asset_selection=[dg.AssetKey(["trips", "trips"])],
        )
    print("ended", flush=True)
"""


def test_no_run_event_and_no_row_of_the_audit_shows_a_password(
    place: Place, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_bytes((ROOT / "deploy" / "dagster.yaml").read_bytes())
    (proxy,) = place.proxies.values()
    ingested = place.run("ingest", *RANGE)
    assert ingested.process.returncode == 0, ingested.text
    proxy.close_after(random.Random(11).randint(10, 60))
    environment = {
        **place.environment,
        "DAGSTER_HOME": str(home),
        "ML_PLATFORM_SERVER_WAIT_SECONDS": "0.2",
    }
    ended = subprocess.run(
        [sys.executable, "-c", RUNS, str(home)],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "ended" in ended.stdout, ended.stderr
    assert PASSWORD not in ended.stdout + ended.stderr
    hidden(home)
    proxy.open()
    proxy.close_after(10**9)
    rows = place.run("audit").text
    assert "ingest" in rows
    assert PASSWORD not in rows
