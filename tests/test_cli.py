import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ml_platform.cli import main
from ml_platform.settings import Settings
from ml_platform.storage import Lake
from tests.dagster_servers import land_trips
from tests.plain_tables import power
from tests.trips_use_case import write_folder

pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in a deployment of its own: exit code, output, errors."""
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(tmp_path / "use_cases"))
    monkeypatch.setenv("ML_PLATFORM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("USER", "ada")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ml-platform", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err.replace(f"{tmp_path}/", "")

    return run


def test_help_loads_nothing_that_is_heavy():
    heavy = ["duckdb", "pandas", "pydantic", "sklearn", "mlflow", "ml_platform.spec"]
    script = (
        "import sys; sys.argv = ['ml-platform', '--help']\n"
        "from ml_platform.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print('loaded', [name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert "loaded []" in done.stdout
    assert "rollback" in done.stdout


def test_check_says_of_each_use_case_that_it_is_sound_or_what_is_wrong(run: Run, tmp_path: Path):
    run("new", "power", "--from", str(power(tmp_path)))
    broken = tmp_path / "use_cases" / "broken"
    broken.mkdir()
    (broken / "use_case.yaml").write_text("description: x\npartitons: {}\n")

    code, said, errors = run("check")

    assert code == 1
    assert said.startswith("power: ok (2 sources, 1 feature views, hourly, regression, 6 model")
    assert errors.splitlines()[0] == (
        "error: use_cases/broken/use_case.yaml:1 sources: is missing; add `sources: …`"
    )
    assert errors.splitlines()[-1] == (
        "error: use_cases/broken/use_case.yaml:2 partitons: unknown key. Did you mean 'partitions'?"
    )
    assert run("check", "power")[0] == 0


def test_check_calls_the_model_function(run: Run, tmp_path: Path):
    run("new", "power", "--from", str(power(tmp_path)))
    (tmp_path / "use_cases" / "power" / "model.py").write_text("def build():\n    return 5\n")

    code, _, errors = run("check", "power")

    assert code == 1
    assert errors.startswith("error: use_cases/power/model.py:1: build() returned a int")


def test_check_finds_a_function_that_cannot_fit(run: Run, tmp_path: Path):
    run("new", "power", "--from", str(power(tmp_path)))
    folder = tmp_path / "use_cases" / "power"
    model, spec = folder / "model.py", folder / "use_case.yaml"
    model.write_text(f"def fit(estimator):\n    return estimator\n\n\n{model.read_text()}")
    spec.write_text(spec.read_text().replace("build: model:build", "fit: model:fit"))

    code, _, errors = run("check", "power")

    assert code == 1
    assert errors.startswith("error: use_cases/power/model.py:1: fit() should take the estimator")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["check", "pwer"], "pwer: no use case 'pwer'. Did you mean 'power'?"),
        (["ingest", "power", "--partition", "2024-03-29"],
         "power: '2024-03-29' is not an hourly partition; they look like '2024-03-29-00:00'"),
        (["ingest", "power", "--range", "2024-03-29-00:00"],
         "--range 2024-03-29-00:00: write first...last"),
        (["ingest", "power", "--range", "2024-03-29-01:00...2024-03-29-00:00"],
         "--range 2024-03-29-01:00...2024-03-29-00:00: the first partition is after the last"),
        (["ingest", "power", "--range", "a...b", "--partition", "c"],
         "--partition and --range exclude each other; give one of them"),
        (["features", "power"],
         "nothing has been written to power.records; materialise power/records first"),
        (["new", "power", "--from", "none.csv"],
         "use_cases/power: is there already; remove it, or take another name"),
        (["promote", "power", "3"],
         "power has no model version 3; train one"),
        (["impact", "power", "--source", "records"],
         "name one of --file F, --source S --key column=value, --version N"),
        (["impact", "power", "--version", "1", "--at", "2024-03-29"],
         "--at and --as-of choose a row; give them with --source and --key"),
        (["impact", "power", "--file", "records/power.csv"],
         "power: no file has landed yet"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_a_line_and_never_a_traceback(
    run: Run, tmp_path: Path, arguments: list[str], error: str
):
    run("new", "power", "--from", str(power(tmp_path)))

    code, _, errors = run(*arguments)

    assert code == 1
    assert errors.splitlines()[-1].startswith(f"error: {error}")


def test_without_a_use_case_check_says_how_to_make_one(run: Run):
    assert run("check")[2] == (
        "error: use_cases: no use case is here; write one with `ml-platform new`\n"
    )


def test_a_wrong_setting_is_named(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ML_PLATFORM_THREADS", "many")

    assert run("check")[2].startswith("error: ML_PLATFORM_THREADS=many: Input should be a valid")


def test_features_that_look_into_the_future_are_reported(run: Run, tmp_path: Path):
    trips = write_folder(tmp_path / "use_cases", "binary")
    land_trips(tmp_path / "data", 1, 2)
    window_range = ("trips", "--range", "2024-03-01...2024-03-02")
    assert run("ingest", *window_range)[0] == 0
    clean = r"no leak: the same with the future hidden, at [1-9]\d+ moments"
    assert re.search(clean, run("features", *window_range)[1])
    (trips.folder / "features" / "pace.sql").write_text(
        "SELECT trip, started_at AS event_time, avg(delay) OVER () AS pace FROM trips\n"
    )
    code, said, errors = run("features", *window_range)
    assert (code, "pace_features: " in said) == (1, True)
    assert "features/pace.sql: a leak in partition 2024-03-02: hiding what was not known" in errors
    said = run("status", "trips")[1]
    assert "leak checks" in said
    assert "leaks in pace_features (" in said
    again = ("--from", "2024-03-02", "--to", "2024-03-02", "--here", "--all")
    code, said, errors = run("backfill", "trips", *again, "pace_features")
    assert (code, "a leak in partition 2024-03-02" in said + errors) == (1, True), said


def test_a_landing_that_rewrites_the_past_is_recorded(run: Run, tmp_path: Path):
    write_folder(tmp_path / "use_cases", "binary")
    partition = ("trips", "--partition", "2024-03-01")
    for seed, options in (0, ()), (1, ()), (2, ("--rewrite",)):
        land_trips(tmp_path / "data", 1, 1, seed=seed)
        assert run("ingest", *partition, *options)[0] == 0
    with closing(Lake(Settings(data=tmp_path / "data"))) as lake, lake.cursor() as cursor:
        cursor.execute("USE lake.trips")
        query = "SELECT corrections FROM ingestions ORDER BY snapshot"
        assert cursor.execute(query).fetchall() == [("arrive",), ("arrive",), ("rewrite",)]
        assert cursor.execute("SELECT count(*) FROM trips_versions").fetchall() == [(0,)]
    assert run("audit", "--what", "ingest --rewrite")[1].count("2024-03-01") == 1


def test_the_whole_loop_runs_from_the_command_line(run: Run, tmp_path: Path):
    first, later = "2024-03-30-12:00", "2024-03-31-12:00"
    assert "load   " in run("new", "power", "--from", str(power(tmp_path)))[1]
    torn = tmp_path / "data" / "landing" / "power" / "records" / "torn.csv"
    torn.write_text("at\n1\n")
    code, said, problem = run("ingest", "power")
    assert "records: 4320 rows landed in 1 files, 4320 ingested" in said
    assert "records: refused records/torn.csv: " in said
    assert (code, problem.startswith("error: 1 file was refused")) == (1, True), problem
    torn.unlink()
    assert run("ingest", "power")[0] == 0
    assert "zone_history_features: 4260 rows in 71 of 72" in run("features", "power")[1]
    published = run("publish", "power", "--partition", "2024-03-31-23:00")[1].splitlines()[-1]
    assert published.split() == ["zone_history", "1200", "20", "2024-03-31", "23:59", "UTC"]
    assert "labels: 4320 rows in 72 of 72" in run("labels", "power")[1]
    assert "nothing was decided" in run("history", "power")[1]

    assert (
        f"version 1 of power trained, cutoff {first}" in run("train", "power", "--cutoff", first)[1]
    )
    newest = run("promote", "power")[1]
    assert newest.startswith("version 1 is the newest that nothing was decided about\n")
    assert "promoted" in newest
    assert "next: ml-platform publish power; ml-platform score power; ml-platform serve" in newest
    assert "no version that nothing was decided about" in run("promote", "power")[2]
    assert "was decided about before; nothing has changed" in run("promote", "power", "1")[1]
    assert "was trained before" in run("train", "power", "--cutoff", first)[1]
    code, scored, _ = run("score", "power")
    assert (code, scored.splitlines()[0]) == (
        0, "predictions: 2160 rows in 36 of 36 partitions; 36 changed",
    )  # fmt: skip
    assert "skipped 36 partitions (2024-03-29-00:00...2024-03-30-11:00): power: no pro" in scored
    assert "60 of 60 predictions of version 1" in run("reproduce", "power", "--partition", later)[1]
    code, traced, _ = run("trace", "power", "2024-03-31 12:00:00+00")
    assert (code, "rows of outcomes, latest records/power.csv:" in traced) == (0, True), traced
    assert "2024-03-31 12:00:00 UTC" in traced
    entity = "2024-03-31 12:00:00+00"
    for then in (later, "2024-03-31 12:00"):
        assert run("trace", "power", entity, "--at", then)[:2] == (0, traced)
    assert run("trace", "power", entity, "--at", first)[2] == (
        "error: power: measured_at=2024-03-31 12:00:00+00 has no prediction then; it was predicted "
        "at 2024-03-31 12:00:00+00:00\n"
    )
    assert (
        "'noon' is neither a time nor a partition"
        in run("trace", "power", entity, "--at", "noon")[2]
    )
    whole = ("impact", "power", "--file", "records/power.csv")
    assert run(*whole)[2] == (
        "error: power: file 'records/power.csv' is one of outcomes, records; name the source\n"
    )
    code, touched, _ = run(*whole, "--source", "outcomes", "--rows")
    kept = "4,320 rows landed, 4,320 kept the contract, 0 in quarantine"
    assert (code, touched.splitlines()[1]) == (0, kept)
    assert "zone_history_features  72: 2024-03-29-00:00...2024-03-31-23:00" in touched
    assert "version 1      2024-03-30 12:00 UTC" in touched
    documented = json.loads(run("impact", "power", "--version", "1", "--json")[1])
    assert sum(documented["tables"]["predictions"].values()) == 2160
    assert [each["decision"] for each in documented["decisions"]] == ["promoted"]
    assert (
        "champion from 2024-03-30 12:00 UTC and serves now"
        in run("impact", "power", "--version", "1")[1]
    )
    assert later in run("drift", "power", "--range", f"{later}...2024-03-31-14:00")[1]
    assert "60 of 60" in run("performance", "power", "--partition", later)[1]

    file = tmp_path / "use_cases" / "power" / "use_case.yaml"
    asking = file.read_text().replace("retrain: {", "retrain: {approval: required, ")
    file.write_text(asking + "gate: {min_improvement: -100}\n")
    run("train", "power", "--cutoff", later)
    assert "waiting" in run("promote", "power", "2")[1]
    code, asked, _ = run("approvals")
    assert asked.startswith("version 2 of power, cutoff 2024-03-31-12:00, waits since ")
    assert asked.splitlines()[0].endswith(" UTC")
    assert "metric  challenger  champion" in asked
    code, _, error = run("approve", "power", "1", "--reason", "why not")
    assert (code, "version 1 of power was promoted by ada" in error) == (1, True)
    assert (
        "error: power has no model version 77; train one, or look for its number in"
        in (run("approve", "power", "77", "--reason", "looks good")[2])
    )
    assert "promoted" in run("approve", "power", "2", "--reason", "looks good")[1]
    assert run("reject", "power", "2", "--reason", "too late")[0] == 1
    assert run("approvals")[1] == "power: no challenger waits for a person\n"


@pytest.mark.exhaustive
def test_a_rollback_shows_what_it_recomputes_and_asks(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, later, last = "2024-03-30-12:00", "2024-03-31-12:00", "2024-03-31-23:00"
    run("new", "power", "--from", str(power(tmp_path)))
    with (tmp_path / "use_cases" / "power" / "use_case.yaml").open("a") as file:
        file.write("gate: {min_improvement: -100}\n")
    for command in ("ingest", "features", "labels"):
        assert run(command, "power")[0] == 0
    for version, cutoff in ((1, first), (2, later)):
        run("train", "power", "--cutoff", cutoff)
        assert "promoted" in run("promote", "power", str(version))[1]
    for command in ("score", "drift", "performance"):
        assert run(command, "power", "--range", f"{first}...{last}")[0] == 0
    assert "60 predictions of version 2" in run("reproduce", "power", "--partition", last)[1]

    shown = [
        f"power: version 1 serves again from {later} on, instead of 2",
        "recomputed          partitions  which",
        f"predictions         12          {later}...{last}",
        f"drift_report        12          {later}...{last}",
        f"performance_report  12          {later}...{last}",
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    code, said, _ = run("rollback", "power", "--reason", "just to see")
    assert (code, beginning(said)) == (1, shown)
    assert "Roll back? [y/N]: " in said
    assert "rolled back" not in run("history", "power")[1]

    code, said, _ = run("rollback", "power", "--reason", "just to see", "--yes")
    assert (code, beginning(said)) == (0, shown)
    follow_up = f"--here --to 1 --from {later}"
    assert follow_up in said
    code, said, _ = run("rollback", "power", "--reason", "x", "--yes", *follow_up.split())
    assert code == 0
    assert said.startswith(f"power: version 1 serves from {later} on already")
    assert "predictions: 720 rows in 12 of 12 partitions" in said
    assert "60 predictions of version 1" in run("reproduce", "power", "--partition", last)[1]
    history = run("history", "power")[1]
    decided = [line.split()[:2] for line in history.splitlines() if line[:1].isdigit()]
    assert decided == [["1", "promoted"], ["2", "promoted"], ["1", "rolled"]]
    assert history.count(" UTC ") == len(decided)
    code, _, error = run("rollback", "power", "--reason", "again", "--to", "1", "--yes")
    assert (code, "version 1 of power serves from" in error) == (1, True)


def beginning(said: str) -> list[str]:
    return [line.rstrip() for line in said.splitlines()[:5]]


def test_check_warns_of_what_stored_rows_say_is_known_too_late(run: Run, tmp_path: Path):
    folder = write_folder(tmp_path / "use_cases", "binary").folder
    spec = (folder / "use_case.yaml").read_text()
    ruled = spec.replace("key: [trip]", 'key: [trip]\n    rules: ["delay < 10"]')
    assert ruled != spec
    (folder / "use_case.yaml").write_text(ruled)
    assert run("check")[1].count("warning") == 0
    land_trips(tmp_path / "data", 1, 1)

    landed = run("check")[1]
    assert not (tmp_path / "data" / "lake").exists()
    run("ingest", "trips", "--partition", "2024-03-01")
    code, said, _ = run("check")

    assert (code, said) == (0, landed)
    assert said.splitlines()[0].startswith("trips: ok")
    assert said.splitlines()[1].startswith("warning: trips: sources.trips.rules 'delay < 10': ")
    assert "which no request can show, since none brings delay" in said


@pytest.mark.exhaustive
def test_check_plants_leaks_and_leaves_the_lake_as_it_is(run: Run, tmp_path: Path):
    assert run("check", "--plant")[2] == "error: --plant is about one use case; name it\n"
    write_folder(tmp_path / "use_cases", "binary")
    refused = run("check", "trips", "--plant")
    assert refused[2] == (
        "error: nothing has been ingested of trips; run: ml-platform ingest trips\n"
    )
    assert not (tmp_path / "data").exists()
    land_trips(tmp_path / "data", 1, 2)
    run("ingest", "trips", "--range", "2024-03-01...2024-03-02")

    code, said, _ = run("check", "trips", "--plant")

    assert code == 0
    rows = [line.split() for line in said.splitlines()]
    assert ["pace", "nothing", "0", "clean"] in rows
    assert ["labels", "nothing", "0", "clean"] in rows
    of_corrections = [row for row in rows if "corrections," in row]
    assert [(row[0], row[-1]) for row in of_corrections] == [
        (view, outcome)
        # Of the few trips of one day each stays as late as it was.
        for view, *outcomes in (
            ("pace", "clean", "moved"),
            ("labels", "nothing", "nothing"),
            ("training", "clean", "moved"),
        )
        for outcome in outcomes
    ]
    sums = said.splitlines()[-2:]
    assert sums[0].endswith("0 false alarms in 2 queries as they are")
    assert sums[1] == "late corrections: 2 of 2 tables that they change stay as they were known"
