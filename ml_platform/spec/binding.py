"""SQL of a use case, bound to its sources: what each query yields, or what is wrong with it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from ml_platform.spec.checks import IN_EXAMPLES, STAMPS, check_engine, check_watched
from ml_platform.spec.inputs import Examples, FeatureView, Label
from ml_platform.spec.logged import with_logged_sources
from ml_platform.spec.mistakes import Mistakes
from ml_platform.spec.publishing import bind_publications
from ml_platform.spec.queries import (
    TIME_TYPES,
    TIMELIKE_TYPES,
    QueryChecker,
    complaint,
    is_numeric,
    line_of_error,
    line_of_select,
    only_select,
    quote,
)
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.values import suggest, unknown
from ml_platform.spec.yaml_text import PathInDocument

T = TypeVar("T")
BINARY_TYPES = frozenset({"BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT"})


@dataclass(frozen=True)
class _Query:
    """One file of SQL and what it yields."""

    file: Path
    text: str
    columns: dict[str, str]
    reads: tuple[str, ...]


def bind(use_case: UseCase, mistakes: Mistakes, database: duckdb.DuckDBPyConnection) -> UseCase:
    """The use case with what its queries yield filled in; raises SpecErrors.

    database: as `checking_database` opens it.
    Each stage stops where the next would only repeat its mistakes.
    """
    try:
        checker = QueryChecker(database, use_case.timezone)
    except duckdb.Error:
        problem = f"DuckDB has no zone '{use_case.timezone}'; take one such as 'Europe/Berlin'"
        mistakes.add(("partitions", "timezone"), problem)
        mistakes.stop()
        raise
    try:
        binder = _Binder(use_case, checker, mistakes)
        for name in use_case.sources:
            binder.create_source(name)
        mistakes.stop()
        examples = binder.bind_examples()
        mistakes.stop()
        known = {**use_case.sources[examples.source].columns, **examples.request}
        features = {name: binder.bind_view(name, known) for name in use_case.features}
        label = binder.bind_label()
        asked = use_case.model_copy(update={"examples": examples, "features": features})
        publish = bind_publications(asked, checker, mistakes).publish
    finally:
        checker.close()
    mistakes.stop()
    bound = use_case.model_copy(
        update={"examples": examples, "features": features, "label": label, "publish": publish}
    )
    for index, column in enumerate(bound.gate.segments):
        if column not in bound.model_columns:
            problem = unknown("model column", column, bound.model_columns)
            mistakes.add(("gate", "segments", index), problem)
    check_watched(bound, mistakes)
    check_engine(bound, mistakes)
    return with_logged_sources(bound, mistakes)


class _Binder:
    def __init__(self, use_case: UseCase, checker: QueryChecker, mistakes: Mistakes) -> None:
        self.use_case = use_case
        self.checker = checker
        self.mistakes = mistakes

    def create_source(self, name: str) -> None:
        source, path = self.use_case.sources[name], ("sources", name)
        found = len(self.mistakes)
        if not self.checker.are_types(source.columns.values()):
            for column, declared in source.columns.items():
                self._try((*path, "columns", column), self.checker.check_type, declared)
            if len(self.mistakes) > found:
                return
        self._try((*path, "columns"), self.checker.create, name, source.columns)
        if len(self.mistakes) > found:
            return
        times = {"event_time": quote(source.event_time), "known_at": source.known_at_sql}
        if source.corrected_at:
            times["corrected_at"] = quote(source.corrected_at)
        self.checker.bind_together(name, [*times.values(), *source.rules])
        for key, expression in times.items():
            kind = self._try((*path, key), self.checker.type_of, name, expression)
            if kind and kind not in TIMELIKE_TYPES:
                problem = f"{expression.replace(chr(34), chr(39))} is {kind}; it should be a time"
                self.mistakes.add((*path, key), f"{problem}, such as TIMESTAMPTZ")
                return
        for index, rule in enumerate(source.rules):
            kind = self._try((*path, "rules", index), self.checker.type_of, name, rule)
            if kind and kind != "BOOLEAN":
                problem = f"'{rule}' is {kind}; a rule is true or false, such as '{rule} > 0'"
                self.mistakes.add((*path, "rules", index), problem)

    def bind_examples(self) -> Examples:
        examples = self.use_case.examples
        self._require_known(examples.source)
        request: dict[str, str] = {}
        taken = IN_EXAMPLES | {*examples.entity}
        self.checker.bind_items(examples.source, examples.columns)
        for index, item in enumerate(examples.columns):
            path = ("examples", "columns", index)
            found = self._try(path, self.checker.items, examples.source, item) or {}
            for column in found:
                if column in taken or column in request:
                    problem = f"'{column}' is taken; name it otherwise, such as '{column}_input'"
                    self.mistakes.add(path, problem)
                    break
            else:
                request |= found
        return examples.model_copy(update={"request": request})

    def _require_known(self, name: str) -> None:
        """Refuse examples that are known too late whatever their rows hold."""
        source = self.use_case.sources[name]
        if source.known_at is None:
            return
        late = self.checker.later_than(name, source.known_at, source.event_time)
        if late is not None:
            event, known = late
            problem = (
                f"'{source.known_at}' is after the event time ({known} for {event}), and examples "
                f"are predicted at their event time; correct it, or take as `event_time` a column "
                f"that says when a row of '{name}' is known"
            )
            self.mistakes.add(("sources", name, "known_at"), problem)

    def bind_view(self, name: str, known: dict[str, str]) -> FeatureView:
        view, path = self.use_case.features[name], ("features", name)
        for column in view.entity:
            if column not in known:
                problem = f"examples have {unknown('column', column, known)}"
                self.mistakes.add((*path, "entity"), problem)
                return view
        query = self._bind_file(path, view.sql or f"features/{name}.sql")
        if query is None:
            return view
        self._require(query, (*view.entity, "event_time"))
        features = {c: t for c, t in query.columns.items() if c not in {*view.entity, "event_time"}}
        if not features:
            self._add_in(query, "the query yields no feature beside entity and event_time")
        for column in STAMPS & features.keys():
            self._add_in(query, f"'{column}' is a column of the platform; name it otherwise")
        return view.model_copy(
            update={"query": query.text, "features": features, "reads": query.reads}
        )

    def bind_label(self) -> Label:
        label = self.use_case.label
        query = self._bind_file(("label", "sql"), label.sql)
        if query is None:
            return label
        needed = (*self.use_case.examples.entity, "event_time", "label", "known_at")
        self._require(query, needed)
        kind = query.columns.get("label", "BOOLEAN")
        if label.task == "binary" and kind not in BINARY_TYPES:
            problem = f"'label' is {kind}; a binary one is BOOLEAN, such as status = 'late'"
            self._add_in(query, problem)
        if label.task == "regression" and not is_numeric(kind):
            self._add_in(query, f"'label' is {kind}; for regression it should be a number")
        return label.model_copy(update={"query": query.text, "reads": query.reads})

    def _bind_file(self, path: PathInDocument, name: str) -> _Query | None:
        file = self.use_case.folder / name
        if not file.resolve().is_relative_to(self.use_case.folder.resolve()):
            self.mistakes.add(path, f"'{name}' is not in the folder of the use case; move it there")
            return None
        if not file.is_file():
            near = suggest(file.name, sorted(other.name for other in file.parent.glob("*.sql")))
            problem = f"there is no file '{name}' in {self.use_case.folder}{near or '; write it'}"
            self.mistakes.add(path, problem)
            return None
        text = file.read_text(encoding="utf-8-sig", errors="replace")
        try:
            query = only_select(text)
            bound = _Query(file, query, self.checker.columns(query), self.checker.reads(query))
        except duckdb.Error as error:
            problem = complaint(error, self.use_case.sources)
            self.mistakes.add_in(file, line_of_error(text, error), problem)
            return None
        if not bound.reads:
            self._add_in(bound, f"it reads none of the sources: {', '.join(self.use_case.sources)}")
            return None
        return bound

    def _require(self, query: _Query, needed: Iterable[str]) -> None:
        for column in needed:
            kind = query.columns.get(column)
            if kind is None:
                near = suggest(column, query.columns)
                if column == "known_at":
                    near = "; add the time from which on the label is known"
                self._add_in(query, f"the query yields no column '{column}'{near}")
            elif column in {"event_time", "known_at"} and kind not in TIME_TYPES:
                problem = f"'{column}' is {kind}; write CAST(… AS TIMESTAMPTZ) AS {column}"
                self._add_in(query, problem)

    def _add_in(self, query: _Query, problem: str) -> None:
        self.mistakes.add_in(query.file, line_of_select(query.text), problem)

    def _try(self, path: PathInDocument, attempt: Callable[..., T], *arguments: Any) -> T | None:
        try:
            return attempt(*arguments)
        except duckdb.Error as error:
            problem = complaint(error, self.use_case.sources)
            if isinstance(error, duckdb.ParserException):
                # The bracket that closes an expression is the checker's, not the person's.
                where = problem.replace('at or near ")"', "at its end")
                problem = f"'{arguments[-1]}' is not SQL: {where}"
            self.mistakes.add(path, problem)
            return None
