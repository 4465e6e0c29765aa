"""Pairs of columns that determine the label together: a distance and a speed give the duration."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from ml_platform.spec.queries import quote
from ml_platform.spec.scaffold.profile import Profile

TOGETHER = 0.99
"""Share of the label's variance that two columns explain, from which on they determine it."""
MOST_COLUMNS = 16
FORMS = {
    # Sums and differences, products and ratios.
    "plain": "CAST({it} AS DOUBLE)",
    "logarithm": "ln(CASE WHEN {it} > 0 THEN CAST({it} AS DOUBLE) END)",
}


def find_pairs(profile: Profile, label: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of columns of numbers of which a number is a sum, difference, product or ratio.

    A pair of which one column says nearly as much alone is none. Only the first 16 columns are
    looked at.
    """
    numbers = [n for n in names if profile.columns[n].is_number][:MOST_COLUMNS]
    pairs = list(combinations(numbers, 2))
    if not pairs:
        return
    found: dict[tuple[str, str], None] = {}
    for form in FORMS.values():
        values = {name: form.format(it=quote(name)) for name in (label, *numbers)}
        alone = [f"corr({values[name]}, {values[label]})" for name in numbers]
        both = [f"corr({values[a]}, {values[b]})" for a, b in pairs]
        measured = profile.numbers(f"SELECT {', '.join((*alone, *both))} FROM file")
        with_label = dict(zip(numbers, measured, strict=False))
        for (a, b), between in zip(pairs, measured[len(numbers) :], strict=True):
            explained = _explained(with_label[a], with_label[b], between)
            needed = max(with_label[a] ** 2, with_label[b] ** 2) < 1 - 2 * (1 - TOGETHER)
            if explained >= TOGETHER and needed:
                found[a, b] = None
    yield from found


def _explained(first: float, second: float, between: float) -> float:
    """Share of variance that a linear regression on two columns explains, by correlations."""
    left = 1 - between**2
    if left < 1 - TOGETHER:
        return 0.0
    return (first**2 + second**2 - 2 * first * second * between) / left
