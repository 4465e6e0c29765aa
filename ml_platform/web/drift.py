"""What the pages of drift reports show."""

import threading
from typing import Any, ClassVar
from urllib.parse import quote

from ml_platform.monitoring import StoredDrift, render_drift_html, stored_drift
from ml_platform.registry import Registry
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_cases
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake

LATEST = 5
"""Reports of each use case on the first page."""


class PageNotFound(Exception):
    """No page has this address; says what there is instead."""

    OTHER: ClassVar = (
        "There are /, /<use case>/ and /<use case>/drift/<partition>.html, nothing else."
    )


class DriftPages:
    """Values of the pages, read from the lake; an Evidently page is drawn when it is asked for."""

    def __init__(self, settings: Settings) -> None:
        self._lake = Lake(settings)
        self._registry = Registry(settings)
        self._loaded = load_use_cases(settings.use_cases, settings.databases)
        self._drawing = threading.Lock()

    def close(self) -> None:
        """Detach from the lake."""
        self._lake.close()

    def front(self) -> dict[str, Any]:
        """All use cases with their latest reports, and the mistakes of those that are broken."""
        cases = self._loaded.use_cases.values()
        return {
            "cases": [{"case": case, "reports": self._reports(case, LATEST)} for case in cases],
            "broken": {name: str(errors) for name, errors in self._loaded.broken.items()},
        }

    def of(self, name: str) -> dict[str, Any]:
        """All reports of a use case, the newest first; PageNotFound, or what is wrong with it."""
        case = self._use_case(name)
        return {"case": case, "reports": self._reports(case, None)}

    def drift(self, name: str, key: str) -> str:
        """Evidently's page of a partition; PageNotFound, or why it cannot be drawn."""
        case = self._use_case(name)
        try:
            window = case.calendar.window(key)
        except ValueError as error:
            raise PageNotFound(f"{name}: {error}.") from None
        # Drawing takes seconds of CPU and much memory: one at a time, the others wait.
        with self._drawing:
            page = render_drift_html(self._lake, self._registry, case, window)
            return page.read_text(encoding="utf-8")

    def _use_case(self, name: str) -> UseCase:
        # Only names of loaded use cases and keys of partitions ever become part of a file's path.
        if name in self._loaded.broken:
            raise self._loaded.broken[name]
        if name not in self._loaded.use_cases:
            known = ", ".join(self._loaded.use_cases) or "none"
            raise PageNotFound(f"No use case is called '{name}'. There are: {known}.")
        return self._loaded.use_cases[name]

    def _reports(self, case: UseCase, latest: int | None) -> list[dict[str, Any]]:
        reports = stored_drift(self._lake, case)
        newest = reversed(reports[-latest:] if latest else reports)
        return [_shown(case, report) for report in newest]


def _shown(case: UseCase, report: StoredDrift) -> dict[str, Any]:
    key = case.calendar.key(report.window)
    return {
        "key": key,
        "address": f"/{case.name}/drift/{quote(key, safe='')}.html",
        "share": f"{len(report.drifted)} of {report.judged}" if report.judged else "not judged",
        "largest": "" if report.largest_score is None else f"{report.largest_score:.3f}",
        "version": report.version,
        "drifted": report.drifted,
    }
