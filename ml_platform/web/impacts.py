"""The page of an impact: what a file, a row, a correction or a model version touched."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from ml_platform.errors import PlatformError
from ml_platform.impact import (
    DataImpact,
    Subject,
    VersionImpact,
    data_document,
    data_impact,
    landed_file,
    source_row,
    version_document,
    version_impact,
)
from ml_platform.registry import Promotion
from ml_platform.spec.ranges import named_moment, named_time
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window, utc
from ml_platform.web.site import PageNotFound, Site, path_to, shown_moment

KEY = "key."
"""How the names of key columns begin in an address: a column may be called `file`."""
FEW = 3
"""Partitions that are named without being asked for."""
MOST = 400
"""Partitions that are named of one table; the JSON has all."""
ASKS = ("file", "source", "version")


def impact_page(site: Site, name: str, asked: Mapping[str, str]) -> dict[str, Any]:
    """Values of the page.

    asked: `file`, with `source` where several read it; or `source` and its key columns, each as
    `key.<name>`, with `at`, where the row lies, and `as_of`, to ask about one of its versions; or
    `version`. `rows` counts the rows that depend on it. Where none is there the page asks for one.
    """
    case = site.use_case(name)
    source = asked.get("source", "")
    page: dict[str, Any] = {
        "case": case,
        "asked": {each: asked.get(each, "") for each in (*ASKS, "at", "as_of")},
        "given": _key(asked),
        "keys": case.sources[source].key if source in case.sources else (),
        "sources": [(each, here(case, source=each)) for each in case.sources],
        "data": None,
        "version": None,
    }
    found = _found(site, case, asked)
    if found is None:
        return page
    page["json"] = f"{path_to(case, 'impact.json')}?{urlencode(asked)}"
    if isinstance(found, VersionImpact):
        return page | {"version": _of_version(site, case, found)}
    return page | {"data": _of_data(site, case, found, asked)}


def impact_json(site: Site, name: str, asked: Mapping[str, str]) -> dict[str, Any]:
    """The document that `ml-platform impact --json` prints; `asked` as for the page."""
    case = site.use_case(name)
    found = _found(site, case, asked)
    if found is None:
        raise PageNotFound("Name one of file=, source= with key.<column>=, version=.")
    if isinstance(found, VersionImpact):
        return version_document(case, found)
    return data_document(case, found)


def here(case: UseCase, key: Mapping[str, str] | None = None, **asked: str | int) -> str:
    """The address of the page for something; key: of a row, by column."""
    named = {**asked, **{f"{KEY}{column}": value for column, value in (key or {}).items()}}
    return f"{path_to(case, 'impact')}?{urlencode(named)}"


def file_page(case: UseCase, source: str, file: str) -> str | None:
    """The address of the page for a landed file; None of a row that came from a table."""
    return None if case.sources[source].rows_of else here(case, file=file, source=source)


def _key(asked: Mapping[str, str]) -> dict[str, str]:
    return {k.removeprefix(KEY): v for k, v in asked.items() if k.startswith(KEY) and v}


def _found(
    site: Site, case: UseCase, asked: Mapping[str, str]
) -> DataImpact | VersionImpact | None:
    key, version = _key(asked), asked.get("version")
    if version:
        if not version.isdecimal():
            raise PageNotFound(f"version should be a whole number, not '{version}'.")
        return version_impact(site.lake, site.registry, case, int(version))
    if not asked.get("file") and not key:
        return None
    subject = _subject(site, case, asked, key)
    recompute = bool(asked.get("rows"))
    return data_impact(site.lake, site.registry, case, subject, recompute=recompute)


def _subject(
    site: Site, case: UseCase, asked: Mapping[str, str], key: Mapping[str, str]
) -> Subject:
    if asked.get("file"):
        return landed_file(site.lake, case, asked["file"], asked.get("source") or None)
    try:
        at = named_time(case, asked["at"]) if asked.get("at") else None
        as_of = named_moment(case, asked["as_of"]) if asked.get("as_of") else None
    except PlatformError as error:
        raise PageNotFound(f"{error}.") from None
    return source_row(site.lake, case, asked.get("source", ""), key, at=at, as_of=as_of)


def _of_data(
    site: Site, case: UseCase, impact: DataImpact, asked: Mapping[str, str]
) -> dict[str, Any]:
    subject, dependents = impact.subject, impact.dependents
    return {
        "subject": subject,
        "known_from": subject.known_from and shown_moment(case, subject.known_from),
        "stored": _partitions(site, case, subject.source, list(subject.spans)),
        "waiting": _partitions(site, case, subject.source, subject.waiting),
        "versions": _row_versions(case, subject, _key(asked)),
        "tables": [
            {
                "table": table,
                "read": _partitions(site, case, table, each.read),
                "changed": _partitions(site, case, table, each.changed),
                "before": _partitions(site, case, table, each.before),
                "rows": sum((dependents or {}).get(table, {}).values()),
                "in": _partitions(site, case, table, (dependents or {}).get(table, {})),
            }
            for table, each in impact.tables.items()
        ],
        "counted": dependents is not None,
        "count": f"{path_to(case, 'impact')}?{urlencode({**asked, 'rows': 'yes'})}",
        "trained": [
            (each.version, path_to(case, "versions", each.version),
             shown_moment(case, each.cutoff))
            for each in impact.trained
        ],
        "decisions": _decisions(case, impact.decisions),
        "by_versions": [
            (table, _partitions(site, case, table, windows))
            for table, windows in impact.by_versions.items()
        ],
    }  # fmt: skip


def _of_version(site: Site, case: UseCase, impact: VersionImpact) -> dict[str, Any]:
    return {
        "impact": impact,
        "number": impact.version.version,
        "card": path_to(case, "versions", impact.version.version),
        "cutoff": shown_moment(case, impact.version.cutoff),
        "served": [
            (shown_moment(case, since), until and shown_moment(case, until))
            for since, until in impact.served
        ],
        "tables": [
            (table, sum(rows.values()), _partitions(site, case, table, rows))
            for table, rows in impact.tables.items()
        ],
        "decisions": _decisions(case, impact.decisions),
        "compared": _decisions(case, impact.compared),
        "rolled_back": _decisions(case, impact.rolled_back),
        "tried": [(each, shown_moment(case, each.decided_at)) for each in impact.tried],
    }


def _row_versions(case: UseCase, subject: Subject, key: Mapping[str, str]) -> list[dict[str, Any]]:
    found = []
    for place, each in enumerate(subject.versions):
        at, since = case.calendar.key(each.window), each.known_from.isoformat()
        found.append(
            {
                "version": each,
                "from": shown_moment(case, each.known_from),
                "until": each.known_until and shown_moment(case, each.known_until),
                "file": file_page(case, subject.source, each.file),
                "asked": subject.chosen == place,
                "alone": here(case, key, source=subject.source, at=at, as_of=since),
            }
        )
    return found


def _decisions(case: UseCase, decisions: Sequence[Promotion]) -> list[tuple[Any, ...]]:
    return [
        (each, path_to(case, "versions", each.version), shown_moment(case, each.decided_at))
        for each in decisions
    ]


def _partitions(
    site: Site, case: UseCase, table: str, windows: Collection[Window]
) -> dict[str, Any]:
    """How many, the ranges that they are, and where each is shown."""
    ordered = sorted(windows, key=lambda window: utc(window.start))
    named = [case.calendar.keys(each) for each in case.calendar.ranges(ordered)]
    return {
        "count": len(ordered),
        "named": ", ".join(a if a == b else f"{a} to {b}" for a, b in named[:FEW]),
        "more": max(0, len(named) - FEW),
        "links": [(case.calendar.key(w), _place(site, case, table, w)) for w in ordered[:MOST]],
        "left": max(0, len(ordered) - MOST),
    }


def _place(site: Site, case: UseCase, table: str, window: Window) -> str:
    """The page of a partition, where it has one here, else Dagster's."""
    page = {"drift_report": "drift", "performance_report": "performance"}.get(table)
    if page is None:
        return site.in_dagster(case, table, window)
    return path_to(case, page, case.calendar.key(window))
