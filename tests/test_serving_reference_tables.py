"""Rows of a table are predicted like those of a request, and the answers are in another table."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import pytest
from pydantic import SecretStr

from ml_platform.registry import predict
from ml_platform.serving.control import row_tables
from tests.dagster_servers import free_port
from tests.database_servers import Database
from tests.served import deployed
from tests.test_serving_references import SCORE, World, some_rows

pytestmark = pytest.mark.parametrize(
    "database",
    ["sqlite", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("postgres", "mysql"))],
    indirect=True,
    scope="module",
)
COLUMNS = ("order", "city", "distance", "pace__pace")


@dataclass(frozen=True)
class Shop:
    """The service, and a database that callers share with it."""

    world: World
    database: Database

    def create(self, name: str, rows: pd.DataFrame) -> str:
        """A table of rows, as the callers' own client creates it."""
        quoted = '"' if self.database.kind != "mysql" else "`"
        names = ", ".join(f"{quoted}{column}{quoted}" for column in COLUMNS)
        kinds = ("BIGINT", "VARCHAR(40)", "DOUBLE PRECISION", "DOUBLE PRECISION")
        columns = ", ".join(
            f"{quoted}{column}{quoted} {kind}" for column, kind in zip(COLUMNS, kinds, strict=True)
        )
        values = [
            "(" + ", ".join(_literal(value) for value in row) + ")"
            for row in rows[list(COLUMNS)].itertuples(index=False)
        ]
        self.database.run(
            f"CREATE TABLE {name} ({columns})",
            *(
                f"INSERT INTO {name} ({names}) VALUES {', '.join(values[at : at + 500])}"
                for at in range(0, len(values), 500)
            ),
        )
        return f"shop:{name}"

    def tables(self) -> set[str]:
        query = {
            "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
            "postgres": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
            "mysql": "SELECT table_name FROM information_schema.tables "
            "WHERE table_schema = database()",
        }[self.database.kind]
        return {name for (name,) in self.database.run(query)}


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return "NULL" if pd.isna(value) else repr(value)


@pytest.fixture(scope="module")
def shop(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    root = tmp_path_factory.mktemp("tables")
    folder = root / "shared"
    folder.mkdir()
    unavailable = f"postgres:host=127.0.0.1 port={free_port()} dbname=x password=hush7"
    databases = {
        "databases": {"shop": SecretStr(database.setting), "unavailable": SecretStr(unavailable)}
    }
    tables = ("shop:batch_*", "unavailable:*", "none:*")
    with deployed(root) as made:
        known = replace(made, settings=made.settings.model_copy(update=databases))
        with known.client(batches=folder, batch_tables=tables) as client:
            yield Shop(World(known, client, folder), database)


def test_answers_are_the_rows_of_the_table_with_their_predictions_to_the_bit(shop: Shop) -> None:
    world, rows = shop.world, some_rows(3000)
    sent = world.send(shop.create("batch_monday", rows), "shop:batch_monday_answers")
    run = world.over(sent)
    assert run["status"] == "succeeded", run
    assert run["rows"] == {"done": 3000, "of": 3000}
    select = "SELECT {} FROM batch_monday_answers ORDER BY 1"
    quoted = "`order`" if shop.database.kind == "mysql" else '"order"'
    names = f"{quoted}, city, distance, probability, model_version"
    answers = shop.database.run(select.format(names))
    model = world.made.registry.load(world.made.use_case, 1)
    frame = rows.drop(columns="order").astype({"city": object})
    expected = predict(world.made.use_case, model, frame)["probability"].tolist()
    assert [probability for *_, probability, _ in answers] == expected
    held = pd.DataFrame([row[:3] for row in answers], columns=["order", "city", "distance"])
    pd.testing.assert_frame_equal(held, rows[["order", "city", "distance"]], check_dtype=False)
    assert {version for *_, version in answers} == {1}
    assert "batch_monday_answers" in shop.tables()
    assert not any(name.startswith("ml_platform_part") for name in shop.tables())


@pytest.mark.slow
def test_rows_of_a_file_are_answered_in_a_table_and_the_other_way_round(shop: Shop) -> None:
    world, rows = shop.world, some_rows(50).assign(note="ü" * 300)
    rows["seen"] = pd.date_range("2024-03-01 12:00:00.123456", periods=50, tz="UTC")
    sent = world.send(world.write("in/mixed.parquet", rows), "shop:batch_mixed")
    run = world.over(sent)
    assert run["status"] == "succeeded", run
    found = shop.database.run("SELECT note, seen FROM batch_mixed ORDER BY seen")
    assert {note for note, _ in found} == {"ü" * 300}
    assert str(found[0][1]).startswith("2024-03-01 12:00:00.123456")
    back = world.over(world.send(shop.create("batch_back", some_rows(5)), "out/back.parquet"))
    assert back["status"] == "succeeded", back
    assert len(pd.read_parquet(world.folder / "out" / "back.parquet")) == 5


@pytest.mark.slow
def test_a_batch_that_fails_leaves_no_table(shop: Shop) -> None:
    rows = some_rows(30)
    rows.loc[7, "city"] = "Bostn"
    run = shop.world.over(shop.world.send(shop.create("batch_odd", rows), "shop:batch_odd_answers"))
    assert run["status"] == "failed"
    assert "Did you mean 'Boston'?" in run["failures"][0]
    assert "batch_odd_answers" not in shop.tables()


@pytest.mark.slow
def test_a_table_that_comes_meanwhile_is_not_replaced(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_tables.RowTable, "require_absent", lambda _: None)
    shop.database.run(
        "CREATE TABLE batch_theirs (a INTEGER)", "INSERT INTO batch_theirs VALUES (7)"
    )
    rows = shop.world.write("in/theirs.parquet", some_rows(3))
    run = shop.world.over(shop.world.send(rows, "shop:batch_theirs"))
    assert run["status"] == "failed"
    assert "already" in run["failures"][0]
    assert shop.database.run("SELECT a FROM batch_theirs") == [(7,)]
    assert not any(name.startswith("ml_platform_part") for name in shop.tables())


def test_a_database_that_is_unavailable_is_reported(shop: Shop) -> None:
    answer = shop.world.send("unavailable:rows", "shop:batch_unused")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["detail"].startswith("database 'unavailable' cannot be opened")
    assert "hush7" not in answer.text


REFUSED = {
    "not allowed": ("rows", "shop:secrets", "is none of the tables of ML_PLATFORM_SERVING_BATCH"),
    "no table": ("rows", "shop:", "should be database:table"),
    "too deep": ("answers", "shop:a.b.batch_c", "should be database:table"),
    "not there": ("rows", "shop:batch_no", "there is no table 'shop:batch_no'"),
    "no database": ("rows", "none:batch", "knows no database 'none'"),
    "empty": ("rows", "shop:batch_empty", "'shop:batch_empty' has no rows"),
    "there": ("answers", "shop:batch_empty", "is there already; name another table"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tables_that_cannot_be_are_refused_by_parameter(shop: Shop, name: str) -> None:
    world = shop.world
    if "batch_empty" not in shop.tables():
        shop.create("batch_empty", some_rows(1).head(0))
    world.write("in/a.parquet", some_rows(1))
    field, table, said = REFUSED[name]
    body = {"rows": "in/a.parquet", "answers": "shop:batch_unused", field: table}
    answer = world.client.post(SCORE, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["field"] == field
    assert said in answer.json()["detail"]
