"""What tables are declared to be computed from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.spec.loading import load_use_case
from ml_platform.spec.tables import reads_of, tables_of
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from tests.trips_use_case import write_folder

LOGGED = "serving: {log: {}}\nmonitoring: {window: LENGTH}\n"


@pytest.fixture(scope="module", params=["12h", "1d", "5d"])
def use_case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> UseCase:
    folder = write_folder(tmp_path_factory.mktemp("spec"), "binary").folder
    spec = folder / "use_case.yaml"
    kept = [line for line in spec.read_text().splitlines() if not line.startswith("monitoring")]
    spec.write_text("\n".join(kept) + "\n" + LOGGED.replace("LENGTH", request.param))
    return load_use_case(folder)


@given(first=st.integers(0, 40), count=st.integers(1, 30))
def test_a_range_sees_whatever_one_of_its_windows_sees(
    use_case: UseCase, first: int, count: int
) -> None:
    begin = use_case.calendar.start
    windows = list(use_case.calendar.windows(Window(begin, begin.replace(year=begin.year + 1))))
    chosen = windows[first : first + count]
    whole = Window(chosen[0].start, chosen[-1].end)
    tables = tables_of(use_case)
    assert {"drift_report", "live_drift_report"} <= set(tables)
    for read in (read for table in tables for read in reads_of(use_case, table)):
        seen, each = read.range(whole), [read.range(window) for window in chosen]
        assert seen == Window(min(one.start for one in each), max(one.end for one in each))


def test_a_drift_report_reads_all_that_it_compares(use_case: UseCase) -> None:
    read = {each.table for each in reads_of(use_case, "drift_report")}
    # Of the examples it reads the request columns themselves, not only what was made of them.
    assert read == {"trips", "pace_features", "labels", "predictions"}
