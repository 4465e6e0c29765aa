"""Guesses about which columns distinguish the rows of a table."""

from itertools import combinations

from ml_platform.spec.checks import IN_EXAMPLES
from ml_platform.spec.scaffold.inputs import is_id
from ml_platform.spec.scaffold.profile import Profile

LABEL_NAMES = (
    "label", "target", "y", "outcome", "class", "churned", "churn", "fraud", "default", "survived",
    "is_late", "late", "duration", "delay", "sales", "demand", "price", "counts", "hourly_counts",
    "count", "cnt", "value",
)  # fmt: skip
LONGEST_KEY = 4
FEWEST_DISTINCT = 0.9
"""Share of the rows that a key has to distinguish; the others will be quarantined."""
ABOUT_AS_GOOD = 0.999


MOST_OPTIONS = 12


def key_options(profile: Profile, event_time: str, label: str | None) -> list[str]:
    """Columns that may be part of a key, the likeliest first."""
    options = [
        column.name
        for column in profile.columns.values()
        if column.name not in {event_time, label, *IN_EXAMPLES}
        and not column.nulls
        and column.is_plain
        and not column.is_time
        and not (column.is_number and not column.is_whole)
        and column.name.lower() not in LABEL_NAMES
    ]
    options.sort(key=lambda name: (not is_id(name), -profile.columns[name].distinct))
    return options[:MOST_OPTIONS]


def guess_key(
    profile: Profile, said: tuple[str, ...], event_time: str, label: str | None
) -> tuple[tuple[str, ...], str]:
    """The columns that distinguish rows."""
    if said:
        distinct_rows = profile.distinct_rows(said)
        if distinct_rows < FEWEST_DISTINCT * profile.rows:
            same = f"only {distinct_rows:,} of {profile.rows:,} rows differ in it"
            raise profile.refusal("--key", f"{', '.join(said)}: {same}; name more columns")
        return said, f"you said so{_repeated(profile, distinct_rows)}"
    options = key_options(profile, event_time, label)
    for name in options:
        if is_id(name) and profile.is_unique((name,)):
            return (name,), "every row has another one"
    if profile.is_unique((event_time,)) and event_time not in IN_EXAMPLES:
        return (event_time,), "every row has another one"
    keys: list[tuple[str, ...]] = [(name,) for name in options if is_id(name)]
    keys += [(event_time,)] if event_time not in IN_EXAMPLES else []
    distinct = {key: profile.distinct_rows(key) for key in keys}
    for size in range(1, LONGEST_KEY):
        for names in combinations(options[:8], size):
            distinct[(*names, event_time)] = profile.distinct_rows((*names, event_time))
            if distinct[(*names, event_time)] == profile.rows:
                return (*names, event_time), "no two rows have the same"
    most = max(distinct.values(), default=0)
    if most >= FEWEST_DISTINCT * profile.rows:
        # Of about as good ones the shortest: what it does not distinguish are copies.
        best = next(key for key, rows in distinct.items() if rows >= ABOUT_AS_GOOD * most)
        return best, f"distinguishes nearly all rows{_repeated(profile, distinct[best])}"
    share = f"{FEWEST_DISTINCT:.0%}"
    problem = f"nothing distinguishes {share} of the rows; add a column that numbers them, or name"
    problem += " several"
    raise profile.refusal("--key", problem)


def _repeated(profile: Profile, distinct_rows: int) -> str:
    rows = profile.rows - distinct_rows
    return f"; {rows:,} rows repeat a key or lack it, and will be quarantined" if rows else ""
