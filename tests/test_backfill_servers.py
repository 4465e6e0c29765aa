"""The backfill command against a real web server, daemon and code server."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ml_platform.orchestrator import Orchestrator, Run, RunStatus
from ml_platform.settings import Settings
from ml_platform.storage import Lake
from tests import dagster_servers as servers

pytestmark = pytest.mark.slow

TAGS = {"ml_platform/backfill": "trips"}
LAST = 12
RELOAD = """
mutation { reloadRepositoryLocation(repositoryLocationName: "ml-platform") { __typename } }
"""
START_CATCH_UP = """
mutation {
  startSchedule(scheduleSelector: {
    scheduleName: "trips_catch_up"
    repositoryName: "__repository__"
    repositoryLocationName: "ml-platform"
  }) { __typename }
}
"""


@dataclass(frozen=True)
class Project:
    """A use case with landed files, and Dagster's servers on it."""

    environment: dict[str, str]
    dagster: Orchestrator
    folder: Path

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        self.log.write_bytes(b"")
        return servers.start(
            ["ml-platform", "backfill", "trips", *arguments], self.environment, self.log
        )

    def run(self, *arguments: str, status: int = 0) -> str:
        process = self.start(*arguments)
        assert process.wait(300) == status, self.said
        return self.said

    @property
    def log(self) -> Path:
        return self.folder / "backfill.log"

    @property
    def said(self) -> str:
        return self.log.read_text()

    def runs(self) -> list[Run]:
        return self.dagster.runs(TAGS)

    def rows(self, table: str) -> dict[str, int]:
        lake = Lake(Settings(data=Path(self.environment["ML_PLATFORM_DATA"])))
        with lake.cursor("America/New_York") as cursor:
            found = cursor.execute(
                f"SELECT strftime(event_time, '%d'), count(*) FROM lake.trips.{table} GROUP BY 1"
            ).fetchall()
        lake.close()
        return dict(found)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("backfill")
    environment = servers.project(folder, 1, LAST)
    with servers.dagster_dev(environment) as url, Orchestrator(url) as dagster:
        yield Project({**environment, "ML_PLATFORM_DAGSTER_URL": url}, dagster, folder)


def days(first: int, last: int) -> tuple[str, str, str, str]:
    return "--from", f"2024-03-{first:02d}", "--to", f"2024-03-{last:02d}"


def until(enough: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not enough():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_one_command_is_one_run_with_a_progress_that_is_true(project: Project) -> None:
    said = project.run(*days(1, 4), "--with-sources")
    assert "in one batch: 2024-03-01...2024-03-04 of trips, pace_features, labels" in said
    lines = [line.split(" UTC ", 1)[1] for line in said.splitlines() if "of 12 partitions" in line]
    done = [int(line.split()[0]) for line in lines]
    assert done == sorted(done)
    assert {0, 12} <= set(done)
    assert said.endswith("12 partitions were computed\n")
    assert len(project.runs()) == 1
    assert project.rows("pace_features") == dict.fromkeys(["01", "02", "03", "04"], 40)


def test_what_is_fresh_is_not_computed_again(project: Project) -> None:
    project.run(*days(1, 4), "--with-sources")
    before = len(project.runs())
    assert project.run(*days(1, 4), "--with-sources").endswith("nothing to compute\n")
    assert len(project.runs()) == before


@pytest.mark.exhaustive
def test_killed_in_the_midst_and_called_again_it_joins_the_run_and_does_the_rest(
    project: Project,
) -> None:
    arguments = (*days(5, 8), "--with-sources", "--chunk", "2")
    before = {run.id for run in project.runs()}
    command = project.start(*arguments)
    until(lambda: len(project.runs()) > len(before))
    command.send_signal(signal.SIGKILL)
    command.wait()
    (left,) = [run for run in project.runs() if run.id not in before]
    assert not left.status.is_over
    said = project.run(*arguments)
    assert "6 of 12 partitions 2024-03-07...2024-03-08" in said
    ranges = [run.partitions for run in project.runs() if run.id not in before]
    assert sorted(r for r in ranges if r) == [
        ("2024-03-05", "2024-03-06"),
        # Labels look a day ahead, to what only the second chunk has brought.
        ("2024-03-06", "2024-03-06"),
        ("2024-03-07", "2024-03-08"),
    ]
    assert set(project.rows("labels").values()) == {40}


@pytest.mark.exhaustive
def test_an_interrupt_says_what_continues_and_how_to_end_it(project: Project) -> None:
    before = len(project.runs())
    command = project.start(*days(9, 9), "--with-sources")
    until(lambda: len(project.runs()) > before)
    run = project.runs()[0]
    # The command says what a run does once it knows of the run.
    until(lambda: "partitions 2024-03-09 " in project.said)
    command.send_signal(signal.SIGINT)
    assert command.wait(30) == 130
    assert f"continues in Dagster: {project.dagster.url}/runs/{run.id}" in project.said
    assert "`ml-platform backfill trips --end` ends it" in project.said
    assert run.id in project.run("--end")
    until(lambda: project.dagster.run(run.id).status.is_over)


@pytest.mark.exhaustive
def test_two_commands_at_once_launch_a_chunk_once(project: Project) -> None:
    before = {run.id for run in project.runs()}
    arguments = (*days(10, 11), "--with-sources")
    commands = [project.start(*arguments) for _ in range(2)]
    assert [command.wait(300) for command in commands] == [0, 0], project.said
    ranges = [run.partitions for run in project.runs() if run.id not in before]
    assert ranges == [("2024-03-10", "2024-03-11")]
    assert [project.rows("labels")[day] for day in ("10", "11")] == [40, 40]


@pytest.mark.exhaustive
def test_the_daemon_does_it_where_it_is_asked_to(project: Project) -> None:
    said = project.run(*days(12, 12), "--with-sources", "--through-daemon")
    assert said.endswith("3 partitions were computed\n")
    assert project.rows("pace_features")["12"] == 40


@pytest.mark.exhaustive
def test_a_failed_run_is_an_error_with_its_reason(project: Project) -> None:
    project.run(*days(1, 2), "--with-sources")
    query = Path(project.environment["ML_PLATFORM_USE_CASES"]) / "trips" / "features" / "pace.sql"
    working = query.read_text()
    query.write_text(working.replace("distance / 60", "CAST('slow' || trip AS DOUBLE)"))
    try:
        project.dagster.post(RELOAD)
        said = project.run("pace_features", "--only", *days(1, 2), status=1)
        shown = project.run("pace_features", "--only", *days(1, 2), "--dry-run")
    finally:
        query.write_text(working)
        project.dagster.post(RELOAD)
    assert "ended as FAILURE; what it had finished stays" in said
    assert "trips/pace_features: ml_platform.errors.QueryFailed" in said
    (row,) = [line.split() for line in shown.splitlines() if line.startswith("pace_features")]
    assert row == ["pace_features", "2", "2"]
    assert project.rows("pace_features")["01"] == 40


@pytest.mark.exhaustive
def test_the_daemon_catches_up_by_itself(tmp_path: Path) -> None:
    environment = servers.project(tmp_path, 1, 3)
    spec = Path(environment["ML_PLATFORM_USE_CASES"]) / "trips" / "use_case.yaml"
    # The days are long ago; what nothing has landed for since then is not asked for.
    spec.write_text(spec.read_text() + 'schedules: {catch_up: "* * * * *", horizon: 2000d}\n')
    ingest = ["ml-platform", "ingest", "trips", "--range", "2024-03-01...2024-03-03"]
    assert servers.start(ingest, environment, tmp_path / "ingest.log").wait(120) == 0
    with servers.dagster_dev(environment) as url, Orchestrator(url) as dagster:
        dagster.post(START_CATCH_UP)
        tags = {"ml_platform/upkeep": "trips"}
        until(lambda: any(run.status is RunStatus.success for run in dagster.runs(tags)), 240)
        # Two more ticks find nothing left to do.
        seen = servers.finished_ticks(environment, "trips_catch_up")
        until(lambda: servers.finished_ticks(environment, "trips_catch_up") >= seen + 2, 240)
        (run,) = dagster.runs(tags)
    assert set(run.tables) == {"trips/pace_features", "trips/labels"}
    # Features of the fourth see the trips of the third.
    assert run.partitions == ("2024-03-01", "2024-03-04")
