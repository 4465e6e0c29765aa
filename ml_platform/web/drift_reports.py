"""The list of drift reports, and Evidently's page of one."""

import threading
from typing import Any

from ml_platform.monitoring import render_drift_html, stored_drift
from ml_platform.web.site import Site, path_to


def listed(site: Site, name: str) -> dict[str, Any]:
    """All reports of a use case, the newest first."""
    case = site.use_case(name)
    reports = []
    for stored in reversed(stored_drift(site.lake, case)):
        key = case.calendar.key(stored.window)
        reports.append({
            "key": key,
            "page": path_to(case, "drift", key),
            "judged": stored.judged,
            "drifted": stored.drifted,
            "largest": "" if stored.largest_score is None else f"{stored.largest_score:.3f}",
            "version": stored.version,
        })  # fmt: skip
    return {"case": case, "reports": reports}


class EvidentlyPages:
    """Evidently's pages, drawn when they are asked for."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._drawing = threading.Lock()

    def draw(self, name: str, key: str) -> str:
        """Evidently's page of a partition; PageNotFound, or why it cannot be drawn."""
        case = self._site.use_case(name)
        window = self._site.window(case, key)
        # Drawing takes seconds of CPU and much memory: one at a time, the others wait.
        with self._drawing:
            page = render_drift_html(self._site.lake, self._site.registry, case, window)
            return page.read_text(encoding="utf-8")
