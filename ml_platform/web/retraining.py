"""The page about retraining: the policy, what it would do now, what a replay says of it."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_platform.errors import PlatformError
from ml_platform.registry import history, latest_decision
from ml_platform.replay import Seen, newest_document, observe, retraining_due
from ml_platform.replay.policy import is_resting, judged_now
from ml_platform.spec.use_case import UseCase
from ml_platform.web.site import Site, path_to, shown_moment

LISTED = 20
"""Of the versions, the newest."""


def retraining_page(site: Site, name: str) -> dict[str, Any]:
    """Values of the page."""
    case = site.use_case(name)
    try:
        seen, problem = observe(site.lake, site.registry, case), ""
    except PlatformError as error:
        seen, problem = None, str(error)
    document = newest_document(site.settings.reports / case.name)
    return {
        "case": case,
        "policy": case.retrain,
        "problem": problem,
        "causes": _causes(case, seen) if seen else [],
        "now": _now(case, seen) if seen else "",
        "trained": _trained(site, case),
        "replay": document,
        "period": _period(case, document) if document else "",
        "picture": _picture(document) if document else None,
    }


def _causes(case: UseCase, seen: Seen) -> list[dict[str, Any]]:
    """The partitions of each cause that count now, and whether they passed."""
    return [
        {
            "cause": cause,
            "partitions": [
                {
                    "key": case.calendar.key(window),
                    "passed": passed,
                    "page": path_to(case, cause, case.calendar.key(window)),
                }
                for window, passed in judged_now(case, seen, cause)
            ],
        }
        for cause in ("drift", "performance")
        if cause in case.retrain.on
    ]


def _now(case: UseCase, seen: Seen) -> str:
    """What the policy would do at this moment, in words."""
    if due := retraining_due(case, seen):
        return f"A challenger is due, at the cutoff {case.calendar.key(due.cutoff)}: {due.reason}."
    if seen.newest is None:
        return "Nothing has been predicted yet, so nothing can fail."
    if is_resting(case, seen.newest, seen.last_cutoff):
        closes = case.partitions.closes_at
        if closes is not None and seen.newest.end >= closes:
            return "The history has ended: there is no cutoff after its last partition."
        assert seen.last_cutoff is not None
        rested = case.retrain.cooldown.after(seen.last_cutoff, case.calendar.timezone)
        return (
            f"It rests: the last cutoff was {shown_moment(case, seen.last_cutoff)}, and the next "
            f"one because of drift or performance is not before {shown_moment(case, rested)}."
        )
    return "Nothing is due."


def _trained(site: Site, case: UseCase) -> list[dict[str, Any]]:
    """The newest versions, why each was trained, and what became of it."""
    decisions = history(site.lake, case)
    found = []
    for each in reversed(site.registry.trained(case)[-LISTED:]):
        decided = latest_decision(decisions, each.version)
        found.append(
            {
                "version": each.version,
                "page": path_to(case, "versions", each.version),
                "cutoff": shown_moment(case, each.cutoff),
                "cause": each.cause or "schedule or a person",
                "reason": each.reason,
                "outcome": decided.outcome if decided else "not decided",
            }
        )
    return found


def _period(case: UseCase, document: dict[str, Any]) -> str:
    windows: Sequence[str] = list(document["policies"][0]["by_window"])
    return f"{windows[0]} to {windows[-1]}" if windows else document["from"]


def _picture(document: dict[str, Any]) -> str | None:
    file = Path(document.get("picture", ""))
    if not file.is_file():
        return None
    return base64.b64encode(file.read_bytes()).decode()
