"""A query of DuckDB as a query of Spark, or why there is none."""

from collections.abc import Iterator
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from ml_platform.errors import PlatformError
from ml_platform.spec.spark_sql.asof import without_asof
from ml_platform.spec.spark_sql.expressions import Refused, parsed, spark
from ml_platform.spec.spark_sql.functions import spark_expression
from ml_platform.spec.spark_sql.times import exact_seconds, microseconds

LAKE = "lake"
MICROSECONDS = 1_000_000


class Untranslatable(PlatformError):
    """A query that is not known to mean the same in Spark; `line` is where in it."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class LakeTable:
    """A table of the lake that a query reads."""

    schema: str
    name: str
    snapshot: int | None
    """None for the newest."""

    @property
    def view(self) -> str:
        """What the query of Spark calls it."""
        return f"{self.schema}__{self.name}__{'now' if self.snapshot is None else self.snapshot}"


@dataclass(frozen=True)
class SparkQuery:
    """A query of Spark, and the tables of the lake that have to be there by the names of views."""

    sql: str
    reads: frozenset[LakeTable]


def translate(sql: str, timezone: str) -> SparkQuery:
    """A query that yields in Spark the rows that it yields in DuckDB.

    timezone: that of both sessions. Raises Untranslatable.
    """
    try:
        tree = sqlglot.parse_one(sql, read="duckdb")
    except SqlglotError as error:
        # DuckDB may well read it.
        raise Untranslatable(f"sqlglot cannot read this query: {error}", None) from None
    reads: set[LakeTable] = set()
    try:
        for node in list(tree.walk(bfs=False))[::-1]:
            # Children come before what they are part of.
            with _Line(node):
                _replace(node, timezone, reads)
        tree = _queries_without(tree)
    except _Located as error:
        raise Untranslatable(str(error.problem), error.line) from None
    return SparkQuery(tree.sql("spark"), frozenset(reads))


class _Located(Exception):
    def __init__(self, problem: Refused, line: int | None) -> None:
        super().__init__(str(problem))
        self.problem, self.line = problem, line


class _Line:
    """Says of what is refused inside on which line it is."""

    def __init__(self, node: exp.Expr) -> None:
        self._node = node

    def __enter__(self) -> None:
        self._line = _line_of(self._node)

    def __exit__(self, kind: object, problem: BaseException | None, trace: object) -> None:
        if isinstance(problem, Refused):
            raise _Located(problem, self._line) from None


def _line_of(node: exp.Expr) -> int | None:
    return next((part.meta["line"] for part in node.walk() if "line" in part.meta), None)


def _replace(node: exp.Expr, timezone: str, reads: set[LakeTable]) -> None:
    if isinstance(node, exp.Table) and node.catalog == LAKE:
        table = _lake_table(node)
        reads.add(table)
        named = exp.to_table(
            exp.to_identifier(table.view, quoted=True).sql("spark"), dialect="spark"
        )
        named.set("alias", node.args.get("alias"))
        named.set("joins", node.args.get("joins"))
        node.replace(named)
        return
    if isinstance(node, exp.CTE):
        # DuckDB's word for one that is computed once; Spark decides that itself.
        node.set("materialized", None)
        return
    if isinstance(node, exp.Window):
        _count_in_microseconds(node)
        return
    if (instead := spark_expression(node, timezone)) is not None:
        node.replace(instead)


def _lake_table(node: exp.Table) -> LakeTable:
    when = node.args.get("when")
    return LakeTable(node.db, node.name, None if when is None else int(when.expression.name))


def _count_in_microseconds(window: exp.Window) -> None:
    """Make a frame of hours one of microseconds; Spark would take whole days of it for dates."""
    frame, order = window.args.get("spec"), window.args.get("order")
    if frame is None or str(frame.args.get("kind")).upper() != "RANGE":
        return
    ends = {end: frame.args.get(end) for end in ("start", "end")}
    intervals = {k: v for k, v in ends.items() if isinstance(v, exp.Interval)}
    exact = {end: exact_seconds(value) for end, value in intervals.items()}
    if not intervals:
        return
    if None in exact.values():
        if set(exact.values()) != {None}:
            raise Refused("a frame of hours and of days at once is not known to mean the same")
        return
    if order is None or len(order.expressions) != 1:
        raise Refused("a frame of an interval is ordered by one time")
    for end, seconds in exact.items():
        assert seconds is not None
        frame.set(end, exp.Literal.number(seconds * MICROSECONDS))
    by = order.expressions[0]
    by.set("this", parsed(microseconds(spark(by.this))))


def _queries_without(tree: exp.Expr) -> exp.Expr:
    """The same without what Spark's queries do not have, the innermost first."""
    for node in list(tree.walk(bfs=False))[::-1]:
        instead: exp.Expr = node
        with _Line(node):
            if isinstance(node, exp.Select):
                instead = without_asof(node)
            elif _is_by_name(node) and not _is_by_name(node.parent):
                instead = _by_position(node)
        if instead is not node:
            if node is tree:
                tree = instead
            else:
                node.replace(instead)
    return tree


def _by_position(union: exp.Expr) -> exp.Expr:
    branches = list(_branches(union))
    names = list(dict.fromkeys(name for branch in branches for name in _names(branch)))
    parts = []
    for number, branch in enumerate(branches):
        has = set(_names(branch))
        listed = ", ".join(f"`{name}`" if name in has else f"NULL AS `{name}`" for name in names)
        parts.append(f"SELECT {listed} FROM ({spark(branch)}) AS __branch{number}")
    how = "UNION" if union.args.get("distinct") else "UNION ALL"
    united = parsed(f" {how} ".join(parts))
    if (named := union.args.get("with_")) is not None:
        united.set("with_", named)
    return united


def _is_by_name(node: exp.Expr | None) -> bool:
    return isinstance(node, exp.Union) and bool(node.args.get("by_name"))


def _branches(union: exp.Expr) -> Iterator[exp.Expr]:
    if _is_by_name(union):
        yield from _branches(union.this)
        yield from _branches(union.expression)
    else:
        yield union


def _names(branch: exp.Expr) -> list[str]:
    selected = branch.unnest() if isinstance(branch, exp.Subquery) else branch
    if not isinstance(selected, exp.Select) or any(item.is_star for item in selected.expressions):
        raise Refused("in Spark, the queries of UNION ALL BY NAME list their columns, not *")
    return [item.alias_or_name for item in selected.expressions]
