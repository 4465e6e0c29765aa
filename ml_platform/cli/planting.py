"""Leaks and late corrections that are planted in a copy of a use case, and what becomes of them."""

from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from ml_platform.cli.checking import has_lake
from ml_platform.cli.printing import show_line, show_table
from ml_platform.errors import PlatformError
from ml_platform.features.planting import (
    CHANGES_NOTHING,
    CLEAN,
    FALSE_ALARM,
    FOUND,
    MISSED,
    LateCorrections,
    Plant,
    plant,
)
from ml_platform.settings import Settings
from ml_platform.spec.loading import require_use_case
from ml_platform.storage import Lake


def check_planted(settings: Settings, name: str) -> None:
    """Plant leaks of every kind in a copy of a use case, and say which are found.

    The lake is only read; everything is computed in a temporary one. Raises PlatformError where
    there is nothing to plant leaks in.
    """
    use_case = require_use_case(settings.use_cases, name, settings.databases, settings.derived)
    if not has_lake(settings):
        raise PlatformError(f"nothing has been ingested of {name}; run: ml-platform ingest {name}")
    with TemporaryDirectory() as folder, closing(Lake(settings)) as lake:
        # Not a copy of the settings, which could name parts of the real lake.
        aside = Settings.model_construct(data=Path(folder), encrypted=settings.encrypted)
        with closing(Lake(aside)) as scratch:
            _show(plant(lake, scratch, use_case))


def _show(plants: Iterable[Plant]) -> None:
    """A table of each query as soon as it is checked, one of the corrections, and the sums."""
    leaks, known = Counter[str](), Counter[str]()
    for _, group in groupby(
        plants, key=lambda each: isinstance(each, LateCorrections) or each.view
    ):
        planted = list(group)
        rows = [(each.view, each.kind, f"{each.rows:,}", each.outcome) for each in planted]
        show_table(("query", "planted", "rows changed", "outcome"), rows)
        for each in planted:
            if each.outcome == FALSE_ALARM:
                show_line(f"{FALSE_ALARM}, or a leak of the query's own: {each.problem}")
            if not isinstance(each, LateCorrections):
                leaks[each.outcome] += 1
            elif not each.is_revised:
                known[each.outcome] += 1
    alarms, clean = leaks[FALSE_ALARM], leaks[CLEAN]
    show_line(
        f"found {leaks[FOUND]} of {leaks[FOUND] + leaks[MISSED]} planted leaks that change a row, "
        f"{alarms} false alarms in {alarms + clean} queries as they are"
    )
    changed = known.total() - known[CHANGES_NOTHING]
    show_line(
        f"late corrections: {known[CLEAN]} of {changed} tables that they change stay as they were "
        "known"
    )
