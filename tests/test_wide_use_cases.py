"""A use case of many columns: what is done with each of them is not done for all of them again."""

from pathlib import Path

import pytest

from ml_platform.features.leak.check import WORK_OF_A_QUERY, _work_of_a_query
from ml_platform.features.leak.subjects import subject_of
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.queries import QueryChecker
from ml_platform.spec.use_case import UseCase

SPEC = """\
description: Will this machine fail within a day?
partitions: {{cadence: daily, start: 2024-03-01}}
sources:
  readings:
    files: "*.csv"
    event_time: read_at
    key: [machine, read_at]
    columns: {{machine: VARCHAR, read_at: TIMESTAMPTZ, failed: BOOLEAN, {columns}}}
features:
  state: {{entity: [machine], lookback: 1d, ttl: 1d}}
examples: {{source: readings, entity: [machine], columns: [{names}]}}
label: {{task: binary, horizon: 1d}}
model: {{build: "model:build", window: 12d, holdout: 3d, metric: roc_auc}}
publish:
  state: {{table: others.state, features: state}}
"""


def write(folder: Path, width: int) -> UseCase:
    """A use case whose source, examples and only view have so many columns besides others."""
    names = [f"c{number}" for number in range(width)]
    (folder / "features").mkdir(parents=True)
    spec = SPEC.format(columns=", ".join(f"{n}: DOUBLE" for n in names), names=", ".join(names))
    (folder / "use_case.yaml").write_text(spec)
    items = ", ".join(f"{name} AS {name}_now" for name in names)
    (folder / "features" / "state.sql").write_text(
        f"SELECT machine, read_at AS event_time, {items} FROM readings\n"
    )
    (folder / "labels.sql").write_text(
        "SELECT machine, read_at AS event_time, failed AS label, read_at AS known_at FROM readings"
    )
    (folder / "model.py").write_text("def build():\n    return None\n")
    return load_use_case(folder)


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Queries that DuckDB was asked about."""
    found: list[str] = []
    describe = QueryChecker._describe

    def counted(self: QueryChecker, query: str) -> list[tuple[str, str]]:
        found.append(query)
        return describe(self, query)

    monkeypatch.setattr(QueryChecker, "_describe", counted)
    return found


def test_a_use_case_is_bound_by_as_many_queries_whatever_its_columns(
    tmp_path: Path, described: list[str]
) -> None:
    asked = []
    for width in (3, 150):
        case = write(tmp_path / f"wide_{width}", width)
        assert len(case.publish["state"].types) == width + 2
        assert len(case.model_columns) == 2 * width
        asked.append(len(described))
        described.clear()
    assert asked[0] == asked[1]


def test_a_view_of_many_features_is_checked_at_fewer_moments(tmp_path: Path) -> None:
    narrow, wide = (write(tmp_path / f"wide_{width}", width) for width in (3, 150))
    of_labels = _work_of_a_query(subject_of(wide, None))
    assert _work_of_a_query(subject_of(narrow, "state")) == WORK_OF_A_QUERY
    assert WORK_OF_A_QUERY < of_labels < _work_of_a_query(subject_of(wide, "state"))
