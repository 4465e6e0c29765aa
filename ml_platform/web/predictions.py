"""The page of one prediction: what it was made of, back to rows of files and the commit."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ml_platform.registry.card import RECORDED
from ml_platform.scoring import trace
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.web.site import PageNotFound, Site, path_to, shown_moment


def prediction_page(site: Site, name: str, asked: Mapping[str, str]) -> dict[str, Any]:
    """Values of the page.

    asked: key columns of the example by name, and `at`, its event time or partition, where the
    latest is not what is wanted. Without keys the page asks for them. Raises EmptyPartition where
    there is no such prediction.
    """
    case = site.use_case(name)
    keys = case.examples.entity
    given = {key: asked[key] for key in keys if asked.get(key)}
    page: dict[str, Any] = {
        "case": case, "keys": keys, "given": given, "at": asked.get("at", ""), "found": None,
    }  # fmt: skip
    if not given:
        return page
    if missing := [key for key in keys if key not in given]:
        raise PageNotFound(f"A prediction of {name} is named by {', '.join(keys)}; "
                           f"{', '.join(missing)} is missing.")  # fmt: skip
    at = _moment(site, case, asked["at"]) if asked.get("at") else None
    found = trace(site.lake, site.registry, case, given, at=at)
    version = int(found.prediction["model_version"])
    return page | {
        "found": found,
        "values": {k: _shown(case, v) for k, v in found.prediction.items() if v is not None},
        "features": [
            {
                "view": each.view,
                "row": {k: _shown(case, v) for k, v in (each.row or {}).items()},
                "sources": each.sources,
            }
            for each in found.features
        ],
        "model": {name: found.model[tag] for tag, name in RECORDED.items() if tag in found.model},
        "version": (version, path_to(case, "versions", version)),
    }


def _moment(site: Site, case: UseCase, text: str) -> datetime | Window:
    try:
        return case.calendar.window(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise PageNotFound(
            f"'{text}' is neither a partition of {case.name} nor a moment in ISO 8601."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=case.calendar.timezone)


def _shown(case: UseCase, value: object) -> str:
    if isinstance(value, datetime):
        return shown_moment(case, value) if value.tzinfo else f"{value}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
