"""Tables of lakes that others own as sources: what is new, rewritten and gone is noticed."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import SecretStr

from ml_platform.settings import Settings
from ml_platform.sources import Arrivals, IngestReport, arrivals, ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from tests.shared_sources import DeltaTrips, HiveTrips, IcebergTrips, SharedTrips
from tests.trips_use_case import COMMIT, SPEC, days, trips, write_folder

KINDS: dict[str, Callable[[Path], SharedTrips]] = {
    "parquet": HiveTrips, "delta": DeltaTrips, "iceberg": IcebergTrips,
}  # fmt: skip


@dataclass
class Reader:
    """A use case that reads trips of others."""

    use_case: UseCase
    lake: Lake
    seen: str | None = None

    def look(self) -> Arrivals:
        now = datetime.now(UTC) + timedelta(minutes=1)
        found = arrivals(self.lake, self.use_case, "trips", COMMIT, now, self.seen)
        self.seen = found.state
        return found

    def behind(self) -> list[int]:
        """Days that are behind the table."""
        return [window.start.day for window in self.look().windows]

    def ingest(self, first: int, last: int) -> IngestReport:
        return ingest(self.lake, self.use_case, "trips", days(first, last), COMMIT)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.lake.cursor() as cursor:
            return cursor.execute(query).fetchall()

    def counts(self) -> dict[int, int]:
        """Rows by day of March."""
        query = "SELECT day(timezone('America/New_York', started_at)) AS d, count(*) "
        return dict(self.rows(f"{query} FROM lake.trips.trips GROUP BY 1 ORDER BY 1"))


def reading(root: Path, shared: SharedTrips) -> Reader:
    folder = write_folder(root, "binary").folder
    spec = SPEC.replace("TASK", "binary").replace("METRIC", "roc_auc")
    spec = spec.replace('files: "*.csv"', shared.origin)
    spec = spec.replace("delay: DOUBLE}", "delay: DOUBLE, day: DATE}")
    (folder / "use_case.yaml").write_text(spec)
    databases = {name: SecretStr(value) for name, value in shared.setting.items()}
    lake = Lake(Settings(data=root / "data", databases=databases))
    return Reader(load_use_case(folder, databases), lake)


@pytest.fixture(params=list(KINDS))
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> SharedTrips:
    (tmp_path / "shared").mkdir()
    return KINDS[request.param](tmp_path / "shared")


@pytest.fixture
def reader(shared: SharedTrips, tmp_path: Path):
    made = reading(tmp_path / "case", shared)
    yield made
    made.lake.close()


def a_day(day: int, seed: int = 0) -> pd.DataFrame:
    return trips(day, day, a_day=4, seed=seed)


def test_rows_land_with_the_columns_of_their_partitions(shared, reader):
    shared.append(pd.concat([a_day(1), a_day(2)]))
    assert reader.behind() == [1, 2]
    report = reader.ingest(1, 2)
    assert [(c.landed, c.ingested, c.quarantined) for c in report.windows.values()] == [
        (4, 4, 0)
    ] * 2
    found = reader.rows(
        "SELECT trip, epoch_us(started_at), city, distance, delay, day FROM lake.trips.trips "
        "ORDER BY trip"
    )
    expected = pd.concat([a_day(1), a_day(2)]).astype(object)
    expected = expected.where(expected.notna(), None)
    assert [row[:1] + row[2:5] for row in found] == list(
        expected[["trip", "city", "distance", "delay"]].itertuples(index=False, name=None)
    )
    assert [row[1] for row in found] == [int(t.timestamp() * 1e6) for t in expected["started_at"]]
    assert [str(row[5]) for row in found] == [
        t.strftime("%Y-%m-%d") for t in expected["started_at"]
    ]
    assert reader.behind() == []


def test_what_is_appended_is_read_and_nothing_else(shared, reader):
    shared.append(a_day(1))
    reader.look()
    reader.ingest(1, 1)
    shared.append(a_day(2))
    assert reader.behind() == [2]
    assert reader.ingest(2, 2).files == 1
    assert reader.counts() == {1: 4, 2: 4}


def test_a_row_that_its_owner_deletes_is_removed(shared, reader):
    shared.append(a_day(1))
    shared.append(a_day(2))
    reader.look()
    reader.ingest(1, 2)
    shared.delete(10_001)
    assert 1 in reader.behind()
    report = reader.ingest(1, 2)
    (first, _) = report.windows.values()
    assert (first.ingested, first.changed) == (3, True)
    assert reader.counts() == {1: 3, 2: 4}
    assert reader.behind() == []
    ended = reader.rows(
        "SELECT trip, _known_until IS NOT NULL FROM lake.trips.trips_versions ORDER BY trip"
    )
    assert ended == [(10_001, True)]


def test_a_partition_that_is_rewritten_is_a_correction(shared, reader):
    shared.append(pd.concat([a_day(1), a_day(2)]))
    reader.look()
    reader.ingest(1, 2)
    other = a_day(2).assign(delay=99.0).iloc[:3]
    shared.rewrite("2024-03-02", other)
    assert reader.behind() == [2]
    reader.ingest(2, 2)
    assert reader.counts() == {1: 4, 2: 3}
    versions = reader.rows(
        "SELECT trip, count(*), count(_known_until) FROM lake.trips.trips_versions "
        "GROUP BY 1 ORDER BY 1"
    )
    assert versions == [(20_000, 2, 1), (20_001, 2, 1), (20_002, 2, 1), (20_003, 1, 1)]


def test_the_same_rows_in_other_files_change_nothing(shared, reader):
    shared.append(a_day(1).iloc[:2])
    shared.append(a_day(1).iloc[2:])
    reader.look()
    reader.ingest(1, 1)
    shared.compact()
    reader.look()
    (counted,) = reader.ingest(1, 1).windows.values()
    assert (counted.ingested, counted.changed) == (4, False)
    assert reader.behind() == []


def test_a_row_that_breaks_the_contract_goes_to_quarantine(shared, reader):
    rows = a_day(1).assign(day="2024-03-01")
    rows["started_at"] = rows["started_at"].where(rows["trip"] != 10_002)
    shared.append(rows.assign(trip=rows["trip"].where(rows["trip"] != 10_001, 10_000)))
    reader.look()
    (counted,) = reader.ingest(1, 1).windows.values()
    assert (counted.landed, counted.ingested, counted.quarantined) == (4, 2, 2)
    reasons = reader.rows("SELECT reason FROM lake.trips.quarantine ORDER BY reason")
    assert reasons == [
        ("duplicate key (trip): row 1 came first",), ("started_at is missing",),
    ]  # fmt: skip
