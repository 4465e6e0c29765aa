"""The rules of the examples' source, for rows to predict that were not ingested.

A row that breaks one when it lands is quarantined and never predicted, so nor is it on request.
Whether it does DuckDB says both times, of values of the source's types.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from ml_platform.errors import RuleBroken
from ml_platform.sources.contract import WHOLE_NUMBERS, broken_sql, type_names, typed_sql
from ml_platform.spec.inputs import Source
from ml_platform.spec.queries import is_numeric, is_time, literal, quote
from ml_platform.spec.use_case import UseCase

if TYPE_CHECKING:
    from ml_platform.spec.comparisons import Comparison, Operator

EXACT = WHOLE_NUMBERS | {"DOUBLE"}
"""Types of which a float has every value that a model is given."""
BREAKS: "Mapping[Operator, np.ufunc]" = {
    "<": np.greater_equal, "<=": np.greater, ">": np.less_equal, ">=": np.less, "<>": np.equal,
}  # fmt: skip
"""What is true of a number for which a comparison is false."""


@dataclass(frozen=True)
class Rule:
    """A rule of a source."""

    sql: str
    columns: tuple[str, ...]
    """Those that it reads."""


def rules_over(
    connection: duckdb.DuckDBPyConnection, source: Source, types: Mapping[str, str]
) -> tuple[Rule, ...]:
    """The rules of a source that read nothing but some of its columns; types: of those by name."""
    # sqlglot takes 0.13 s to import, and most commands judge nothing.
    from ml_platform.spec.lineage import columns_read

    known = dict.fromkeys((*source.columns, "known_at"))
    rules = (Rule(sql, columns_read([sql], known)) for sql in source.rules)
    return tuple(
        rule
        for rule in rules
        if rule.columns and types.keys() >= {*rule.columns} and _binds(connection, rule, types)
    )


def _binds(connection: duckdb.DuckDBPyConnection, rule: Rule, types: Mapping[str, str]) -> bool:
    # What it reads is known from another parser than DuckDB's, which may overlook some of it.
    nulls = ", ".join(f"CAST(NULL AS {types[c]}) AS {quote(c)}" for c in rule.columns)
    try:
        connection.execute(f"DESCRIBE SELECT ({rule.sql}) FROM (SELECT {nulls})")
    except duckdb.BinderException:
        return False
    return True


def first_broken_sql(rules: Sequence[Rule]) -> str:
    """The number of the first rule that a row breaks, from 1; 0 where it breaks none.

    Not null: a third of what judging a row takes would be making numpy's mask of it.
    """
    cases = " ".join(f"WHEN {broken_sql(r.sql)} THEN {number}" for number, r in enumerate(rules, 1))
    return f"CASE {cases} ELSE 0 END" if cases else "0"


def refuse_broken(source: str, rules: Sequence[Rule], broken: NDArray[Any]) -> None:
    """Refuse rows of which one breaks a rule.

    broken: what `first_broken_sql` says of each. Raises RuleBroken.
    """
    if broken.any():
        row = int((broken != 0).argmax())
        rule = rules[int(broken[row]) - 1]
        raise RuleBroken(source, rule.sql, rule.columns, row)


class InputRules:
    """Judges rows that come as columns of a model; threads take turns.

    A column is the source's own where the examples select it as it stands: not what is computed,
    whatever its name, and no time, which models are given as a number. Only rules that read
    nothing else can be judged.

    DuckDB is asked only where a row may break one: between two predictions, whose work leaves
    nothing of it in the processor's caches, it takes 0.15 ms. What compares columns with numbers is
    known to hold in 0.005 ms.
    """

    def __init__(self, use_case: UseCase) -> None:
        declared = use_case.examples
        self._name, self._source = declared.source, use_case.sources[declared.source]
        self._lock = threading.Lock()
        self._given: list[list[Any]] = []
        self._prepared: dict[frozenset[str], _Judged] = {}
        self._connection = duckdb.connect(config={"threads": 1})
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute(f"SET TimeZone = {literal(use_case.timezone)}")
        types = type_names(self._connection, self._source.columns)
        items = {item.strip() for item in declared.columns}
        self._own = {
            column: kind
            for column, kind in types.items()
            if items & {column, quote(column)} and not is_time(kind)
        }
        # Columns are asked for by a function, see `RequestReader`.
        for name, kind in (("given_numbers", "DOUBLE[]"), ("given_texts", "VARCHAR[]")):
            self._connection.create_function(
                name, lambda number: self._given[number], ["INTEGER"], kind, side_effects=True
            )

    def close(self) -> None:
        self._connection.close()

    def check(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Refuse rows of which one breaks a rule.

        columns: of a model, n values each: float64 with NaN, text with None. Raises RuleBroken.
        """
        judged = self._judged(frozenset(columns))
        if not judged.rules or judged.is_none_broken(columns):
            return
        with self._lock:
            # Not a number is what stands for a missing one.
            self._given = [
                [None if value != value else value for value in columns[column].tolist()]  # noqa: PLR0124
                for column in judged.columns
            ]
            statement = self._connection.execute(f"EXECUTE {judged.statement}")
            found: dict[str, NDArray[Any]] = statement.fetchnumpy()  # type: ignore[assignment]
        refuse_broken(self._name, judged.rules, found["broken"])

    def _judged(self, columns: frozenset[str]) -> "_Judged":
        # One for each set of columns: a champion may be older than a column that was added since.
        if columns not in self._prepared:
            with self._lock:
                self._prepared[columns] = self._prepare(columns)
        return self._prepared[columns]

    def _prepare(self, columns: frozenset[str]) -> "_Judged":
        from ml_platform.spec.comparisons import read_comparisons

        own = {column: kind for column, kind in self._own.items() if column in columns}
        rules = rules_over(self._connection, self._source, own)
        read = tuple(dict.fromkeys(column for rule in rules for column in rule.columns))
        name = f"judged{len(self._prepared)}"
        if rules:
            judging = f"SELECT {first_broken_sql(rules)} AS broken FROM ({self._typed_sql(read)})"
            self._connection.execute(f"PREPARE {name} AS {judging}")
        exact = [column for column in read if self._own[column] in EXACT]
        said = [read_comparisons(rule.sql, exact) for rule in rules]
        together = None if None in said else [each for one in said for each in one or ()]
        return _Judged(name, rules, read, together)

    def _typed_sql(self, read: Sequence[str]) -> str:
        given, typed = [], []
        for number, column in enumerate(read):
            kind, raw = self._own[column], f"__raw{number}"
            function = "given_numbers" if is_numeric(kind) else "given_texts"
            given.append(f"unnest({function}({number})) AS {raw}")
            typed.append(f"{typed_sql(raw, kind)} AS {quote(column)}")
        return f"SELECT {', '.join(typed)} FROM (SELECT {', '.join(given)})"


@dataclass(frozen=True)
class _Judged:
    """What is judged of rows that have the same columns."""

    statement: str
    rules: tuple[Rule, ...]
    columns: tuple[str, ...]
    comparisons: "Sequence[Comparison] | None"
    """What the rules say, where they only compare columns with numbers."""

    def is_none_broken(self, columns: Mapping[str, NDArray[Any]]) -> bool:
        """Whether it is plain that no row breaks a rule, so that DuckDB need not be asked."""
        # A missing number is neither less nor greater, and not equal: it breaks nothing.
        return self.comparisons is not None and not any(
            BREAKS[operator](columns[column], number).any()
            for column, operator, number in self.comparisons
        )
