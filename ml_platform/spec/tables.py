"""The tables of a use case: what each is computed from, and by which version of the code."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ml_platform.spec.duration import Duration
from ml_platform.spec.publication import Publication
from ml_platform.spec.use_case import (
    FEEDBACK,
    LIVE_REPORTS,
    REQUESTS,
    UseCase,
    digest,
    feature_table,
    published_table,
)
from ml_platform.spec.watching import Monitoring
from ml_platform.spec.windows import Window

MONITORING = ("drift_report", "performance_report")
BY_CHAMPION = {
    "predictions": "model_version",
    "drift_report": "reference_version",
    "live_drift_report": "reference_version",
}
"""Tables that the champion of a window makes, and the column that says which it was."""


@dataclass(frozen=True)
class Reads:
    """What windows of a table are computed from: another table, over a range of event time."""

    table: str
    range: Callable[[Window], Window]
    """The range of that table that a window sees, or that the windows of a range see together."""
    required: bool = False
    """Whether nothing can be computed while that range has no rows."""


def computed_tables(use_case: UseCase) -> tuple[str, ...]:
    """Tables that are computed from others, each after those that it reads."""
    live = LIVE_REPORTS if REQUESTS in use_case.sources else ()
    published = map(published_table, use_case.publish)
    return (
        *map(feature_table, use_case.features), "labels", "predictions", *published, *MONITORING,
        *live,
    )  # fmt: skip


def tables_of(use_case: UseCase) -> tuple[str, ...]:
    """All tables with windows, each after those that it reads."""
    return (*use_case.sources, *computed_tables(use_case))


def reads_of(use_case: UseCase, table: str) -> tuple[Reads, ...]:
    """What a table's windows are computed from; the champion of predictions is not a table."""
    if table in use_case.sources or table in LIVE_REPORTS:
        return _reads_of_live(use_case).get(table, ())
    for view, declared in use_case.features.items():
        if table == feature_table(view):
            return tuple(Reads(s, _looking(use_case, declared.lookback)) for s in declared.reads)
    return _reads_of_others(use_case, table)


def _reads_of_others(use_case: UseCase, table: str) -> tuple[Reads, ...]:
    """What is read by a table that neither a source nor a feature view has given its name."""
    same = _looking(use_case, Duration(0, "d"))
    if (publication := publication_of(use_case, table)) is not None:
        examples = [Reads(use_case.examples.source, same)] if publication.reads_example else []
        return (Reads(publication.reads, same, required=True), *examples)
    features = {feature_table(v): declared.ttl for v, declared in use_case.model_views.items()}
    match table:
        case "labels":
            ahead = _ahead(use_case, use_case.label.horizon)
            return (
                *(Reads(source, ahead) for source in use_case.label.reads),
                *(Reads(source, same) for source in given_labels(use_case)),
            )
        case "predictions":
            fresh = (Reads(name, _looking(use_case, ttl)) for name, ttl in features.items())
            return (Reads(use_case.examples.source, same, required=True), *fresh)
        case "drift_report":
            trail = _trailing(use_case, use_case.monitoring.window)
            watched = (
                Reads(name, trail) for name in (use_case.examples.source, *features, "labels")
            )
            return (Reads("predictions", trail, required=True), *watched)
        case "performance_report":
            return tuple(Reads(name, same, required=True) for name in ("predictions", "labels"))
    raise KeyError(table)


def publication_of(use_case: UseCase, table: str) -> Publication | None:
    """What a table notes the partitions of, where it is one of a publication."""
    found = (each for name, each in use_case.publish.items() if published_table(name) == table)
    return next(found, None)


def reads_itself(use_case: UseCase, table: str) -> bool:
    """Whether a window's new rows depend on those that it holds already.

    A source keeps rows whose file is gone, a performance report what was first reported.
    """
    return table in use_case.sources or table in {"performance_report", "live_performance_report"}


def given_labels(use_case: UseCase) -> tuple[str, ...]:
    """What labels that came back are made of, besides what `labels.sql` reads of each window."""
    if FEEDBACK not in use_case.sources:
        return ()
    # What is said of an example is a label once the example is there.
    made_of = (FEEDBACK, REQUESTS, use_case.examples.source)
    read = use_case.label.reads
    return tuple(name for name in made_of if name in use_case.sources and name not in read)


def _reads_of_live(use_case: UseCase) -> dict[str, tuple[Reads, ...]]:
    same = _looking(use_case, Duration(0, "d"))
    trail = _trailing(use_case, use_case.monitoring.window)
    drift, performance = LIVE_REPORTS
    answered = Reads(REQUESTS, same, required=True)
    # What came back of a prediction is a label of its segment, also where it is of no example.
    given = (Reads(FEEDBACK, trail),) if use_case.monitoring.segments.columns else ()
    return {
        drift: (Reads(REQUESTS, trail, required=True), Reads("labels", trail), *given),
        performance: (answered, Reads("labels", same), Reads(FEEDBACK, same)),
    }


def downstream_of(use_case: UseCase, tables: Iterable[str]) -> tuple[str, ...]:
    """The tables themselves and everything computed from them, in order."""
    found = set(tables)
    for table in tables_of(use_case):
        if any(read.table in found for read in reads_of(use_case, table)):
            found.add(table)
    return tuple(table for table in tables_of(use_case) if table in found)


def code_version(use_case: UseCase, table: str) -> str:
    """Digest of what is declared of one table: another one means that it has to be recomputed."""
    # Versions of computed rows are kept, and asked about, where values are those as known.
    revised = not use_case.is_as_known and table not in use_case.sources
    return digest(*_declared(use_case, table), *(("as_revised",) if revised else ()))


def code_versions(use_case: UseCase) -> Mapping[str, str]:
    """The code version of every table with windows."""
    return {table: code_version(use_case, table) for table in tables_of(use_case)}


def _declared(use_case: UseCase, table: str) -> tuple[Any, ...]:
    if table in use_case.sources:
        # How corrections count says what lands from now on.
        source = use_case.sources[table]
        read = source.model_dump(
            mode="json", exclude={"corrections", "corrected_at", *source.not_declared}
        )
        file = use_case.folder / f"{source.python.partition(':')[0]}.py"
        text = (file.read_text(),) if source.python else ()
        return read, use_case.timezone, *text
    for view, declared in use_case.features.items():
        if table == feature_table(view):
            return declared.query, declared.model_dump(mode="json")
    return _declared_of_others(use_case, table)


def _declared_of_others(use_case: UseCase, table: str) -> tuple[Any, ...]:
    monitoring = use_case.monitoring
    if (publication := publication_of(use_case, table)) is not None:
        given = publication.model_dump(mode="json", exclude=publication.not_declared)
        return given, publication.types, publication.keyed_by
    match table:
        case "labels":
            given = use_case.label.model_dump(mode="json", exclude_none=True)
            return use_case.label.query, given
        case "predictions":
            explained = (monitoring.explanations,) if monitoring.explanations else ()
            given = use_case.examples.model_dump(mode="json")
            return given, use_case.prediction_columns, *explained
        case "drift_report" | "live_drift_report":
            return (monitoring.model_dump(mode="json", exclude=_apart(monitoring)),)
        case "performance_report" | "live_performance_report":
            return monitoring.performance.model_dump(mode="json"), use_case.model.metric
    raise KeyError(table)


def _apart(monitoring: Monitoring) -> set[str]:
    """What of monitoring does not decide what a drift report says."""
    unused = set() if monitoring.segments.columns else {"segments"}
    return {"freshness", "quarantine", "explanations", *unused}


def _looking(use_case: UseCase, back: Duration) -> Callable[[Window], Window]:
    zone = use_case.calendar.timezone
    return lambda window: Window(back.before(window.start, zone), window.end)


def _ahead(use_case: UseCase, ahead: Duration) -> Callable[[Window], Window]:
    zone = use_case.calendar.timezone
    return lambda window: Window(window.start, ahead.after(window.end, zone))


def _trailing(use_case: UseCase, length: Duration) -> Callable[[Window], Window]:
    calendar = use_case.calendar

    def trail(computed: Window) -> Window:
        # Of several windows the first one's trail reaches farthest back.
        first = calendar.window_at(computed.start)
        return Window(length.before(first.end, calendar.timezone), computed.end)

    return trail
