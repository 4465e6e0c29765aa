"""How much a single column says of the label: the ranking by which leaks are found."""

from collections.abc import Iterable
from typing import Protocol

from ml_platform.spec.declared import Task
from ml_platform.spec.queries import quote

BINS = 20
FEWEST_ROWS_A_BIN = 20
ROWS_A_BIN = 25
NEARLY = 0.85
"""From here on a column nearly determines the label."""


class QueryableRows(Protocol):
    """Rows that can be asked about by SQL, as the table `file`."""

    def numbers(self, sql: str) -> tuple[float, ...]:
        """The one row of a query as numbers; 0 for what is null or not finite."""

    def is_ordered(self, name: str) -> bool:
        """Whether a column holds numbers or times, which fall into ranges, and no names."""


def measure_strengths(
    rows: QueryableRows, label: str, task: Task, names: Iterable[str]
) -> dict[str, float]:
    """How much each column alone says of the label, from 0 to 1, the strongest first.

    label: SQL over the table.
    Columns are cut into at most 20 groups of equal size, or into their values. Of a regression it
    is the correlation ratio of the label's ranks; of classes the share of the mistakes of always
    naming the most frequent one that the column saves, of two classes at least the Gini
    coefficient of the class's share by group.
    """
    found = {
        name: _of_ranks(rows, name, label)
        if task == "regression"
        else max(_of_classes(rows, name, label), _gini(rows, name, label, task))
        for name in names
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _grouped(rows: QueryableRows, name: str, label: str, value: str) -> str:
    """A SELECT of `g`, the group of each row by a column, and `y`, a value made of its label."""
    x = quote(name)
    group = f"CAST({x} AS VARCHAR)"
    if rows.is_ordered(name):
        # Equal values share a rank, and so a group. Of few rows there are fewer groups.
        bins = f"greatest(2, least({BINS}, count(*) OVER () // {ROWS_A_BIN}))"
        rank = f"percent_rank() OVER (ORDER BY {x})"
        group = f"CASE WHEN {x} IS NOT NULL THEN least({bins} - 1, floor({bins} * {rank})) END"
    enough = f"count(*) OVER (PARTITION BY g) >= {FEWEST_ROWS_A_BIN}"
    return f"""SELECT CASE WHEN {enough} THEN g END AS g, y
        FROM (SELECT {group} AS g, {value} AS y FROM file WHERE ({label}) IS NOT NULL)"""


def _of_ranks(rows: QueryableRows, name: str, label: str) -> float:
    rank = f"percent_rank() OVER (ORDER BY {label})"
    (ratio,) = rows.numbers(
        f"""WITH grouped AS ({_grouped(rows, name, label, rank)}),
        groups AS (SELECT g, avg(y) AS mean, count(*) AS n FROM grouped GROUP BY g)
        SELECT sqrt((SELECT sum(n * pow(mean - (SELECT avg(y) FROM grouped), 2)) FROM groups)
            / nullif((SELECT sum(pow(y - (SELECT avg(y) FROM grouped), 2)) FROM grouped), 0))"""
    )
    return ratio


def _of_classes(rows: QueryableRows, name: str, label: str) -> float:
    (saved,) = rows.numbers(
        f"""WITH cells AS (SELECT g, y, count(*) AS n FROM
            ({_grouped(rows, name, label, label)}) GROUP BY ALL),
        totals AS (SELECT y, sum(n) AS n FROM cells GROUP BY y)
        SELECT ((SELECT sum(most) FROM (SELECT g, max(n) AS most FROM cells GROUP BY g))
                - (SELECT max(n) FROM totals))
            / nullif((SELECT sum(n) - max(n) FROM totals), 0)"""
    )
    return saved


def _gini(rows: QueryableRows, name: str, label: str, task: Task) -> float:
    if task != "binary":
        return 0.0
    y = f"CAST(({label}) = (SELECT min({label}) FROM file) AS DOUBLE)"
    (gini,) = rows.numbers(
        f"""WITH groups AS (SELECT g, sum(y) AS yes, count(*) - sum(y) AS no FROM
            ({_grouped(rows, name, label, y)}) GROUP BY g),
        ordered AS (SELECT yes, no, sum(no) OVER (ORDER BY yes / (yes + no), g
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) - no / 2 AS below FROM groups)
        SELECT 2 * sum(yes * below) / nullif(sum(yes) * sum(no), 0) - 1 FROM ordered"""
    )
    return gini
