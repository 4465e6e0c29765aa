"""The page of one prediction: what it was made of, back to rows of files and the commit."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ml_platform.errors import PlatformError
from ml_platform.registry.card import RECORDED
from ml_platform.scoring import SourceRows, explain_prediction, trace
from ml_platform.spec.ranges import named_time
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.web.impacts import here
from ml_platform.web.site import PageNotFound, Site, path_to, shown_moment

CONTRIBUTIONS = 12
"""Columns that are shown, those that contributed most; the others are summed."""


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
    at = _time(case, asked["at"]) if asked.get("at") else None
    found = trace(site.lake, site.registry, case, given, at=at)
    version = int(found.prediction["model_version"])
    return page | {
        "found": found,
        "explained": _explained(site, case, given, at),
        "values": {k: _shown(case, v) for k, v in found.prediction.items() if v is not None},
        "features": [
            {
                "view": each.view,
                "row": {k: _shown(case, v) for k, v in (each.row or {}).items()},
                "sources": [(source, _origins(case, source)) for source in each.sources],
            }
            for each in found.features
        ],
        "model": {name: found.model[tag] for tag, name in RECORDED.items() if tag in found.model},
        "version": (version, path_to(case, "versions", version)),
    }


def _origins(case: UseCase, rows: SourceRows) -> list[tuple[str, int, str | None, str]]:
    """File and row of source rows, with the pages of what the file and the row touched."""
    return [
        (
            file,
            number,
            here(case, file=file, source=rows.source),
            here(case, key, source=rows.source),
        )
        for (file, number), key in zip(rows.origins, rows.keys, strict=True)
    ]


def _time(case: UseCase, text: str) -> datetime | Window:
    try:
        return named_time(case, text)
    except PlatformError as error:
        raise PageNotFound(f"{error}.") from None


def _explained(
    site: Site, case: UseCase, given: Mapping[str, str], at: datetime | Window | None
) -> dict[str, Any]:
    """What the columns contributed; where that cannot be said, why."""
    try:
        found = explain_prediction(site.lake, site.registry, case, given, at=at)
    except PlatformError as error:
        return {"problem": str(error)}
    shown = list(found.contributions)[:CONTRIBUTIONS]
    rest = [found.contributions[name] for name in list(found.contributions)[CONTRIBUTIONS:]]
    most = max(map(abs, found.contributions.values()), default=0.0) or 1.0
    return {
        "problem": "",
        "said": found,
        "rest": (len(rest), sum(rest)) if rest else None,
        "columns": [
            {
                "name": name,
                "value": _shown(case, found.values[name]),
                "contribution": found.contributions[name],
                "error": found.errors[name],
                "share": 50 * abs(found.contributions[name]) / most,
            }
            for name in shown
        ],
    }


def _shown(case: UseCase, value: object) -> str:
    if isinstance(value, datetime):
        return shown_moment(case, value) if value.tzinfo else f"{value}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
