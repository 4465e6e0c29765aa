"""Rows to predict that were not ingested: what the examples' SQL makes of them."""

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.errors import ExampleRefused, QueryFailed
from ml_platform.features.frame import as_model_input, example_items, join_keys
from ml_platform.features.keys import SHOWN, key_sql, plain_text, read_value
from ml_platform.features.rules import first_broken_sql, refuse_broken, rules_over
from ml_platform.sources.contract import failed_sql, type_names, typed_sql
from ml_platform.spec.queries import is_numeric, literal, quote
from ml_platform.spec.use_case import UseCase

WHOLE_OFFSET = re.compile(r"[+-]\d\d$")
"""DuckDB leaves minutes out where there are none."""
MOMENT, FAILED, BROKEN, KEY = "__moment", "__failed", "__broken", "__key "
CHECKED = (FAILED, BROKEN, f"epoch_us(CAST(event_time AS TIMESTAMPTZ)) AS {MOMENT}")


@dataclass(frozen=True)
class Requested:
    """Rows to predict, by column; all of the same length, in the order in which they were given."""

    moments: list[int]
    """Event times, in microseconds since 1970 in UTC."""
    keys: Mapping[str, list[str | None]]
    """Texts of the example's entity and of the columns that features are joined by."""
    inputs: Mapping[str, NDArray[Any]]
    """Request columns as estimators are given them: float64 with NaN, text with None."""


class RequestReader:
    """Computes join keys and request columns of rows, by the SQL that examples are selected with.

    Types are read as they are from landing files, times without an offset in the use case's time
    zone. Built once for a use case, a row takes about 0.2 ms; threads take turns.
    """

    def __init__(self, use_case: UseCase) -> None:
        self._lock = threading.Lock()
        self._given: list[list[str | None]] = []
        self._use_case = use_case
        self._columns = list(needed_columns(use_case))
        source = use_case.sources[use_case.examples.source]
        self._event_time = source.event_time
        self._connection = duckdb.connect(config={"threads": 1})
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute(f"SET TimeZone = {literal(use_case.timezone)}")
        self._types = type_names(self._connection, needed_columns(use_case))
        self._rules = rules_over(self._connection, source, self._types)
        # A statement with parameters is planned again at every call, which takes several times as
        # long as running it. This one has none: it asks a function for the rows.
        self._connection.create_function(
            "given_column",
            lambda number: self._given[number],
            ["INTEGER"],
            "VARCHAR[]",
            side_effects=True,
        )
        items = f"{FAILED}, {BROKEN}, {example_items(use_case)}"
        examples = f"(SELECT {items} FROM ({self._source_sql()}))"
        self._connection.execute(f"PREPARE quick AS {self._quick_sql(examples)}")
        self._connection.execute(f"PREPARE framed AS {self._frame_sql(examples)}")

    def close(self) -> None:
        self._connection.close()

    def read(self, rows: Sequence[Mapping[str, Any]]) -> Requested:
        """What is needed to look features up and to predict.

        rows: values by source column, at least `needed_columns`; others are ignored.
        Raises ExampleRefused where a row lacks a column, an event time, or has a value that is not
        of its column's type, RuleBroken where it breaks a rule of its source that reads no more
        than these columns, QueryFailed where a request column cannot be computed of its values.
        """
        given = self._taken(rows)
        with self._lock:
            found: dict[str, NDArray[Any]] = self._run("quick", given).fetchnumpy()  # type: ignore[assignment]
        untimed = np.ma.getmaskarray(found[MOMENT])
        self._refuse(given, found[FAILED], untimed, found[BROKEN])
        request = self._use_case.examples.request
        return Requested(
            moments=[int(moment) for moment in found[MOMENT]],
            keys={
                name.removeprefix(KEY): _filled(values, None).tolist()
                for name, values in found.items()
                if name.startswith(KEY)
            },
            inputs={
                name: _filled(found[name], np.nan if is_numeric(kind) else None)
                for name, kind in request.items()
            },
        )

    def frame(self, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        """Entity, `event_time` and request columns as `assemble` yields them, then join keys.

        Raises as `read` does.
        """
        given = self._taken(rows)
        with self._lock:
            table = self._run("framed", given).to_arrow_table()
        untimed = table[MOMENT].is_null().to_numpy()
        self._refuse(given, table[FAILED].to_numpy(), untimed, table[BROKEN].to_numpy())
        frame: pd.DataFrame = table.drop_columns([FAILED, BROKEN, MOMENT]).to_pandas()
        return frame

    def read_times(self, texts: Sequence[str]) -> list[str]:
        """How times without a zone are read: ISO 8601 with the offset that they were given.

        texts: values of columns that `read` has taken.
        """
        with self._lock:
            found = self._connection.execute(
                "SELECT CAST(CAST(given AS TIMESTAMPTZ) AS VARCHAR) "
                "FROM (SELECT unnest(CAST($1 AS VARCHAR[])) AS given)",
                [list(texts)],
            ).fetchall()
        return [WHOLE_OFFSET.sub(r"\g<0>:00", text.replace(" ", "T")) for (text,) in found]

    def _run(self, statement: str, given: list[list[str | None]]) -> duckdb.DuckDBPyConnection:
        self._given = given
        try:
            return self._connection.execute(f"EXECUTE {statement}")
        except (
            duckdb.ConversionException,
            duckdb.OutOfRangeException,
            duckdb.InvalidInputException,
        ) as error:
            raise QueryFailed(f"{self._use_case.name} examples.columns: {error}") from error

    def _taken(self, rows: Sequence[Mapping[str, Any]]) -> list[list[str | None]]:
        taken = []
        for column in self._columns:
            try:
                taken.append([plain_text(row[column]) for row in rows])
            except KeyError:
                problem = "is missing; give every row a value of it, or null"
                raise ExampleRefused(column, problem) from None
            except (TypeError, ValueError) as error:
                raise ExampleRefused(column, str(error)) from None
        return taken

    def _source_sql(self) -> str:
        raw = {column: f"__raw{number}" for number, column in enumerate(self._columns)}
        given = ", ".join(
            f"unnest(given_column({number})) AS {name}" for number, name in enumerate(raw.values())
        )
        typed = ", ".join(f"{typed_sql(raw[c], t)} AS {quote(c)}" for c, t in self._types.items())
        checks = [
            f"({failed_sql(raw[c], quote(c), t)})" for c, t in self._types.items() if t != "VARCHAR"
        ]
        named = ", ".join(quote(column) for column in self._columns)
        failed = " OR ".join(checks) or "false"
        return (
            f"SELECT {named}, {failed} AS {FAILED}, "
            f"{first_broken_sql(self._rules)} AS {BROKEN}{self._known_at_sql()} "
            f"FROM (SELECT *, {typed} FROM (SELECT {given}))"
        )

    def _known_at_sql(self) -> str:
        from ml_platform.spec.lineage import columns_read

        declared = self._use_case.examples
        source = self._use_case.sources[declared.source]
        if "known_at" in source.columns or not columns_read(declared.columns, ["known_at"]):
            return ""
        return f", CAST({source.known_at_sql} AS TIMESTAMPTZ) AS known_at"

    def _quick_sql(self, examples: str) -> str:
        columns = dict.fromkeys((*self._use_case.examples.entity, *join_keys(self._use_case)))
        keys = [f"{key_sql(c)} AS {quote(KEY + c)}" for c in columns]
        items = [*CHECKED, *keys, *self._inputs()]
        return f"SELECT {', '.join(items)} FROM {examples}"

    def _frame_sql(self, examples: str) -> str:
        declared = self._use_case.examples
        named = {*declared.entity, *declared.request}
        keys = [quote(column) for column in join_keys(self._use_case) if column not in named]
        entity = [quote(column) for column in declared.entity]
        items = [*CHECKED, *entity, "event_time", *self._inputs(), *keys]
        return f"SELECT {', '.join(items)} FROM {examples}"

    def _inputs(self) -> list[str]:
        request = self._use_case.examples.request
        return [as_model_input(quote(c), kind, c) for c, kind in request.items()]

    def _refuse(
        self,
        given: list[list[str | None]],
        failed: NDArray[Any],
        untimed: NDArray[Any],
        broken: NDArray[Any],
    ) -> None:
        if failed.any():
            with self._lock:
                for values, (column, kind) in zip(given, self._types.items(), strict=True):
                    for value in values:
                        if value is not None and not self._is_of(kind, value):
                            raise ExampleRefused(column, f"'{value[:SHOWN]}' is not {kind}")
        if untimed.any():
            raise ExampleRefused(self._event_time, "is missing; a row to predict has an event time")
        refuse_broken(self._use_case.examples.source, self._rules, broken)

    def _is_of(self, kind: str, value: str) -> bool:
        return read_value(self._connection, kind, value)[1]


def _filled(values: NDArray[Any], missing: float | None) -> NDArray[Any]:
    if not isinstance(values, np.ma.MaskedArray):
        return values
    # numpy's own `filled` takes None for "the usual", which is a question mark.
    filled: NDArray[Any] = values.data.copy()
    filled[np.ma.getmaskarray(values)] = missing
    return filled


def request_columns(
    use_case: UseCase, rows: Sequence[Mapping[str, Any]] | pd.DataFrame
) -> pd.DataFrame:
    """Entity, `event_time` and request columns of rows, equal to those of `assemble`; join keys.

    rows: values by source column, at least `needed_columns`. A frame keeps its index.
    Raises ExampleRefused where a row lacks a column or has a value that is not of its type,
    RuleBroken where it breaks a rule of its source.
    """
    reader = RequestReader(use_case)
    try:
        if isinstance(rows, pd.DataFrame):
            records = [dict(zip(rows.columns, row, strict=True)) for row in rows.to_numpy(object)]
            return reader.frame(records).set_axis(rows.index)
        return reader.frame(rows)
    finally:
        reader.close()


def needed_columns(use_case: UseCase) -> dict[str, str]:
    """Source columns that rows to predict have to bring, with DuckDB types."""
    from ml_platform.spec.lineage import columns_read

    declared = use_case.examples
    source = use_case.sources[declared.source]
    read = columns_read(declared.columns, [*source.columns, "known_at"]) if declared.columns else ()
    keys = {*join_keys(use_case)} - declared.request.keys()
    needed = {source.event_time, *declared.entity, *keys, *read}
    if "known_at" in needed - source.columns.keys():
        needed |= {*columns_read([source.known_at_sql], source.columns)}
    return {name: kind for name, kind in source.columns.items() if name in needed}
