"""Pages about what people decide: challengers that wait, versions that are tried."""

from typing import Any

from ml_platform.alerts.condition import counted
from ml_platform.errors import PlatformError
from ml_platform.registry import Promotion, read_card, rollouts, tried_now, waiting
from ml_platform.serving.versions.comparison import SIDES, VersionComparison, comparisons
from ml_platform.spec.use_case import UseCase
from ml_platform.storage.changes import last_changes
from ml_platform.web.site import Site, path_to, shown_moment


class Approvals:
    """Challengers that wait; those of a use case are read again once something was decided.

    Safe for threads.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._read: dict[str, tuple[int, list[dict[str, Any]]]] = {}
        """By use case, the snapshot that last changed its decisions, and what waits."""

    def page(self) -> dict[str, Any]:
        """Every challenger that waits for a person, with the comparison that it passed."""
        found: list[dict[str, Any]] = []
        problems: list[str] = []
        with self._site.lake.cursor() as cursor:
            changed = last_changes(cursor, "promotions")
        for case in self._site.loaded.use_cases.values():
            if case.name not in changed:
                continue
            try:
                found += self._of(case, changed[case.name])
            except PlatformError as error:
                # The others are shown all the same.
                problems.append(f"{case.name}: {error}")
        return {"found": found, "problems": problems}

    def _of(self, case: UseCase, changed: int) -> list[dict[str, Any]]:
        seen, found = self._read.get(case.name, (-1, []))
        if seen != changed:
            site = self._site
            found = [_waiting(site, case, each) for each in waiting(site.lake, case)]
            self._read[case.name] = changed, found
        return found


def _waiting(site: Site, case: UseCase, asked: Promotion) -> dict[str, Any]:
    try:
        card = read_card(site.lake, site.registry, case, asked.version)
    except PlatformError:
        # Its files are gone, or it is of another environment: its figures are in the history.
        card = None
    return {
        "case": case,
        "page": path_to(case, "versions", asked.version),
        "asked": asked,
        "since": shown_moment(case, asked.decided_at),
        "card": card,
    }


def rollouts_page(site: Site, name: str) -> dict[str, Any]:
    """What was tried beside the champion, and how the two compare as it goes."""
    case = site.use_case(name)
    decisions = rollouts(site.lake, case)
    return {
        "case": case,
        "now": tried_now(decisions),
        "decisions": [
            {"made": each, "at": shown_moment(case, each.decided_at),
             "page": path_to(case, "versions", each.version)}
            for each in reversed(decisions)
        ],
        "comparisons": [_compared(case, each) for each in reversed(comparisons(site.lake, case))],
    }  # fmt: skip


def _compared(case: UseCase, comparison: VersionComparison) -> dict[str, Any]:
    pair = comparison.pair
    versions = {"champion": pair.champion}
    return {
        "pair": pair,
        "said": comparison,
        "sides": [
            {
                "name": side,
                "version": versions.get(side, pair.candidate),
                "page": path_to(case, "versions", versions.get(side, pair.candidate)),
                "requests": counted(comparison.requests(side), "request"),
                "mean": comparison.mean(side),
                "p50": comparison.latency(side, 0.5),
                "p95": comparison.latency(side, 0.95),
            }
            for side in SIDES
        ],
    }
