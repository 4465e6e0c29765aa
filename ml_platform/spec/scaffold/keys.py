"""Guesses about which columns tell the rows of a table apart."""

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
FEWEST_TOLD_APART = 0.9
"""Share of the rows that a key has to tell apart; the others will be quarantined."""
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
    """The columns that tell rows apart."""
    if said:
        told_apart = profile.told_apart(said)
        if told_apart < FEWEST_TOLD_APART * profile.rows:
            same = f"only {told_apart:,} of {profile.rows:,} rows differ in it"
            raise profile.refusal("--key", f"{', '.join(said)}: {same}; name more columns")
        return said, f"you said so{_repeated(profile, told_apart)}"
    options = key_options(profile, event_time, label)
    for name in options:
        if is_id(name) and profile.is_unique((name,)):
            return (name,), "every row has another one"
    if profile.is_unique((event_time,)) and event_time not in IN_EXAMPLES:
        return (event_time,), "every row has another one"
    keys: list[tuple[str, ...]] = [(name,) for name in options if is_id(name)]
    keys += [(event_time,)] if event_time not in IN_EXAMPLES else []
    told = {key: profile.told_apart(key) for key in keys}
    for size in range(1, LONGEST_KEY):
        for names in combinations(options[:8], size):
            told[(*names, event_time)] = profile.told_apart((*names, event_time))
            if told[(*names, event_time)] == profile.rows:
                return (*names, event_time), "no two rows have the same"
    most = max(told.values(), default=0)
    if most >= FEWEST_TOLD_APART * profile.rows:
        # Of about as good ones the shortest: what it does not tell apart are copies.
        best = next(key for key, rows in told.items() if rows >= ABOUT_AS_GOOD * most)
        return best, f"tells nearly all rows apart{_repeated(profile, told[best])}"
    share = f"{FEWEST_TOLD_APART:.0%}"
    problem = f"nothing tells {share} of the rows apart; add a column that numbers them, or name"
    problem += " several"
    raise profile.refusal("--key", problem)


def _repeated(profile: Profile, told_apart: int) -> str:
    rows = profile.rows - told_apart
    return f"; {rows:,} rows repeat a key or lack it, and will be quarantined" if rows else ""
