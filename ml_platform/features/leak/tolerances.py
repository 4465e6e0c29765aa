"""By how much a floating-point feature of a window may differ although nothing leaked.

A difference of two running totals is off by digits of the totals, and how many digits depends on
the order in which they were added up. So the size of what is summed is looked at, and the window is
computed again from rows in another order and from an earlier start. This costs as much as several
cuts: it is done where a first comparison finds a difference.
"""

from collections.abc import Iterable, Mapping

from ml_platform.features.leak.comparison import RowComparison
from ml_platform.features.leak.shown import SourceCopies
from ml_platform.features.views import Sight
from ml_platform.spec.queries import is_numeric, is_time, quote

SHARE_OF_SUM = 1e-13
"""Rounding of a sum of a million floats, relative to the sum of their magnitudes."""
TIMES_NOISE = 100
"""Differences this many times as large as those between two orders are still rounding."""
SHARE_OF_LARGEST = 1e-3
"""No more than this share of a feature's largest value is ever rounding."""
SEED = 7


def measure_tolerances(
    shown: SourceCopies, comparison: RowComparison, sight: Sight
) -> dict[str, float]:
    """Absolute tolerances of the features of a sight's window, by feature."""
    whole = Sight(sight.range, sight.snapshot)
    largest = _largest(shown, shown.stored(whole), comparison.floats)
    summed = _summed(shown, comparison.floats)
    noise = _noise(shown, whole, comparison.floats)
    return {
        name: min(
            max(SHARE_OF_SUM * summed[name], TIMES_NOISE * noise.get(name, 0.0)),
            SHARE_OF_LARGEST * largest[name],
        )
        if name in largest
        else SHARE_OF_SUM * summed[name]
        for name in comparison.floats
    }


def _plain(shown: SourceCopies, names: Iterable[str]) -> list[str]:
    """Those of some features that are a number each, not lists or structs of them."""
    kinds = shown.subject.values
    return [name for name in names if kinds[name] in {"DOUBLE", "FLOAT"}]


def _largest(shown: SourceCopies, query: str, names: Iterable[str]) -> dict[str, float]:
    plain = _plain(shown, names)
    if not plain:
        return {}
    values = ", ".join(
        f"coalesce(max(abs({quote(n)})) FILTER (isfinite({quote(n)})), 0)" for n in plain
    )
    row = shown.cursor.execute(f"SELECT {values} FROM ({query})").fetchone()
    return dict(zip(plain, map(float, row or ()), strict=True))


def _noise(shown: SourceCopies, sight: Sight, names: Iterable[str]) -> dict[str, float]:
    """The largest difference between the stored values and those from rows in another order."""
    plain = _plain(shown, names)
    found = dict.fromkeys(plain, 0.0)
    if not plain:
        return found
    shuffled = {
        name: f"(SELECT * FROM {copied} AS r ORDER BY hash(r, {SEED}))"
        for name, copied in shown.relations.items()
    }
    farther = Sight(sight.range, sight.snapshot, farther=True)
    for other in (
        shown.again(sight, shuffled), shown.again(farther), shown.again(farther, shuffled)
    ):  # fmt: skip
        for name, size in _apart(shown, shown.stored(sight), other, plain).items():
            found[name] = max(found[name], size)
    return found


def _apart(shown: SourceCopies, one: str, other: str, names: list[str]) -> dict[str, float]:
    keys = " AND ".join(
        f"s.{quote(k)} IS NOT DISTINCT FROM a.{quote(k)}" for k in shown.subject.table.order
    )
    sizes = ", ".join(
        f"coalesce(max(abs(s.{quote(n)} - a.{quote(n)})) "
        f"FILTER (isfinite(s.{quote(n)} - a.{quote(n)})), 0)"
        for n in names
    )
    row = shown.cursor.execute(
        f"SELECT {sizes} FROM ({one}) s JOIN ({other}) a ON {keys}"
    ).fetchone()
    return dict(zip(names, map(float, row or ()), strict=True))


def _summed(shown: SourceCopies, names: Iterable[str]) -> dict[str, float]:
    """The sum of magnitudes of the largest column that each feature is computed from."""
    totals = {
        (source, column): total
        for source, copied in shown.relations.items()
        for column, total in _magnitudes(shown, source, copied).items()
    }
    lineage = _lineage(shown)
    return {
        name: max((totals.get(pair, 0.0) for pair in lineage.get(name, totals)), default=0.0)
        for name in names
    }


def _magnitudes(shown: SourceCopies, source: str, copied: str) -> dict[str, float]:
    declared = shown.subject.use_case.sources[source].columns
    numbers = [c for c, kind in declared.items() if is_numeric(kind) and not is_time(kind)]
    if not numbers:
        return {}
    values = [f"CAST({quote(c)} AS DOUBLE)" for c in numbers]
    sums = ", ".join(f"coalesce(sum(abs({v})) FILTER (isfinite({v})), 0)" for v in values)
    row = shown.cursor.execute(f"SELECT {sums} FROM {copied}").fetchone()
    return dict(zip(numbers, map(float, row or ()), strict=True))


def _lineage(shown: SourceCopies) -> Mapping[str, tuple[tuple[str, str], ...]]:
    # sqlglot takes a while to import, and only differences need it.
    from ml_platform.spec.lineage import Lineage

    sources = shown.subject.use_case.sources
    found = Lineage({name: source.columns for name, source in sources.items()})
    return found.of(shown.subject.query)
