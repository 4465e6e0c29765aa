"""What all pages share: the lake, the registry, the use cases, and where things are shown."""

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar
from urllib.parse import quote

from ml_platform.alerts.condition import asset_url
from ml_platform.registry import Registry
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_cases
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.web.histories import Histories


class PageNotFound(Exception):
    """No page has this address; says what there is instead."""

    OTHER: ClassVar = "There is no such page. All pages are reached from /."


class Site:
    """A deployment as its pages see it; use cases are read once, when it is made."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lake = Lake(settings)
        self.histories = Histories(self.lake)
        self.registry = Registry(settings)
        self.loaded = load_use_cases(settings.use_cases, settings.databases, settings.derived)

    def close(self) -> None:
        """Detach from the lake."""
        self.lake.close()

    def use_case(self, name: str) -> UseCase:
        """A use case by name; PageNotFound, or what is wrong with it."""
        # Only names of loaded use cases and keys of partitions ever become part of a file's path.
        if name in self.loaded.broken:
            raise self.loaded.broken[name]
        if name not in self.loaded.use_cases:
            known = ", ".join(self.loaded.use_cases) or "none"
            raise PageNotFound(f"No use case is called '{name}'. There are: {known}.")
        return self.loaded.use_cases[name]

    def window(self, case: UseCase, key: str) -> Window:
        """A partition by its key, or PageNotFound."""
        try:
            return case.calendar.window(key)
        except ValueError as error:
            raise PageNotFound(f"{case.name}: {error}.") from None

    def in_dagster(self, case: UseCase, table: str, window: Window | None = None) -> str:
        """Where Dagster shows a table, or one of its partitions."""
        return asset_url(self.settings, case, table, window)

    def in_mlflow(self, case: UseCase, version: int) -> str | None:
        """Where MLflow shows a version; None where its models lie in a database, not a server."""
        server = self.settings.tracking_uri
        if not server.startswith(("http://", "https://")):
            return None
        return f"{server.rstrip('/')}/#/models/{quote(case.name, safe='')}/versions/{version}"


def path_to(case: UseCase, *parts: str | int) -> str:
    """The address of a page of a use case.

    >>> from types import SimpleNamespace
    >>> path_to(SimpleNamespace(name="trips"), "drift", "2024-03-10T05:00")
    '/trips/drift/2024-03-10T05%3A00'
    """
    return "/".join(["", case.name, *(quote(str(part), safe="") for part in parts)])


def neighbours(windows: Sequence[Window], window: Window) -> tuple[Window | None, Window | None]:
    """The reported windows before and after one; None at the ends."""
    earlier = [each for each in windows if each.start < window.start]
    later = [each for each in windows if each.start > window.start]
    return (earlier[-1] if earlier else None), (later[0] if later else None)


def shown_moment(case: UseCase, moment: datetime) -> str:
    """A moment by the use case's clocks."""
    return f"{moment.astimezone(case.calendar.timezone):%Y-%m-%d %H:%M}"
