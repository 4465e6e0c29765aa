"""How much a single column says of the label: the ranking by which leaks are found."""

from collections.abc import Iterable

from ml_platform.spec.declared import Task
from ml_platform.spec.queries import quote
from ml_platform.spec.scaffold.profile import Profile

BINS = 20
FEWEST_ROWS_A_BIN = 20
NEARLY = 0.85
"""From here on a column nearly determines the label."""


def measure_strengths(
    profile: Profile, label: str, task: Task, names: Iterable[str]
) -> dict[str, float]:
    """How much each column alone says of the label, from 0 to 1, the strongest first.

    Columns are cut into at most 20 groups of equal size, or into their values. Of a regression it
    is the correlation ratio of the label's ranks; of classes the share of the mistakes of always
    naming the most frequent one that the column saves, of two classes at least the Gini
    coefficient of the class's share by group.
    """
    found = {
        name: _of_ranks(profile, name, label)
        if task == "regression"
        else max(_of_classes(profile, name, label), _gini(profile, name, label, task))
        for name in names
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _grouped(profile: Profile, name: str, label: str, value: str) -> str:
    """A SELECT of `g`, the group of each row by a column, and `y`, a value made of its label."""
    column = profile.columns[name]
    x, y = quote(name), quote(label)
    group = f"CAST({x} AS VARCHAR)"
    if column.is_number or column.is_time:
        # Equal values share a rank, and so a group.
        group = (
            f"CASE WHEN {x} IS NOT NULL THEN floor({BINS} * percent_rank() OVER (ORDER BY {x})) END"
        )
    enough = f"count(*) OVER (PARTITION BY g) >= {FEWEST_ROWS_A_BIN}"
    return f"""SELECT CASE WHEN {enough} THEN g END AS g, y
        FROM (SELECT {group} AS g, {value} AS y FROM file WHERE {y} IS NOT NULL)"""


def _of_ranks(profile: Profile, name: str, label: str) -> float:
    rank = f"percent_rank() OVER (ORDER BY {quote(label)})"
    (ratio,) = profile.numbers(
        f"""WITH grouped AS ({_grouped(profile, name, label, rank)}),
        groups AS (SELECT g, avg(y) AS mean, count(*) AS n FROM grouped GROUP BY g)
        SELECT sqrt((SELECT sum(n * pow(mean - (SELECT avg(y) FROM grouped), 2)) FROM groups)
            / nullif((SELECT sum(pow(y - (SELECT avg(y) FROM grouped), 2)) FROM grouped), 0))"""
    )
    return ratio


def _of_classes(profile: Profile, name: str, label: str) -> float:
    (saved,) = profile.numbers(
        f"""WITH cells AS (SELECT g, y, count(*) AS n FROM
            ({_grouped(profile, name, label, quote(label))}) GROUP BY ALL),
        totals AS (SELECT y, sum(n) AS n FROM cells GROUP BY y)
        SELECT ((SELECT sum(most) FROM (SELECT g, max(n) AS most FROM cells GROUP BY g))
                - (SELECT max(n) FROM totals))
            / nullif((SELECT sum(n) - max(n) FROM totals), 0)"""
    )
    return saved


def _gini(profile: Profile, name: str, label: str, task: Task) -> float:
    if task != "binary":
        return 0.0
    y = f"CAST({quote(label)} = (SELECT min({quote(label)}) FROM file) AS DOUBLE)"
    (gini,) = profile.numbers(
        f"""WITH groups AS (SELECT g, sum(y) AS yes, count(*) - sum(y) AS no FROM
            ({_grouped(profile, name, label, y)}) GROUP BY g),
        ordered AS (SELECT yes, no, sum(no) OVER (ORDER BY yes / (yes + no), g
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) - no / 2 AS below FROM groups)
        SELECT 2 * sum(yes * below) / nullif(sum(yes) * sum(no), 0) - 1 FROM ordered"""
    )
    return gini
