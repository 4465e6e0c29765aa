"""Queries of DuckDB as queries of Spark; `test_engines_spark` compares what they yield."""

from pathlib import Path

import pytest

from ml_platform.errors import SpecErrors
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.spark_sql import LakeTable, Untranslatable, translate
from tests.corrected_rides import CITY, LABELS, SPEC

ZONE = "America/New_York"


def test_tables_of_the_lake_become_views_of_their_snapshot() -> None:
    query = translate('SELECT a FROM lake."u"."t" AT (VERSION => 7) JOIN lake.u.s USING (a)', ZONE)
    assert query.reads == {LakeTable("u", "t", 7), LakeTable("u", "s", None)}
    assert "`u__t__7`" in query.sql
    assert "`u__s__now`" in query.sql


@pytest.mark.parametrize(
    ("query", "line", "said"),
    [
        ("SELECT a,\n  regexp_extract(b, 'x') AS c\nFROM t", 2, "REGEXP_EXTRACT"),
        ("SELECT a\nFROM t\nWHERE list_contains(b, 1)", 3, "ARRAY_CONTAINS"),
        ("SELECT timezone('UTC', t) AS u FROM t", 1, "zone of the use case alone"),
        ("SELECT date_diff('hour', a, b) AS h FROM t", 1, "DATE_DIFF"),
        ("SELECT a + INTERVAL (n) DAY AS h FROM t", 1, "fixed length"),
        ("SELECT * FROM t ASOF JOIN s ON t.k = s.k AND t.at >= s.at", 1, "not *"),
        ("SELECT at FROM t ASOF JOIN s ON t.k = s.k AND t.at >= s.at", 1, "which table 'at' is"),
        ("SELECT t.k FROM t ASOF JOIN s ON t.k = s.k AND t.at <= s.at", 1, "last row before"),
        ("SELECT t.k FROM t ASOF JOIN s USING (k, at)", 1, "ON, not USING"),
        ("SELECT * FROM t UNION ALL BY NAME SELECT * FROM s", 1, "list their columns"),
        ("SELECT x.a\nFROM t,\n  unnest(t.b) x", 3, "UNNEST"),
        ("SELECT random() AS r FROM t", 1, "RANDOM"),
        ("SELECT CAST(a AS TIME) AS r FROM t", 1, "TIME"),
        ("SELECT a FROM t USING SAMPLE 10%", 1, "SAMPLE"),
        ("PIVOT t ON a USING sum(b)", 1, "PIVOT"),
        ("SELECT a FROM t ORDER BY a LIMIT 3 OFFSET 2", 1, "OFFSET"),
    ],
)  # fmt: skip
def test_what_is_not_known_to_mean_the_same_is_refused_with_its_line(
    query: str, line: int, said: str
) -> None:
    with pytest.raises(Untranslatable, match=said.replace("*", r"\*")) as refused:
        translate(query, ZONE)
    assert refused.value.line == line


def test_what_sqlglot_cannot_read_is_refused() -> None:
    with pytest.raises(Untranslatable, match="sqlglot cannot read this query"):
        translate("SELECT a FROM (SELECT", ZONE)


def test_a_use_case_that_declares_spark_is_checked_when_it_is_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "rides"
    (folder / "features").mkdir(parents=True)
    spec = SPEC.replace("VALUES", "engine: spark").replace("FEEDBACK", "")
    (folder / "use_case.yaml").write_text(spec)
    (folder / "labels.sql").write_text(LABELS)
    (folder / "model.py").write_text("def build():\n    pass\n")
    (folder / "features" / "city.sql").write_text(CITY)
    assert load_use_case(folder).engine == "spark"
    (folder / "features" / "city.sql").write_text(
        "SELECT city, arrived AS event_time,\n  kurtosis(delay) AS odd\nFROM arrivals GROUP BY ALL"
    )
    with pytest.raises(SpecErrors, match=r"city\.sql:2: engine spark: .*KURTOSIS") as refused:
        load_use_case(folder)
    assert "not known to mean the same in Spark" in str(refused.value)


def test_the_engine_changes_neither_data_nor_model(tmp_path: Path) -> None:
    versions = set()
    for engine in ("in_process", "spark"):
        folder = tmp_path / engine / "rides"
        (folder / "features").mkdir(parents=True)
        spec = SPEC.replace("VALUES", f"engine: {engine}").replace("FEEDBACK", "")
        (folder / "use_case.yaml").write_text(spec)
        (folder / "labels.sql").write_text(LABELS)
        (folder / "model.py").write_text("def build():\n    pass\n")
        (folder / "features" / "city.sql").write_text(CITY)
        versions.add(load_use_case(folder).code_version)
    assert len(versions) == 1
