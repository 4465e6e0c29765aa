"""Folders of Parquet files, from Spark and to Spark."""

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from tests.published_trips import published_trips
from tests.shared_lakes import local_lake
from tests.shared_sources import HiveTrips, table_of
from tests.sparks import settings_of
from tests.test_publish_lakes_values import VALUES, publish
from tests.test_publish_lakes_values import table_of as declared
from tests.test_sources_lakes import a_day, reading
from tests.trips_use_case import days

pytest.importorskip("pyspark", reason="pyspark is not installed: make install-spark")
pytestmark = [pytest.mark.slow, pytest.mark.spark]

TYPES = {
    "BOOLEAN": "boolean", "INTEGER": "int", "BIGINT": "bigint", "DECIMAL(20,0)": "decimal(20,0)",
    "DECIMAL(38,0)": "decimal(38,0)", "DECIMAL(9,2)": "decimal(9,2)", "FLOAT": "float",
    "DOUBLE": "double", "VARCHAR": "string", "BLOB": "binary", "DATE": "date",
    "TIMESTAMP WITH TIME ZONE": "timestamp",
}  # fmt: skip
"""What Spark calls the types that are published."""


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from ml_platform.engines.spark.session import spark_session

    with spark_session(settings_of(tmp_path_factory.mktemp("spark")), "UTC") as session:
        yield session


@pytest.mark.exhaustive
def test_spark_reads_every_type_that_is_published(spark, tmp_path):
    shared = local_lake("parquet", tmp_path)
    table = declared({column: kind for column, (kind, *_) in VALUES.items()})
    publish(shared, table, {c: (kind, v) for c, (kind, v, *_) in VALUES.items()})
    found = spark.read.parquet(str(tmp_path / "shop" / "values"))
    kinds = dict(found.dtypes)
    assert {c: kinds[c] for c in VALUES} == {
        c: TYPES[kind] for c, (_, _, kind, _) in VALUES.items()
    }
    assert kinds["event_date"] == "date"
    (row,) = found.selectExpr(
        "text", "money", "unix_micros(local)", "bytes", "event_date"
    ).collect()
    _, _, _, local = VALUES["local"]
    micros = int(local.timestamp()) * 1_000_000 + local.microsecond
    assert tuple(row) == (
        VALUES["text"][3], VALUES["money"][3], micros, bytearray(b"\xaa\x00"), date(2024, 3, 9),
    )  # fmt: skip


def test_spark_reads_predictions_by_partition(spark, tmp_path):
    shared = local_lake("parquet", tmp_path / "shared")
    trips = published_trips(tmp_path / "published", shared.database)
    use_case = trips.declare("arrive", table="others.shop.arrive")
    trips.publish(use_case, days(9, 11))
    with trips.without_predictions(days(11, 11)):
        trips.publish(use_case, days(11, 11))
    found = spark.read.parquet(str(tmp_path / "shared" / "shop" / "arrive"))
    chosen = found.where("event_date = DATE '2024-03-10'")
    rows = chosen.selectExpr("unix_micros(event_time)", "trip", "probability").collect()
    wanted = trips.predicted("epoch_us(event_time), trip, probability", days(10, 10))
    assert sorted(map(tuple, rows)) == wanted
    assert found.count() == 80
    trips.lake.close()


def test_what_spark_writes_and_rewrites_is_followed(spark, tmp_path):
    (tmp_path / "shared").mkdir()
    shared = HiveTrips(tmp_path / "shared")
    reader = reading(tmp_path / "case", shared)

    def write(day: int, rows: Any) -> None:
        frame = spark.createDataFrame(table_of(rows).to_pandas())
        writer = frame.write.mode("overwrite").option("partitionOverwriteMode", "dynamic")
        writer.partitionBy("day").parquet(str(shared.folder))

    write(1, a_day(1))
    write(2, a_day(2))
    assert reader.behind() == [1, 2]
    reader.ingest(1, 2)
    write(2, a_day(2).assign(delay=1.0).iloc[:3])
    assert reader.behind() == [2]
    reader.ingest(2, 2)
    assert reader.counts() == {1: 4, 2: 3}
    assert reader.rows(
        "SELECT min(delay), max(delay) FROM lake.trips.trips WHERE day = '2024-03-02'"
    ) == [(1.0, 1.0)]
    reader.lake.close()
