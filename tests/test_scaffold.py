import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ml_platform.errors import PlatformError, SpecError
from ml_platform.features import check_leak, compute_features, compute_labels
from ml_platform.monitoring import report_drift, report_performance
from ml_platform.registry import Registry
from ml_platform.scoring import reproduce, score
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.scaffold import Overrides, sample, scaffold
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from ml_platform.training import decide, train
from tests.plain_tables import orders, power, tickets

pytestmark = pytest.mark.slow

COMMIT = Commit("test", "0")
NOW = datetime(2030, 1, 1, tzinfo=UTC)
NAMED = {"power": ("temperature",), "tickets": (), "orders": ("size",)}
"""Columns that nearly determine the label, and are known before all the same."""


@dataclass(frozen=True)
class Deployment:
    settings: Settings
    lake: Lake
    registry: Registry


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    settings = Settings(data=folder / "data", use_cases=folder / "use_cases")
    lake = Lake(settings)
    yield Deployment(settings, lake, Registry(settings))
    lake.close()


@pytest.mark.parametrize(
    ("make", "task", "cadence", "key", "columns", "group"),
    [
        (power, "regression", "hourly", ("measured_at",),
         ["zone", "humidity"], "zone"),
        (tickets, "binary", "daily", ("ticket_id",),
         ["plan", "calls", "Monthly Charge"], "plan"),
        (orders, "multiclass", "monthly", ("shop", "date"),
         ["shop", "region"], "shop"),
    ],
)  # fmt: skip
def test_a_plain_table_is_guessed_right(
    settings: Settings, tmp_path: Path, make, task, cadence, key, columns, group
):
    settings = settings.model_copy(update={"use_cases": tmp_path / "use_cases"})

    guess = scaffold(settings, "guessed", make(tmp_path), Overrides()).guess

    assert (guess.task, guess.rhythm.cadence, guess.key) == (task, cadence, key)
    assert (list(guess.columns), guess.group) == (columns, group)


@pytest.mark.parametrize(
    ("make", "cutoff", "metric", "at_least"),
    [
        (power, "2024-03-30-18:00", "holdout_r2", 0.5),
        (tickets, "2024-01-28", "holdout_roc_auc", 0.65),
        (orders, "2021-10-01", "holdout_accuracy", 0.7),
    ],
)
def test_what_is_scaffolded_runs_unedited_from_landing_to_performance(
    deployment: Deployment, tmp_path: Path, make, cutoff: str, metric: str, at_least: float
):
    lake, registry = deployment.lake, deployment.registry
    file = make(tmp_path)
    made = scaffold(deployment.settings, file.stem, file, Overrides(inputs=NAMED[file.stem]))
    use_case = load_use_case(made.folder)
    calendar = use_case.calendar
    everything = Window(calendar.start, calendar.window_at(last(made.guess.last, use_case)).end)
    rows = row_count(file)

    for source in use_case.sources:
        counts = ingest(lake, use_case, source, everything, COMMIT).windows.values()
        assert sum(c.ingested for c in counts) == rows
    (view,) = use_case.features
    features = compute_features(lake, use_case, view, everything, COMMIT)
    assert sum(features.rows.values()) > rows / 2
    *_, latest = (window for window, count in features.rows.items() if count)
    assert check_leak(lake, use_case, view, latest).problem is None
    assert sum(compute_labels(lake, use_case, everything, COMMIT).rows.values()) == rows

    moment = calendar.window(cutoff).start
    report = train(lake, registry, use_case, moment, COMMIT, tags={})
    assert report.metrics[metric] > at_least
    decided = decide(lake, registry, use_case, report.version, COMMIT, decided_by="test")
    assert decided.promotion.decision == "promoted"

    served = Window(moment, everything.end)
    scored = score(lake, registry, use_case, served, COMMIT)
    assert set(scored.versions.values()) == {report.version}
    window = calendar.window_at(moment)
    assert reproduce(lake, registry, use_case, window).is_exact
    drift = report_drift(lake, registry, use_case, served, COMMIT)
    assert all(found.judged for found in drift.windows.values())
    performance = report_performance(lake, use_case, served, COMMIT, now=NOW)
    assert not performance.skipped
    assert {found.status for found in performance.windows.values()} == {"ok"}


def last(moment: datetime, use_case: UseCase) -> datetime:
    return moment.replace(tzinfo=use_case.calendar.timezone)


def row_count(file: Path) -> int:
    readers = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
    read = readers.get(file.suffix, lambda path: pd.read_json(path, lines=True))
    return len(read(file))


@dataclass(frozen=True)
class Bench:
    """Where files are scaffolded from."""

    settings: Settings
    folder: Path

    def write(self, text: str, name: str = "table.csv") -> Path:
        file = self.folder / name
        file.write_text(text)
        return file

    def guess(self, file: Path, **said):
        return scaffold(self.settings, "example", file, Overrides(**said)).guess

    def refusal(self, file: Path, name: str = "example", **said) -> str:
        with pytest.raises(SpecError) as caught:
            scaffold(self.settings, name, file, Overrides(**said))
        return str(caught.value).replace(f"{self.folder}/", "")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(Settings(data=tmp_path / "data", use_cases=tmp_path / "use_cases"), tmp_path)


def table(rows: int = 2000, **columns: str) -> str:
    """A CSV text, a row an hour; `{n}` in a column is the number of the row."""
    lines = [",".join(("time", *columns))]
    for n in range(rows):
        moment = datetime.fromtimestamp(1.7e9 - 1.7e9 % 3600 + 3600 * n, UTC)
        values = (eval(f"f'{value}'", {"n": n}) for value in columns.values())
        lines.append(",".join((f"{moment:%Y-%m-%d %H:%M:%S}", *values)))
    return "\n".join(lines) + "\n"


def test_the_label_is_known_a_window_later_and_unknown_categories_are_served(bench: Bench):
    made = scaffold(bench.settings, "example", power(bench.folder), Overrides())
    use_case = load_use_case(made.folder)

    assert "load" not in use_case.sources["records"].columns
    assert use_case.sources["outcomes"].known_at == "measured_at + INTERVAL 1 hour"
    assert str(use_case.label.horizon) == "1h"
    assert not use_case.serving.known_categories


def test_every_guess_can_be_overridden(bench: Bench):
    guess = bench.guess(
        power(bench.folder),
        label="temperature",
        key=("measured_at", "zone"),
        cadence="daily",
        task="regression",
        timezone="Europe/Berlin",
    )

    assert (guess.label, guess.key) == ("temperature", ("measured_at", "zone"))
    assert guess.rhythm.cadence == "daily"
    assert set(guess.reasons.values()) >= {"you said so"}
    text = (bench.folder / "use_cases" / "example" / "use_case.yaml").read_text()
    assert "partitions: {cadence: daily, start: 2024-03-29, timezone: Europe/Berlin}" in text


def test_a_column_that_determines_the_label_is_left_out_and_said_so(bench: Bench):
    file = bench.write(
        table(label="{n % 7 * n % 11}", double="{2 * (n % 7 * n % 11)}", x="{n % 9}")
    )

    guess = bench.guess(file, task="regression")

    assert guess.columns == ("x",)
    assert guess.left_out == {"double": "determines label exactly, so it was hardly known before"}


def test_a_time_that_lies_after_the_event_is_left_out(bench: Bench):
    guess = bench.guess(tickets(bench.folder))

    assert guess.event_time == "created_at"
    assert guess.left_out["resolved_at"] == "lies after the event, so it was not known yet"


def test_a_series_without_groups_keeps_history_by_the_hour(bench: Bench):
    guess = bench.guess(bench.write(table(sales="{(n % 24) * 3 + n % 7}.5")))

    assert guess.group == "hour_of_event"
    assert guess.rhythm.cadence == "weekly"
    use_case = load_use_case(bench.folder / "use_cases" / "example")
    assert list(use_case.model_columns) == [
        "hour_of_event",
        "weekday_of_event",
        "hour_of_event_history__mean_known",
        "hour_of_event_history__last_known",
    ]


def test_column_names_that_are_no_names_are_quoted_everywhere(bench: Bench):
    columns = {"Station Id": "s{n % 5}", "order": "{n % 9}", "é-1": "{n % 3}", "label": "{n % 2}"}

    guess = bench.guess(bench.write(table(**columns)))

    assert guess.group == "Station Id"
    use_case = load_use_case(bench.folder / "use_cases" / "example")
    assert list(use_case.model_columns)[:5] == [
        "hour_of_event", "weekday_of_event", "station_id", "c_order", "c_1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said", "refusal"),
    [
        ("a,b\n1,01/12/2024\n", {},
         "table.csv --event-time: none of the columns holds times like 2024-01-31 15:00; tried "
         "31.01.2024, 31/01/2024 and 01/31/2024 too; there are a ('1'), b ('01/12/2024')"),
        (table(sales="{n}"), {"event_time": "tim"},
         "table.csv --event-time: no column 'tim'. Did you mean 'time'?"),
        (table(sales="{n}"), {"event_time": "sales"},
         "table.csv --event-time: 'sales' holds no times but '0'; write them like "
         "2024-01-31 15:00"),
        (table(sales="{n}"), {"label": "sale"},
         "table.csv --label: no column 'sale'. Did you mean 'sales'?"),
        (table(sales="{n}"), {"label": "time"},
         "table.csv --label: 'time' is the event time or part of the key"),
        (table(), {}, "table.csv --label: nothing is left to predict beside time"),
        (table(sales="1"), {"label": "sales"},
         "table.csv --label: 'sales' is always the same; there is nothing to learn"),
        (table(label="t{n}", x="{n % 5}"), {},
         "table.csv --label: 'label' has 2000 different values, too many for classes; name "
         "another column"),
        (table(label="t{n % 3}"), {"task": "regression"},
         "table.csv --task: 'label' is VARCHAR; regression needs numbers"),
        (table(label="t{n % 3}"), {"task": "binary"},
         "table.csv --task: 'label' has 3 different values; binary needs two"),
        (table(label="{n % 2}", x="{n % 5}"), {"key": ("x",)},
         "table.csv --key: x: only 5 of 2,000 rows differ in it; name more columns"),
        (table(5, label="{n % 2}"), {},
         "table.csv --cadence: from 2023-11-14 22:00:00 to 2023-11-15 02:00:00 there are less "
         "than 12 hours; more history is needed to learn from"),
        ("time,x,label\n" + "2024-01-01 00:00,1.5,2.5\n" * 30, {},
         "table.csv --key: nothing distinguishes 90% of the rows; add a column that numbers them, "
         "or name several"),
        ("time:label\n" + "a,b\n;;\n" * 9, {},
         "table.csv --event-time: none of the columns holds times like 2024-01-31 15:00; tried "
         "31.01.2024, 31/01/2024 and 01/31/2024 too; there are time:label (';;')"),
        ("time;label\n" + "2024-01-01;1;2\n" * 9, {},
         "table.csv: cannot be read as csv: its lines have other numbers of values than its "
         "header; tried commas, semicolons, tabs, bars. Write it with one of these, and double "
         "quotes around texts"),
        ("time,label\n", {}, "table.csv: has no rows; a guess needs some"),
        (table(sales="{n}"), {"timezone": "Berlin"},
         "table.csv --timezone: no time zone 'Berlin'; they look like 'Europe/Berlin'"),
    ],
)  # fmt: skip
def test_what_cannot_be_guessed_is_refused_with_what_would_help(
    bench: Bench, text: str, said: dict[str, object], refusal: str
):
    assert bench.refusal(bench.write(text), **said) == refusal
    assert not (bench.folder / "use_cases" / "example").exists()
    assert not (bench.folder / "data").exists()


def test_a_csv_file_of_semicolons_decimal_commas_and_german_dates_is_ingested(
    deployment: Deployment, bench: Bench
):
    days = [datetime.fromtimestamp(1.7e9 + 86_400 * (n // 10), UTC) for n in range(400)]
    lines = [
        f'{n};{day:%d.%m.%Y};{n % 89},{n % 7};0{n % 5};"a\nb";{"ja" if n % 3 else "nein"}'
        for n, day in enumerate(days)
    ]
    lines[7] = lines[7].replace("7,0", "k.A.")
    lines[9] = lines[9].replace("9,2", "1.234,5")
    text = "\n".join(["Nr;Tag;Umsatz;Plz;Text;Status", *lines])
    file = bench.write(text, "german.csv")

    made = scaffold(deployment.settings, "german", file, Overrides())

    use_case = load_use_case(made.folder)
    source = use_case.sources["records"]
    assert source.csv is not None
    assert source.csv.model_dump() == {
        "separator": ";", "decimal": ",", "thousands": ".", "times": ("%d.%m.%Y",)
    }  # fmt: skip
    assert (source.columns["Umsatz"], source.columns["Plz"]) == ("DOUBLE", "VARCHAR")
    text = (made.folder / "use_case.yaml").read_text()
    assert "DOUBLE  # thousands are set apart; 'k.A.' (1 times) means null" in text
    begin = use_case.calendar.start
    everything = Window(begin, use_case.calendar.window_at(last(made.guess.last, use_case)).end)
    counts = ingest(deployment.lake, use_case, "records", everything, COMMIT).windows.values()
    assert sum(count.ingested for count in counts) == 400
    with deployment.lake.cursor() as cursor:
        (sales,) = cursor.execute("SELECT max(Umsatz) FROM lake.german.records").fetchall()
    assert sales == (1234.5,)


def test_a_folder_or_a_glob_of_one_kind_of_file_is_one_source(bench: Bench):
    folder = bench.folder / "parts"
    folder.mkdir()
    lines = table(sales="{n}.5", extra="{n}").splitlines(keepends=True)
    bench.write("".join(lines[:1001]), "parts/a.csv")
    bench.write("time,sales\n" + "".join(line.rpartition(",")[0] + "\n" for line in lines[1001:]),
                "parts/b.csv")  # fmt: skip

    made = scaffold(bench.settings, "example", folder, Overrides())

    assert made.landed.endswith("/example/records/*.csv")
    use_case = load_use_case(made.folder)
    assert use_case.sources["records"].files == "records/*.csv"
    assert made.guess.last - made.guess.first == timedelta(hours=1999)
    assert made.guess.left_out["extra"] == "not in every file"
    landed = bench.folder / "data" / "landing" / "example" / "records"
    assert sorted(file.name for file in landed.iterdir()) == ["a.csv", "b.csv"]

    bench.write("", "parts/c.parquet")
    assert bench.refusal(folder, "other") == (
        "parts: there are files of several kinds (2 .csv, 1 .parquet); name one: 'parts/*.csv'"
    )
    glob = scaffold(bench.settings, "other", folder / "*.csv", Overrides())
    assert glob.guess == made.guess
    assert "parts/*.txt: there is no file to read" in bench.refusal(folder / "*.txt", "none")


def test_a_few_rows_that_are_there_twice_are_counted_and_not_refused(bench: Bench):
    lines = table(station="s{n % 3}", label="{n % 2}", x="{n % 9}").splitlines(keepends=True)
    lines = [line.replace(":00:00", f":{n % 3}0:00") for n, line in enumerate(lines)]
    file = bench.write("".join([*lines, *lines[1:41]]))
    named = bench.guess(file, key=("time", "station"))
    twice = "40 rows repeat a key or lack it, and will be quarantined"

    assert named.reasons["key"] == f"you said so; {twice}"
    guessed = scaffold(bench.settings, "other", file, Overrides()).guess
    assert guessed.key == ("time",)
    assert guessed.reasons["key"] == f"distinguishes nearly all rows; {twice}"


def test_numbers_of_rows_and_names_of_too_many_are_no_inputs_and_days_no_hours(bench: Bench):
    rows = range(6000)
    frame = pd.DataFrame(
        {
            "day": [pd.Timestamp("2024-01-01") + pd.Timedelta(days=n // 100) for n in rows],
            "lfd_nr": [n + n // 7 for n in rows],
            "Customer-Nr": [f"K{n % 600}" for n in rows],
            "plan": ["ab"[n % 2] for n in rows],
            "churn": [n % 5 == 0 for n in rows],
        },
        index=[f"r{n}" for n in rows],
    )
    file = bench.folder / "customers.parquet"
    frame.to_parquet(file)

    guess = bench.guess(file)

    assert (guess.key, guess.group, guess.rhythm.cadence) == (("lfd_nr",), "Customer-Nr", "daily")
    assert guess.columns == ("plan",)
    assert guess.left_out == {
        "lfd_nr": "numbers the rows",
        "Customer-Nr": "names too many different things to learn each",
        "__index_level_0__": "the index of pandas",
    }
    use_case = load_use_case(bench.folder / "use_cases" / "example")
    assert use_case.examples.entity == ("lfd_nr", "Customer-Nr")


def test_an_existing_use_case_is_never_overwritten(bench: Bench):
    file = bench.write(table(sales="{n}"))
    (bench.folder / "use_cases" / "example").mkdir(parents=True)

    assert bench.refusal(file) == (
        "use_cases/example: is there already; remove it, or take another name"
    )


@pytest.mark.parametrize(
    ("name", "suggested"), [("My Case", "my_case"), ("2day", "c_2day"), ("../up", "up")]
)
def test_a_name_that_is_none_is_refused(bench: Bench, name: str, suggested: str):
    assert f"such as '{suggested}'" in bench.refusal(bench.write(table(sales="{n}")), name)


def test_a_file_that_is_not_there_or_not_known_is_refused(bench: Bench):
    bench.write("", "tables.csv")

    assert bench.refusal(bench.folder / "table.csv") == (
        "table.csv: there is no such file; there are tables.csv"
    )
    assert "'.xlsx' is not a supported format" in bench.refusal(bench.write("", "table.xlsx"))


def test_with_a_remote_landing_the_file_is_left_to_the_person(bench: Bench):
    settings = bench.settings.model_copy(update={"landing": "s3://bucket/landing"})

    made = scaffold(settings, "example", power(bench.folder), Overrides())

    assert not made.is_landed
    assert made.landed == "s3://bucket/landing/example/records/power.csv"


def test_refusals_are_errors_of_the_platform(bench: Bench):
    with pytest.raises(PlatformError):
        scaffold(bench.settings, "example", bench.folder / "none.csv", Overrides())


def test_what_nearly_determines_the_label_is_left_out_or_given_with_a_warning(bench: Bench):
    file = trips(bench.folder)
    refused = bench.guess(file, label="seconds")
    given = scaffold(
        bench.settings, "given", file, Overrides(label="seconds", inputs=("distance",))
    )

    assert refused.columns == ("passenger_count", "zone")
    why = r"alone it nearly determines seconds (0.9\d of 1), so it was hardly known before"
    assert all(re.fullmatch(why.replace("(", r"\(").replace(")", r"\)"), refused.left_out[name])
               for name in ("fare", "distance"))  # fmt: skip
    assert list(refused.strengths)[:2] == ["fare", "distance"]
    assert "distance" in given.guess.columns
    text = (given.folder / "use_case.yaml").read_text()
    assert "# WARNING, given because you said so:\n#   distance: alone it nearly" in text
    assert "# How much each alone says of seconds, from 0 to 1:\n#   distance 0.9" in text


def rides(folder: Path, spread: float) -> Path:
    """3,000 rides of a meter that writes a row when a ride ends; spread: of speeds."""
    dice, rows = np.random.default_rng(0), 3000
    began = pd.Timestamp("2024-01-01") + pd.to_timedelta(
        np.sort(dice.integers(0, 60 * 1440, rows)), unit="m"
    )
    distance = dice.gamma(2, 2, rows) + 0.3
    minutes = distance / 25 / np.exp(dice.normal(0, spread, rows)) * 60
    fare = 3 + 1.6 * distance + 0.4 * minutes
    zone = dice.integers(0, 30, rows)
    table = pd.DataFrame(
        {
            "ride": [f"r{n:06d}" for n in range(rows)],
            "began_at": began,
            "ended_at": began + pd.to_timedelta(minutes, unit="m").round("s"),
            "passengers": dice.integers(1, 5, rows),
            "distance": distance.round(2),
            "fare": fare.round(2),
            "tip": (fare * dice.choice([0, 0.1, 0.2], rows)).round(2),
            "mean_speed": (60 * distance / minutes).round(1),
            "zone": np.char.add("z", zone.astype(str)),
            "is_night": began.hour < 6,
            "rating": dice.integers(1, 6, rows) + (zone % 3) / 10,
            "duration": minutes.round(1),
        }
    )
    file = folder / "rides.csv"
    table.to_csv(file, index=False)
    return file


@pytest.mark.parametrize("spread", [0.2, 0.4, 0.8])
def test_what_is_known_at_the_end_of_a_ride_is_no_input_for_its_duration(
    bench: Bench, spread: float
):
    guess = bench.guess(rides(bench.folder, spread), label="duration", event_time="began_at")

    assert set(guess.columns) == {"passengers", "zone", "is_night", "rating"}
    assert guess.left_out["ended_at"] == "lies after the event, so it was not known yet"
    assert all("known before" in guess.left_out[name] for name in ("distance", "fare", "tip"))


def test_what_grows_until_the_end_is_no_input_whatever_the_label(bench: Bench):
    guess = bench.guess(rides(bench.folder, 0.4), label="rating", event_time="began_at")

    assert not {"distance", "fare", "duration"} & set(guess.columns)
    assert re.fullmatch(
        r"says 0\.\d\d of 1 of how long it took until ended_at, so it was hardly known before",
        guess.left_out["distance"],
    )
    assert {"passengers", "zone", "is_night"} <= set(guess.columns)


def test_two_columns_that_determine_the_label_together_are_no_inputs_unless_said(bench: Bench):
    file = bench.write(
        table(grew="{(n * 37 % 100) - (n * 53 % 97)}", before="{n * 53 % 97}",
              after="{n * 37 % 100}", x="{n % 9}")
    )  # fmt: skip
    guess = bench.guess(file, task="regression", label="grew")

    why = "with {} it nearly determines grew, so one of both was hardly known before"
    assert guess.left_out["before"] == why.format("after")
    assert guess.left_out["after"] == why.format("before")
    assert guess.columns == ("x",)
    overrides = Overrides(task="regression", label="grew", inputs=("before",))
    given = scaffold(bench.settings, "given", file, overrides).guess
    assert given.columns == ("before", "x")
    assert given.doubted == {"before": why.format("after")}


def test_a_part_of_a_name_makes_no_label(bench: Bench):
    assert bench.guess(trips(bench.folder)).label == "seconds"


def test_a_few_wrong_years_do_not_move_the_start(bench: Bench):
    file = trips(bench.folder, "2008-12-31 10:00:00", "2041-01-01 00:00:00")
    guess = bench.guess(file)

    assert (guess.first.year, guess.last.year) == (2018, 2018)
    text = (bench.folder / "use_cases" / "example" / "use_case.yaml").read_text()
    assert "# 1 row lies far before it, the first on 2008-12-31: quarantined." in text
    assert "# 1 row lies far after the others, the last on 2041-01-01." in text
    assert "start: 2018-03-01" in text


def test_rows_of_full_hours_have_hourly_windows_and_their_hour_is_given(bench: Bench):
    times = pd.date_range("2024-01-01", periods=24 * 40, freq="h")
    frame = pd.DataFrame(
        [(t, f"s{n:02d}", (t.hour * 7 + n * 3) % 50) for t in times for n in range(12)],
        columns=["at", "sensor_id", "count"],
    )
    file = bench.folder / "counts.csv"
    frame.to_csv(file, index=False)
    guess = bench.guess(file)

    assert (guess.rhythm.cadence, guess.label, guess.group) == ("hourly", "count", "sensor_id")
    use_case = load_use_case(bench.folder / "use_cases" / "example")
    assert {"hour_of_event", "weekday_of_event"} <= use_case.model_columns.keys()


def test_a_history_is_kept_by_what_comes_back(bench: Bench):
    rows = 4000
    frame = pd.DataFrame(
        {
            "at": pd.date_range("2024-01-01", periods=rows, freq="15min"),
            "invoice_no": [f"i{n // 3}" for n in range(rows)],
            "shop": [f"shop{n % 40}" for n in range(rows)],
            "late": [n % 3 == 0 for n in range(rows)],
        }
    )
    file = bench.folder / "invoices.csv"
    frame.to_csv(file, index=False)
    guess = bench.guess(file)

    assert guess.group == "shop"
    assert re.match(r"9\d% of the rows have one that came", guess.reasons["group"])


def test_codes_sentinels_and_thousands_are_distinguished_from_numbers(bench: Bench):
    file = bench.write(
        table(
            code="{n % 9}E{n % 7}",
            temperature="{-999 if n % 50 == 0 else n % 29}",
            revenue='"{1000 + n * 37 % 901:,}.5"',
            label="{n // 3 % 2}",
        )
    )
    made = scaffold(bench.settings, "example", file, Overrides(key=("time",)))
    source = load_use_case(made.folder).sources["records"]

    assert source.columns["code"] == "VARCHAR"
    assert (source.columns["temperature"], source.columns["revenue"]) == ("BIGINT", "DOUBLE")
    assert source.csv is not None
    assert source.csv.thousands == ","
    assert "-999" in source.null_values
    text = (made.folder / "use_case.yaml").read_text()
    assert "# codes such as 1E5, not numbers" in text
    assert "# -999 (40 times), far from all other values, means null" in text


def test_a_sample_of_a_large_file_gives_the_guess_of_the_whole(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    file = trips(bench.folder, rows=20_000)
    whole = bench.guess(file)
    monkeypatch.setattr(sample, "WHOLE_BYTES", 2**16)
    monkeypatch.setattr(sample, "ROWS_LOOKED_AT", 4_000)
    some = scaffold(bench.settings, "other", file, Overrides()).guess

    assert some.rhythm == whole.rhythm, "windows are counted over all rows"
    assert (some.first, some.last, some.key) == (whole.first, whole.last, whole.key)
    assert (some.label, some.task, some.columns) == (whole.label, whole.task, whole.columns)
    assert some.group == whole.group


def trips(folder: Path, *strays: str, rows: int = 6000) -> Path:
    """Trips whose fare follows their duration; `strays` are moments far from the others."""
    dice = np.random.default_rng(5)
    seconds = dice.gamma(3, 300, rows).round()
    starts = pd.Timestamp("2018-03-01") + pd.to_timedelta(
        np.sort(dice.integers(0, 60 * 86_400, rows)), "s"
    )
    frame = pd.DataFrame(
        {
            "trip_id": np.arange(rows) * 7 % 100_003,
            "pickup_at": starts.strftime("%Y-%m-%d %H:%M:%S"),
            "passenger_count": dice.integers(1, 5, rows),
            "zone": dice.choice(["a", "b", "c"], rows),
            "fare": (3 + seconds / 60 + dice.normal(0, 1, rows)).round(2),
            "distance": (seconds / 300 + dice.normal(0, 0.5, rows)).round(2),
            "seconds": seconds,
        }
    )
    for place, moment in enumerate(strays):
        frame.loc[place, "pickup_at"] = moment
    file = folder / "trips.csv"
    frame.to_csv(file, index=False)
    return file
