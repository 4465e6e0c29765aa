"""Whatever owners do with their tables, a source holds the rows that they hold."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_sources_lakes import KINDS, a_day, reading

DAYS = st.integers(1, 3)
CHANGES = st.one_of(
    st.tuples(st.just("append"), DAYS, st.integers(1, 50)),
    st.tuples(st.just("rewrite"), DAYS, st.integers(1, 50)),
    st.tuples(st.just("delete"), DAYS, st.integers(0, 3)),
    st.tuples(st.just("compact"), DAYS, st.just(0)),
    st.tuples(st.just("ingest"), DAYS, st.just(0)),
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
@settings(max_examples=12)
@given(changes=st.lists(CHANGES, min_size=3, max_size=7))
def test_a_source_holds_what_its_table_holds(kind, changes):
    with TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "shared").mkdir()
        shared = KINDS[kind](root / "shared")
        reader = reading(root / "case", shared)
        held: dict[int, pd.DataFrame] = {}
        for change, day, number in [("append", 1, 1), *changes, ("ingest", 1, 0)]:
            there = held.get(day, a_day(day).iloc[:0])
            match change:
                case "append" if there.empty:
                    held[day] = a_day(day, seed=number)
                    shared.append(held[day])
                case "rewrite" if not there.empty:
                    held[day] = a_day(day, seed=number).iloc[: 1 + number % 4]
                    shared.rewrite(f"2024-03-0{day}", held[day])
                case "delete" if len(there) > 1:
                    trip = there["trip"].iloc[number % len(there)]
                    shared.delete(int(trip))
                    held[day] = there[there["trip"] != trip]
                case "compact":
                    shared.compact()
                case "ingest":
                    for behind in reader.behind():
                        reader.ingest(behind, behind)
        assert reader.behind() == []
        found = reader.rows("SELECT trip, distance, delay FROM lake.trips.trips ORDER BY trip")
        rows = pd.concat(held.values()).sort_values("trip")[["trip", "distance", "delay"]]
        rows = rows.astype(object).where(rows.notna(), None)
        assert found == list(rows.itertuples(index=False, name=None))
        (quarantined,) = reader.rows("SELECT count(*) FROM lake.trips.quarantine") or [(0,)]
        assert quarantined == (0,)
        reader.lake.close()
