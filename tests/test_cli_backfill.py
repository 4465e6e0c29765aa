"""The backfill command without Dagster."""

import socket
from pathlib import Path

import pytest

from ml_platform.cli import main
from tests import trips_use_case as trips
from tests.dagster_servers import land_trips

MARCH = ("--from", "2024-03-01", "--to", "2024-03-06")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("ML_PLATFORM_DAGSTER_URL", nobody)
    monkeypatch.setenv("ML_PLATFORM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(tmp_path / "use_cases"))
    # Files are whole when they are there; on a quick machine they would be left for later.
    monkeypatch.setenv("ML_PLATFORM_LANDING_SETTLE_SECONDS", "0")
    trips.write_folder(tmp_path / "use_cases", "binary")
    land_trips(tmp_path / "data", 1, 6)


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, list[str], str]:
    monkeypatch.setattr("sys.argv", ["ml-platform", "backfill", "trips", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out.splitlines(), said.err


def test_without_dagster_the_error_says_what_there_is_instead(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run(monkeypatch, capsys, *MARCH)
    assert code == 1
    assert error.startswith("error: Dagster does not answer at http://127.0.0.1:")
    assert "; --here computes without Dagster, and --here --dry-run shows what" in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_here_continues_where_it_was_and_then_has_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = (*MARCH, "--here", "--with-sources", "--chunk", "2")
    shown = run(monkeypatch, capsys, *here, "--dry-run")[1]
    assert [line.split(" of ")[0] for line in shown if line.startswith("batch ")] == [
        "batch 1", "batch 2", "batch 3",
    ]  # fmt: skip
    run(monkeypatch, capsys, *MARCH[:3], "2024-03-02", "--here", "--with-sources")
    code, said, _ = run(monkeypatch, capsys, *here)
    assert code == 0
    assert said[1].split() == ["trips", "2", "4", "4"]
    # Labels of the second look ahead to the third, which has landed since.
    assert said[-1] == "15 partitions were computed"
    assert run(monkeypatch, capsys, *here)[1][-1] == "nothing to compute"


def test_a_named_table_brings_what_is_computed_from_it_unless_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(*arguments: str) -> list[str]:
        said = run(monkeypatch, capsys, *arguments, *MARCH, "--here", "--dry-run")[1]
        return [line.split()[0] for line in said[1:] if line.split()[0] != "nothing"]

    assert shown("labels", "--only") == ["labels"]
    assert shown("labels") == ["labels", "drift_report", "performance_report"]
    assert run(monkeypatch, capsys, "weather", *MARCH, "--here")[2].startswith(
        "error: trips: no table 'weather'. There are: trips, pace_features, labels,"
    )
    mistyped = run(monkeypatch, capsys, "predicton", *MARCH, "--here")[2]
    assert mistyped == "error: trips: no table 'predicton'. Did you mean 'predictions'?\n"
