"""The card of a model version as a page."""

import base64
from typing import Any

from ml_platform.errors import PlatformError
from ml_platform.registry import history
from ml_platform.registry.card import card_markdown, read_card
from ml_platform.web.impacts import here
from ml_platform.web.site import Site, path_to, shown_moment

IMPORTANCES = 25
"""Columns that the diagram shows."""


def require_version(site: Site, name: str, version: int) -> dict[str, Any]:
    """Use case and number of a version; raises ModelNotFound where there is no such version."""
    case = site.use_case(name)
    site.registry.tags(case, version)
    return {"case": case, "number": version}


def version_page(site: Site, name: str, version: int) -> dict[str, Any]:
    """Values of the page; raises ModelNotFound where there is no such version."""
    case = site.use_case(name)
    card = read_card(site.lake, site.registry, case, version)
    importances = card.importances
    most = max((abs(value) for _, value in importances), default=0.0) or 1.0
    known = sorted({each.version for each in history(site.lake, case)})
    try:
        plots = site.registry.plots(case, version)
    except PlatformError:
        plots = {}
    return {
        "case": case,
        "card": card,
        "model": card.model,
        "when": lambda moment: shown_moment(case, moment),
        "importances": [
            (column, value, 100 * max(value, 0.0) / most)
            for column, value in importances[:IMPORTANCES]
        ],
        "more": max(0, len(importances) - IMPORTANCES),
        "plots": {
            each.replace("_", " "): f"data:image/png;base64,{base64.b64encode(png).decode()}"
            for each, png in plots.items()
        },
        "before": _neighbour(case, [v for v in known if v < version][-1:]),
        "after": _neighbour(case, [v for v in known if v > version][:1]),
        "markdown": path_to(case, "versions", f"{version}.md"),
        "touched": here(case, version=version),
        "mlflow": site.in_mlflow(case, version),
        "champion": card.champion and path_to(case, "versions", card.champion),
        "dagster": site.in_dagster(case, "model"),
    }


def version_markdown(site: Site, name: str, version: int) -> str:
    """The card as Markdown."""
    return card_markdown(read_card(site.lake, site.registry, site.use_case(name), version))


def _neighbour(case: Any, found: list[int]) -> tuple[int, str] | None:
    return (found[0], path_to(case, "versions", found[0])) if found else None
