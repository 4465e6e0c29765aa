"""Leaks that are planted in a copy of a use case, and what the leak check says of them."""

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from ml_platform.cli.checking import has_lake
from ml_platform.cli.printing import show_line, show_table
from ml_platform.errors import PlatformError
from ml_platform.features.planting import FALSE_ALARM, Plant, plant
from ml_platform.settings import Settings
from ml_platform.spec.loading import require_use_case
from ml_platform.storage import Lake


def check_planted(settings: Settings, name: str) -> None:
    """Plant leaks of every kind in a copy of a use case, and say which are found.

    The lake is only read; everything is computed in a temporary one. Raises PlatformError where
    there is nothing to plant leaks in.
    """
    use_case = require_use_case(settings.use_cases, name, settings.databases)
    if not use_case.features:
        raise PlatformError(f"{name} has no feature views, so that nothing can leak into one")
    if not has_lake(settings):
        raise PlatformError(f"nothing has been ingested of {name}; run: ml-platform ingest {name}")
    with TemporaryDirectory() as folder, closing(Lake(settings)) as lake:
        # Not a copy of the settings, which could name parts of the real lake.
        aside = Settings.model_construct(data=Path(folder), encrypted=settings.encrypted)
        with closing(Lake(aside)) as scratch:
            planted = list(plant(lake, scratch, use_case))
    _show(planted)


def _show(planted: list[Plant]) -> None:
    rows = [(each.view, each.kind, f"{each.rows:,}", each.outcome) for each in planted]
    show_table(("feature view", "planted", "rows changed", "outcome"), rows)
    for each in planted:
        if each.outcome == FALSE_ALARM:
            show_line(f"{FALSE_ALARM}, or a leak of the view's own: {each.problem}")
    found, missed, alarms, clean = (
        sum(each.outcome == outcome for each in planted)
        for outcome in ("found", "missed", FALSE_ALARM, "clean")
    )
    show_line(
        f"found {found} of {found + missed} planted leaks that change a row, "
        f"{alarms} false alarms in {alarms + clean} views as they are"
    )
