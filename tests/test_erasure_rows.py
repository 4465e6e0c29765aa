"""Which rows are an entity's, and how files are written without them."""

import gzip
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from ml_platform.erasure import key_columns, named_entity
from ml_platform.erasure.landing_files import find_landed, rewrite_landed
from ml_platform.erasure.leftovers import erase_leftovers, flush_inlined
from ml_platform.erasure.matching import Matching
from ml_platform.erasure.open_files import blank_lines
from ml_platform.errors import ErasureRefused
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from ml_platform.storage.known_files import METADATA
from ml_platform.storage.renaming import delete_at_once
from tests.erased_rides import write_rides

HEADER = "ride,started_at,customer,city,distance,delay,note\n"


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    return write_rides(tmp_path)


@pytest.fixture
def matching(lake: Lake, use_case: UseCase) -> Iterator[Matching]:
    """Of customer 42, in text columns."""
    with lake.cursor(use_case.timezone) as cursor:
        yield Matching(cursor, use_case, named_entity(use_case, ["customer=42"]))


def chosen(matching: Matching, where: str | None, rows: str) -> list[int]:
    assert where is not None
    found = matching.cursor.execute(f"SELECT n FROM ({rows}) WHERE {where} ORDER BY 1").fetchall()
    return [n for (n,) in found]


def test_an_entity_is_named_by_declared_keys_and_values_of_their_types(use_case: UseCase) -> None:
    assert {"ride": "BIGINT", "customer": "VARCHAR"}.items() <= key_columns(use_case).items()
    with pytest.raises(ErasureRefused, match=r"no key column 'custmer'\. Did you mean 'customer'"):
        named_entity(use_case, ["custmer=1"])
    with pytest.raises(ErasureRefused, match="declared: ride, "):
        named_entity(use_case, ["distance=1"])
    with pytest.raises(ErasureRefused, match="ride is BIGINT, and the value given is none"):
        named_entity(use_case, ["ride=seven"])
    with pytest.raises(ErasureRefused, match="ride is given twice"):
        named_entity(use_case, ["ride=1", "ride=2"])
    for pair in ("ride", "ride="):
        with pytest.raises(ErasureRefused, match="named by column=value"):
            named_entity(use_case, [pair])
    with pytest.raises(ErasureRefused, match="name the entity"):
        named_entity(use_case, [])
    entity = named_entity(use_case, ["ride=17"])
    assert "17" not in repr(entity)
    assert entity.is_named_in("ride 17, please")
    assert not entity.is_named_in("request 170")


def test_values_are_compared_by_type_and_never_as_parts_of_texts(
    lake: Lake, use_case: UseCase
) -> None:
    rows = "VALUES (1, '42'), (2, '420'), (3, '042'), (4, ' 42'), (5, NULL), (6, '42.0')"
    with lake.cursor() as cursor:
        of_text = Matching(cursor, use_case, named_entity(use_case, ["customer=42"]))
        where = of_text.of_columns({"customer": "VARCHAR"})
        assert chosen(of_text, where, f"SELECT * FROM ({rows}) t(n, customer)") == [1]
        # A number that another table keeps as text is that number however it is written.
        of_number = Matching(cursor, use_case, named_entity(use_case, ["ride=42"]))
        where = of_number.of_columns({"ride": "VARCHAR"})
        assert chosen(of_number, where, f"SELECT * FROM ({rows}) t(n, ride)") == [1, 3, 4, 6]
        where = of_number.of_columns({"ride": "DOUBLE"})
        numbers = "SELECT * FROM (VALUES (1, 42.0), (2, 42.5), (3, NULL)) t(n, ride)"
        assert chosen(of_number, where, numbers) == [1]
        assert of_number.of_columns({"customer": "VARCHAR"}) is None


def test_what_belongs_to_an_example_or_a_prediction_is_the_entitys(matching: Matching) -> None:
    rows = (
        "SELECT * FROM (VALUES (1, 5, 'p'), (2, 6, NULL), (3, 50, 'q'), (4, NULL, NULL)) "
        "t(n, ride, prediction_id)"
    )
    columns = {"ride": "BIGINT", "prediction_id": "VARCHAR"}
    assert matching.of_columns(columns) is None
    matching.learn([("5", "2024-03-01 00:00:00+00")], ["q"])
    assert chosen(matching, matching.of_columns(columns), rows) == [1, 3]


def test_records_of_quarantine_and_lines_that_are_none_are_looked_into(matching: Matching) -> None:
    records = [
        {"customer": "42", "ride": "1"}, {"customer": "420", "ride": "42"}, {"text": "7,42,x"},
        {"text": "7,142,x"}, {"text": "42"}, {"ride": "5"}, {"text": "42", "customer": "1"},
    ]  # fmt: skip
    values = ", ".join(f"({n}, {literal(json.dumps(r))})" for n, r in enumerate(records))
    rows = f"SELECT * FROM (VALUES {values}) t(n, record)"
    assert chosen(matching, matching.of_record("record"), rows) == [0, 2, 4]
    matching.learn([("5", "2024-03-01 00:00:00+00")])
    assert chosen(matching, matching.of_record("record"), rows) == [0, 2, 4, 5]


def rewritten(matching: Matching, lake: Lake, source: str) -> int:
    found = find_landed(lake, matching, source)
    for each in found:
        rewrite_landed(matching.cursor, each)
    return sum(len(each.numbers) for each in found)


@pytest.mark.parametrize("zipped", [False, True])
def test_lines_of_text_files_become_blank_and_all_others_keep_their_numbers(
    lake: Lake, matching: Matching, zipped: bool
) -> None:
    folder = Path(lake.settings.landing_uri) / "rides" / "rides"
    folder.mkdir(parents=True)
    text = HEADER + (
        "1,2024-03-01T10:00:00Z,7,Boston,3,1,a\r\n"
        '2,2024-03-01T11:00:00Z,42,Boston,3,1,"two\nlines"\n'
        '3,2024-03-01T12:00:00Z,8,Boston,3,1,"and 42,\nmore"\n'
        "4,2024-03-01T12:00:00Z,42,Boston,-3,1,broken\n"
        "5,42,too,few\n"
        "6,2024-03-01T13:00:00Z,9,Boston,3,1,the last 42 has no end"
    )
    file = folder / "some.csv"
    # The source's glob asks for *.csv; what is in it says whether it is zipped.
    if zipped:
        file = folder / "some.csv"
        spec = matching.use_case.sources["rides"]
        zipped_source = spec.model_copy(update={"files": "rides/*.csv.gz"})
        matching.use_case.sources["rides"] = zipped_source
        file = folder / "some.csv.gz"
        file.write_bytes(gzip.compress(text.encode()))
    else:
        file.write_bytes(text.encode())
    before = file.stat().st_mtime_ns
    assert rewritten(matching, lake, "rides") == 3
    content = file.read_bytes()
    left = (gzip.decompress(content) if zipped else content).decode()
    assert left == HEADER + (
        "1,2024-03-01T10:00:00Z,7,Boston,3,1,a\r\n"
        "\n\n"
        '3,2024-03-01T12:00:00Z,8,Boston,3,1,"and 42,\nmore"\n'
        "\n\n"
        "6,2024-03-01T13:00:00Z,9,Boston,3,1,the last 42 has no end"
    )
    assert file.stat().st_mtime_ns == before
    assert rewritten(matching, lake, "rides") == 0


def test_rows_of_parquet_files_go_also_by_a_column_that_is_not_declared(
    lake: Lake, tmp_path: Path
) -> None:
    use_case = write_rides(tmp_path, "parquet")
    folder = Path(lake.settings.landing_uri) / "rides" / "tickets"
    folder.mkdir(parents=True)
    sold = pd.Timestamp("2024-03-01", tz="UTC")
    rows = pd.DataFrame(
        {"ride": [1, 2, 3], "sold_at": sold, "price": 1.5, "customer": ["42", "7", "420"]}
    )
    rows.to_parquet(folder / "some.parquet", index=False)
    rows.drop(columns="customer").to_parquet(folder / "others.parquet", index=False)
    with lake.cursor(use_case.timezone) as cursor:
        found = Matching(cursor, use_case, named_entity(use_case, ["customer=42"]))
        assert rewritten(found, lake, "tickets") == 1
    assert pd.read_parquet(folder / "some.parquet")["ride"].tolist() == [2, 3]
    assert len(pd.read_parquet(folder / "others.parquet")) == 3


def test_lines_that_have_not_landed_are_overwritten_where_they_are(
    lake: Lake, matching: Matching
) -> None:
    folder = Path(lake.settings.landing_uri) / "rides"
    matching.learn([("5", "2024-03-01 00:00:00+00")])
    lines = {
        "requests": [{"prediction_id": "p", "ride": 5}, {"prediction_id": "q", "ride": 6}],
        "feedback": [{"prediction_id": "q"}, {"prediction_id": "p"}, {"ride": 50}],
    }
    for source, records in lines.items():
        (folder / source / ".open").mkdir(parents=True)
        text = "".join(json.dumps(record) + "\n" for record in records)
        (folder / source / ".open" / "1-a.jsonl").write_text(text + '{"torn')
    opened = folder / "requests" / ".open" / "1-a.jsonl"
    size = opened.stat().st_size
    assert blank_lines(lake.settings, matching, dry_run=True) == {"requests": 1, "feedback": 1}
    with opened.open("ab", buffering=0) as service:
        assert blank_lines(lake.settings, matching, dry_run=False) == {"requests": 1, "feedback": 1}
        service.write(b"\n")
    assert opened.read_text().split("\n")[1:] == [json.dumps(lines["requests"][1]), '{"torn', ""]
    assert opened.stat().st_size == size + 1
    assert opened.read_text()[0] == " "
    said = (folder / "feedback" / ".open" / "1-a.jsonl").read_text().split("\n")
    assert [line.strip() for line in said] == [
        json.dumps(lines["feedback"][0]), "", json.dumps(lines["feedback"][2]), '{"torn',
    ]  # fmt: skip


def test_a_file_whose_writer_did_not_come_to_its_end_may_hold_it(
    lake: Lake, matching: Matching
) -> None:
    cursor = matching.cursor
    cursor.execute("CREATE SCHEMA lake.rides")
    cursor.execute("CREATE TABLE lake.rides.rides (customer VARCHAR, n BIGINT)")
    cursor.execute("INSERT INTO lake.rides.rides SELECT '43', range FROM range(1000)")
    files = Path(lake.settings.lake_files_uri)
    (whole,) = files.rglob("*.parquet")

    def left(size: int, number: int, schema: str = "rides") -> Path:
        """The first bytes of a file, as a killed writer leaves them."""
        name = f"ducklake-{number:08}-0000-0000-0000-{'0' * 12}.parquet"
        file = files / schema / whole.parent.name / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(whole.read_bytes()[:size])
        return file

    begun, empty, of_others = left(1000, 1), left(4, 2), left(1000, 3, "trips")
    found, (problem,) = erase_leftovers(lake, cursor, matching, dry_run=False)
    assert found == 0
    assert f"{begun} ends too early to be read and may hold it" in problem
    days_ago = time.time() - 3 * 86_400
    for file in (begun, empty, of_others):
        os.utime(file, (days_ago, days_ago))
    assert erase_leftovers(lake, cursor, matching, dry_run=True) == (1, [])
    assert begun.exists()
    assert erase_leftovers(lake, cursor, matching, dry_run=False) == (1, [])
    delete_at_once(lake, cursor)
    assert {*files.rglob("*.parquet")} == {whole, empty, of_others}


def test_files_of_no_snapshot_and_rows_in_the_catalog_are_found(
    lake: Lake, matching: Matching
) -> None:
    cursor = matching.cursor
    cursor.execute("CREATE SCHEMA lake.rides")
    cursor.execute("CREATE TABLE lake.rides.rides (customer VARCHAR, n BIGINT)")
    for number in range(2):
        cursor.execute(f"INSERT INTO lake.rides.rides SELECT '42', {number} FROM range(12)")
    cursor.execute("CALL ducklake_merge_adjacent_files('lake', 'rides', schema => 'rides')")
    files = Path(lake.settings.lake_files_uri)
    assert len(list(files.rglob("*.parquet"))) == 3
    assert erase_leftovers(lake, cursor, matching, dry_run=True) == (2, [])
    assert erase_leftovers(lake, cursor, matching, dry_run=False) == (2, [])
    delete_at_once(lake, cursor)
    (kept,) = files.rglob("*.parquet")
    # What a killed writer left is only surely no one's when it is a day old.
    orphan = kept.with_name(f"ducklake-{'0' * 8}-0000-0000-0000-{'0' * 12}.parquet")
    orphan.write_bytes(kept.read_bytes())
    found, problems = erase_leftovers(lake, cursor, matching, dry_run=False)
    assert (found, len(problems)) == (0, 1)
    assert "it is being written, or was left by a writer who was killed" in problems[0]
    orphan.unlink()
    cursor.execute("CALL lake.set_option('data_inlining_row_limit', 10)")
    cursor.execute("INSERT INTO lake.rides.rides VALUES ('42', 99)")
    inlined = f"SELECT table_name FROM {METADATA}.ducklake_inlined_data_tables"
    ((table,),) = cursor.execute(inlined).fetchall()
    flush_inlined(lake, cursor, "rides")
    assert cursor.execute(f"FROM {METADATA}.{table}").fetchall() == []
    assert cursor.execute("SELECT count(*) FROM lake.rides.rides").fetchone() == (25,)
