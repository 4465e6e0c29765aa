"""Columns of databases that were added, lost, or are of another type than declared."""

from datetime import UTC, datetime

import pytest

from ml_platform.errors import LandingError, SpecErrors
from ml_platform.sources.column_types import require_columns, stored_kind
from ml_platform.spec.loading import load_use_case
from tests.test_sources_tables import COMMIT, NOW, Orders, arrivals, orders

__all__ = ["orders"]


def declare(orders: Orders, before: str, after: str) -> None:
    """Change the use case's declaration."""
    file = orders.use_case.folder / "use_case.yaml"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))
    orders.use_case = load_use_case(orders.use_case.folder, ["erp"])


def take_added(orders: Orders) -> None:
    declare(orders, "    high_water:", "    added_columns: take\n    high_water:")


def is_typed(orders: Orders) -> bool:
    """Whether the database has types; what the function yields of SQLite are texts."""
    return not orders.use_case.sources["orders"].python


def test_added_columns_are_ignored_and_named(orders: Orders) -> None:
    orders.put("a", 2, "02 13:00")
    assert orders.take_in(2, 2).ignored_columns == ()
    orders.execute("ALTER TABLE orders ADD COLUMN note VARCHAR(20)")
    orders.execute("ALTER TABLE orders ADD COLUMN known_at VARCHAR(20)")
    assert orders.take_in(2, 2).ignored_columns == ("note", "known_at")
    assert "note" not in columns(orders)


def test_added_columns_are_taken_where_the_source_says_so(orders: Orders) -> None:
    take_added(orders)
    orders.put("a", 2, "02 13:00")
    orders.put("b", 3, "03 13:00")
    orders.look()
    orders.take_in(2, 3)
    orders.execute("ALTER TABLE orders ADD COLUMN note VARCHAR(20)")
    orders.execute("ALTER TABLE orders ADD COLUMN known_at VARCHAR(20)")
    orders.execute("UPDATE orders SET note = 'in haste', updated_at = '2024-03-09 08:00:00'"
                   " WHERE order_id = 'a'")  # fmt: skip
    assert orders.look() == ["02"]
    # What means something in every source is not taken.
    assert orders.take_in(2, 2).ignored_columns == ("known_at",)
    assert orders.rows("order_id, note") == [("a", "in haste"), ("b", None)]
    reported = orders.rows("order_id, note, day(_known_from), _known_until", "orders_versions")
    corrected = datetime(2024, 3, 9, 8, tzinfo=UTC)
    assert reported == [("a", "in haste", 9, None), ("a", None, 2, corrected)]
    assert orders.look() == []


def test_a_taken_column_may_go_and_come_back_and_not_be_another_kind(orders: Orders) -> None:
    take_added(orders)
    orders.execute("ALTER TABLE orders ADD COLUMN weight2 DOUBLE PRECISION")
    orders.execute("INSERT INTO orders VALUES ('a', '2024-03-02 12:00:00', '2024-03-02 13:00:00',"
                   " 1, 1.5)")  # fmt: skip
    orders.take_in(2, 2)
    assert orders.rows("weight2") == [(1.5,)]
    orders.execute("ALTER TABLE orders DROP COLUMN weight2")
    orders.put("b", 2, "02 14:00")
    orders.take_in(2, 2)
    assert len(orders.rows("order_id")) == 2
    if is_typed(orders):
        orders.execute("ALTER TABLE orders ADD COLUMN weight2 VARCHAR(20)")
        orders.execute("UPDATE orders SET weight2 = 'heavy'")
        with pytest.raises(LandingError, match="'weight2' is VARCHAR, and was DOUBLE when it was"):
            orders.take_in(2, 2)


def test_a_lost_column_and_a_changed_type_are_refused_with_the_difference(orders: Orders) -> None:
    orders.put("a", 2, "02 13:00")
    orders.take_in(2, 2)
    before = orders.rows("*")
    orders.execute("ALTER TABLE orders DROP COLUMN weight")
    with pytest.raises(LandingError, match="'weight' DOUBLE is not there") as said:
        orders.take_in(2, 2)
    assert "It has order_id VARCHAR" in str(said.value)
    assert "correct `columns:` of the source, or the table" in str(said.value)
    if is_typed(orders):
        orders.execute("ALTER TABLE orders ADD COLUMN weight VARCHAR(20)")
        orders.execute("UPDATE orders SET weight = 'heavy'")
        for attempt in (
            lambda: orders.take_in(2, 2),
            lambda: arrivals(orders.lake, orders.use_case, "orders", COMMIT, NOW),
        ):
            with pytest.raises(LandingError, match="'weight' is VARCHAR, and DOUBLE is declared"):
                attempt()
    assert orders.rows("*") == before


def test_a_column_that_is_declared_later_is_no_correction_of_rows_without_news(
    orders: Orders,
) -> None:
    orders.put("a", 2, "02 13:00")
    orders.put("b", 2, "02 14:00")
    orders.take_in(2, 2)
    orders.execute("ALTER TABLE orders ADD COLUMN note VARCHAR(20)")
    declare(orders, "weight: DOUBLE}", "weight: DOUBLE, note: VARCHAR}")
    orders.execute("UPDATE orders SET note = 'in haste', updated_at = '2024-03-09 08:00:00'"
                   " WHERE order_id = 'a'")  # fmt: skip
    orders.take_in(2, 2)
    assert orders.rows("order_id, note") == [("a", "in haste"), ("b", None)]
    assert [row for (row,) in orders.rows("order_id", "orders_versions")] == ["a", "a"]


@pytest.mark.parametrize("orders", ["postgres", "adbc to postgres"], indirect=True)
@pytest.mark.slow
def test_exact_numbers_are_numbers_by_whatever_driver(orders: Orders) -> None:
    take_added(orders)
    orders.execute("ALTER TABLE orders ALTER weight TYPE NUMERIC(30, 10)")
    orders.execute("ALTER TABLE orders ADD COLUMN price NUMERIC(9, 2)")
    orders.put("b", 2, "02 14:00")
    orders.execute("INSERT INTO orders VALUES ('a', '2024-03-02 12:00:00', '2024-03-02 13:00:00',"
                   " 1.5, 2.25)")  # fmt: skip
    assert [counts.ingested for counts in orders.take_in(2, 2).windows.values()] == [2]
    assert orders.rows("order_id, weight, CAST(price AS DOUBLE)") == [
        ("a", 1.5, 2.25),
        ("b", 1.0, None),
    ]


def test_only_tables_of_databases_take_columns(orders: Orders) -> None:
    origin = "python: source:orders\n    database: erp"
    if is_typed(orders):
        origin = f"table: {orders.use_case.sources['orders'].table}"
    declare_files = f"{origin}\n    high_water: updated_at"
    with pytest.raises(SpecErrors, match=r"added_columns: 'take' is about a `table:`"):
        declare(orders, declare_files, 'files: "*.csv"\n    added_columns: take')


def columns(orders: Orders) -> list[str]:
    with orders.lake.cursor() as cursor:
        return [name for name, *_ in cursor.execute("DESCRIBE lake.orders.orders").fetchall()]


@pytest.mark.parametrize(
    ("found", "declared", "fits"),
    [
        ("INTEGER", "DOUBLE", True),
        ("DECIMAL(9,2)", "DOUBLE", True),
        ("VARCHAR", "TIMESTAMP WITH TIME ZONE", True),
        ("UUID", "VARCHAR", True),
        ("ENUM('a', 'b')", "VARCHAR", True),
        ('"NULL"', "DOUBLE", True),
        ("VARCHAR", "DOUBLE", False),
        ("BIGINT", "VARCHAR", False),
        ("BIGINT", "TIMESTAMP WITH TIME ZONE", False),
        ("BOOLEAN", "DOUBLE", False),
        ("STRUCT(a INTEGER)", "VARCHAR", False),
    ],
)
def test_what_a_column_may_hold_is_decided_by_what_its_values_are(found, declared, fits):
    if fits:
        require_columns("here", {"a": declared}, {"A": found})
    else:
        with pytest.raises(LandingError, match=r"^here is not as it is declared: 'a' is "):
            require_columns("here", {"a": declared}, {"A": found})


def test_a_type_that_a_lake_has_not_is_stored_as_text():
    kinds = ["DECIMAL(9,2)", "UUID", "ENUM('a')", "INTEGER[]", "STRUCT(a INTEGER)", "INTERVAL"]
    assert [stored_kind(kind) for kind in kinds] == ["DECIMAL(9,2)", "UUID", *["VARCHAR"] * 4]
