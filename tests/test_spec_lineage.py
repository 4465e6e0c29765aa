"""Which source columns the columns of a query come from."""

import pytest

from ml_platform.spec.lineage import Lineage

SOURCES = {"s": {"a": "INT", "b": "INT", "c": "INT", "d": "INT"}}


def test_a_union_by_name_is_followed_by_name() -> None:
    query = """
        WITH changes AS (
            SELECT a, b AS at, 1 AS seen FROM s
            UNION ALL BY NAME SELECT c AS at, d AS due, a FROM s
            UNION ALL BY NAME SELECT a, d AS seen FROM s
        )
        SELECT a, max(at) AS at, sum(seen) AS seen, sum(due) AS due FROM changes GROUP BY a
    """
    assert Lineage(SOURCES).of(query) == {
        "a": (("s", "a"),),
        "at": (("s", "b"), ("s", "c")),
        "seen": (("s", "d"),),
        "due": (("s", "d"),),
    }


@pytest.mark.parametrize(
    "query",
    [
        "SELECT sum(COLUMNS(* EXCLUDE (a))) AS x FROM (SELECT a, b FROM s)",
        "(SELECT a FROM s UNION ALL SELECT b FROM s) UNION ALL BY NAME SELECT c AS a, d FROM s",
        "SELECT 1 FROM",
    ],
)
def test_what_cannot_be_followed_has_no_lineage_and_is_no_error(query: str) -> None:
    assert not any(Lineage(SOURCES).of(query).values())
