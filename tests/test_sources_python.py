"""Functions of a use case that yield rows: what they are asked for, and what they may get wrong."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from ml_platform.errors import LakeUnavailable, LandingError, SpecErrors
from ml_platform.settings import Settings
from ml_platform.sources import IngestReport, arrivals, ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.tables import code_version
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake

COMMIT = Commit("run-1", "abc")
NOW = datetime(2024, 6, 1, tzinfo=UTC)
SPEC = """\
description: Orders
partitions: {cadence: daily, start: 2024-03-01}
sources:
  orders:
    python: source:orders
    database: store
    high_water: revision
    event_time: ordered_at
    key: [order_id]
    columns: {order_id: VARCHAR, ordered_at: TIMESTAMPTZ, revision: BIGINT, weight: DOUBLE}
examples: {source: orders, entity: [order_id], columns: ["weight"]}
label: {task: regression}
model: {metric: mae}
"""
HEAD = """\
from datetime import UTC, datetime

import pyarrow as pa

ASKED = []


def orders(start, end, since, database):
    ASKED.append((start, end, since))
"""
TWO_BATCHES = """\
    noon = datetime(2024, 3, 2, 12, tzinfo=UTC)
    yield pa.table({"order_id": ["a"], "ordered_at": [noon], "revision": [5000], "weight": [1.5]})
    yield pa.table({"weight": [2], "order_id": ["b"], "ordered_at": [noon], "revision": [5001]})
"""


def declared(root: Path, body: str) -> UseCase:
    folder = root / "orders"
    folder.mkdir(exist_ok=True)
    (folder / "use_case.yaml").write_text(SPEC)
    (folder / "labels.sql").write_text(
        "SELECT order_id, ordered_at AS event_time, weight AS label, known_at FROM orders"
    )
    (folder / "model.py").write_text("def build():\n    pass\n")
    (folder / "source.py").write_text(HEAD + body)
    return load_use_case(folder, ["store"])


def taken(root: Path, use_case: UseCase, **settings: object) -> IngestReport:
    made = Settings(
        data=root / "data", server_wait_seconds=0,
        databases={"store": SecretStr("store://ada:hidden@nowhere/app")}, **settings,
    )  # fmt: skip
    lake = Lake(made)
    day = Window(datetime(2024, 3, 2, tzinfo=UTC), datetime(2024, 3, 3, tzinfo=UTC))
    try:
        return ingest(lake, use_case, "orders", day, COMMIT)
    finally:
        lake.close()


def test_batches_with_columns_in_another_order_and_of_another_type_are_rows_alike(tmp_path):
    report = taken(tmp_path, declared(tmp_path, TWO_BATCHES))
    assert [(c.landed, c.ingested) for c in report.windows.values()] == [(2, 2)]


def test_it_is_asked_for_the_partitions_or_for_what_has_changed(tmp_path):
    use_case = declared(tmp_path, TWO_BATCHES)
    lake = Lake(Settings(data=tmp_path / "data"))
    _asked(use_case).clear()
    seen = arrivals(lake, use_case, "orders", COMMIT, NOW).state
    arrivals(lake, use_case, "orders", COMMIT, NOW, seen)
    asked = _asked(use_case)
    day = datetime(2024, 3, 2, tzinfo=UTC), datetime(2024, 3, 3, tzinfo=UTC)
    # 1,000 below the highest number: transactions do not end in the order of their numbers.
    assert asked == [(None, None, None), (None, None, 4001), (*day, None)]
    lake.close()


def test_batches_of_windows_that_are_apart_may_have_other_types(tmp_path):
    body = """\
    for day, order in {2: 2, 9: "9", 16: 16}.items():
        noon = datetime(2024, 3, day, 12, tzinfo=UTC)
        if start is None or start <= noon < end:
            order = order if start else str(order)
            columns = {"order_id": [order], "ordered_at": [noon], "revision": [5000]}
            yield pa.table({**columns, "weight": [1.0]})
"""
    use_case = declared(tmp_path, body.replace("{2: 2", "{2: 2.5"))
    lake = Lake(Settings(data=tmp_path / "data"))
    seen = arrivals(lake, use_case, "orders", COMMIT, NOW).state
    with pytest.raises(LandingError, match="'order_id' is DOUBLE, and VARCHAR is declared"):
        arrivals(lake, use_case, "orders", COMMIT, NOW, seen)
    spec = use_case.folder / "use_case.yaml"
    spec.write_text(spec.read_text().replace("order_id: VARCHAR", "order_id: DOUBLE"))
    use_case = load_use_case(use_case.folder, ["store"])
    seen = arrivals(lake, use_case, "orders", COMMIT, NOW).state
    found = arrivals(lake, use_case, "orders", COMMIT, NOW, seen)
    assert [window.start.day for window in found.windows] == [2, 9, 16]
    lake.close()


def test_a_range_of_many_partitions_is_asked_for_once(tmp_path):
    use_case = declared(tmp_path, TWO_BATCHES)
    lake = Lake(Settings(data=tmp_path / "data"))
    _asked(use_case).clear()
    bounds = datetime(2024, 3, 2, tzinfo=UTC), datetime(2024, 6, 2, tzinfo=UTC)
    ingest(lake, use_case, "orders", Window(*bounds), COMMIT)
    assert _asked(use_case) == [(*bounds, None)]
    lake.close()


def test_without_any_row_there_is_nothing_to_ingest(tmp_path):
    report = taken(tmp_path, declared(tmp_path, "    return iter(())\n"))
    assert [counts.landed for counts in report.windows.values()] == [0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "    yield pa.table({'order': ['a']})\n",
            "'order_id' VARCHAR is not there (did you mean 'order'?)",
        ),
        ("    raise KeyError('weight')\n    yield\n", "source:orders, line 10: KeyError: 'weight'"),
        ("    return 3\n", "source:orders: TypeError: 'int' object is not iterable"),
        ("    raise ValueError(database)\n    yield\n", "store://ada:***@nowhere/app"),
    ],
)
def test_what_a_function_gets_wrong_is_reported_in_one_line(tmp_path, body, said):
    with pytest.raises(LandingError) as caught:
        taken(tmp_path, declared(tmp_path, body))
    assert str(caught.value).startswith("orders/orders: source:orders")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_server_that_does_not_answer_is_unavailable(tmp_path):
    body = "    raise ConnectionError('no answer')\n    yield\n"
    with pytest.raises(LakeUnavailable, match="line 10: ConnectionError: no answer"):
        taken(tmp_path, declared(tmp_path, body))


def test_another_text_of_the_file_is_another_version_of_the_code(tmp_path):
    before = code_version(declared(tmp_path, TWO_BATCHES), "orders")
    assert code_version(declared(tmp_path, TWO_BATCHES), "orders") == before
    changed = declared(tmp_path, TWO_BATCHES.replace("1.5", "1.25"))
    assert code_version(changed, "orders") != before


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("python: source:ordres", "sources.orders.python: source.py has no function 'ordres'"),
        ("python: sauce:orders", "sources.orders.python: there is no file 'sauce.py'"),
        ("python: source", "sources.orders.python: "),
        ("database: stare", "has no database 'stare'. Did you mean 'store'?"),
    ],
)
def test_a_mistake_in_the_declaration_is_named(tmp_path, wrong, said):
    use_case = declared(tmp_path, TWO_BATCHES)
    key = wrong.partition(":")[0]
    line = next(each for each in SPEC.splitlines() if each.strip().startswith(f"{key}:"))
    (use_case.folder / "use_case.yaml").write_text(SPEC.replace(line.strip(), wrong))
    with pytest.raises(SpecErrors) as caught:
        load_use_case(use_case.folder, ["store"])
    assert said in str(caught.value)


def _asked(use_case: UseCase) -> list[tuple[object, ...]]:
    from ml_platform.spec.modules import run_module

    return run_module(use_case.name, use_case.folder / "source.py").ASKED
