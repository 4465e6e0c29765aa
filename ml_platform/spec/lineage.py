"""Which source columns a query's columns are computed from."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.lineage import Node, lineage
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import build_scope
from sqlglot.schema import MappingSchema

from ml_platform.spec.kept import JsonCache, way_of_deriving
from ml_platform.spec.use_case import UseCase, digest


class Lineage:
    """Which columns of some sources the columns of queries are computed from.

    sources: source → column → type.

    >>> lineage = Lineage({"s": {"a": "INT", "b": "INT"}})
    >>> lineage.of("SELECT a, max(b) AS m FROM s GROUP BY a")
    {'a': (('s', 'a'),), 'm': (('s', 'b'),)}
    """

    def __init__(self, sources: Mapping[str, Mapping[str, str]]) -> None:
        columns: dict[str, object] = {
            name: {**columns, "known_at": "TIMESTAMPTZ"} for name, columns in sources.items()
        }
        # Normalised once: given as a mapping, sqlglot does so three times for each query.
        self._schema = MappingSchema(columns, dialect="duckdb")
        self._sources = frozenset(columns)

    def of(self, query: str) -> dict[str, tuple[tuple[str, str], ...]]:
        """Output column → the (source, column) pairs it is computed from, sorted.

        Syntax that sqlglot does not know yields no lineage: DuckDB is what decides whether a query
        is right.
        """
        schema = self._schema
        try:
            # sqlglot's own validation takes as long as all the rest.
            tree = qualify(
                sqlglot.parse_one(query, dialect="duckdb"), schema=schema, dialect="duckdb",
                validate_qualify_columns=False, quote_identifiers=False,
            )  # fmt: skip
            # Which columns a pattern chooses sqlglot takes from the pattern, what it excludes
            # included.
            if not isinstance(tree, exp.Query) or tree.find(exp.Columns) or _has_unplaced(tree):
                return {}
            for union in list(tree.find_all(exp.SetOperation)):
                if union.args.get("by_name"):
                    _match_by_position(union)
            # Qualified once and walked for all columns together: by default sqlglot does both for
            # each.
            nodes = lineage(
                None, tree, schema=schema, dialect="duckdb",
                scope=build_scope(tree), trim_selects=False, copy=False,
            )  # fmt: skip
            assert isinstance(nodes, dict)
            return {name: self._leaves(nodes[name]) for name in tree.named_selects}
        except (SqlglotError, ValueError):
            # What sqlglot has qualified and cannot follow all the same is a ValueError.
            return {}

    def _leaves(self, node: Node) -> tuple[tuple[str, str], ...]:
        found = set()
        for each in node.walk():
            if isinstance(each.expression, exp.Table) and each.expression.name in self._sources:
                found.add((each.expression.name, each.name.split(".")[-1].strip('"')))
        return tuple(sorted(found))


class KeptLineage:
    """As `Lineage` of a use case's sources; what was found is kept until a query changes."""

    def __init__(self, use_case: UseCase, folder: Path) -> None:
        self._sources = {name: source.columns for name, source in use_case.sources.items()}
        self._kept, self._name = JsonCache(folder), f"{use_case.name}.lineage"
        self._source = digest(way_of_deriving(), self._sources, use_case.code_version)
        found = self._kept.read(self._name, self._source) or {}
        self._known: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
            query: {name: tuple((s, c) for s, c in pairs) for name, pairs in columns.items()}
            for query, columns in found.items()
        }

    def of(self, query: str) -> dict[str, tuple[tuple[str, str], ...]]:
        """As `Lineage.of`."""
        if query not in self._known:
            self._known[query] = self._lineage.of(query)
            self._kept.write(self._name, self._source, self._known)
        return self._known[query]

    @cached_property
    def _lineage(self) -> Lineage:
        return Lineage(self._sources)


def _has_unplaced(tree: exp.Query) -> bool:
    """Whether a SELECT computes from a column that sqlglot finds in no table."""
    items = (item for select in tree.find_all(exp.Select) for item in select.expressions)
    return any(not column.table for item in items for column in item.find_all(exp.Column))


def columns_read(items: Iterable[str], columns: Iterable[str]) -> tuple[str, ...]:
    """Columns of one table that select items over it are computed from, in the table's order.

    All of them where a pattern chooses, or sqlglot does not know the syntax.

    >>> columns_read(["b + 1 AS more", "hour(A)"], ["a", "b", "c"])
    ('a', 'b')
    """
    known = list(columns)
    query = f"SELECT {', '.join(items)} FROM it"
    schema: dict[str, object] = {"it": dict.fromkeys(known, "VARCHAR")}
    try:
        tree = qualify(
            sqlglot.parse_one(query, dialect="duckdb"),
            schema=schema,
            dialect="duckdb",
            validate_qualify_columns=False,
        )
    except SqlglotError:
        return tuple(known)
    if tree.find(exp.Star, exp.Columns):
        return tuple(known)
    read = {column.name.lower() for column in tree.find_all(exp.Column)}
    return tuple(column for column in known if column.lower() in read)


def renamed_columns(items: Iterable[str]) -> dict[str, str]:
    """Name → the column that it stands for, of select items that do no more than rename one.

    >>> renamed_columns(['"Station ID" AS station', "a", "a + 1 AS more"])
    {'station': 'Station ID'}
    """
    found = {}
    for item in items:
        try:
            selected = sqlglot.parse_one(f"SELECT {item}", dialect="duckdb").expressions
        except SqlglotError:
            continue
        for each in selected:
            if isinstance(each, exp.Alias) and isinstance(each.this, exp.Column):
                found[each.alias] = each.this.name
    return found


def _match_by_position(union: exp.SetOperation) -> None:
    """Turn `UNION BY NAME` into one by position, which is all that sqlglot's lineage follows."""
    selects = _selects(union)
    names = list(dict.fromkeys(name for select in selects for name in select.named_selects))
    for select in selects:
        own = dict(zip(select.named_selects, select.expressions, strict=True))
        select.set(
            "expressions",
            [own.get(name) or exp.alias_(exp.Null(), name, quoted=True) for name in names],
        )


def _selects(query: exp.Expr) -> list[exp.Select]:
    """The queries of one union, in order, from now on united by position.

    Raises ValueError where some of them are so already.
    """
    query = query.unnest()
    if not isinstance(query, exp.SetOperation):
        if not isinstance(query, exp.Select):
            raise ValueError(f"{query.key} in a union")
        return [query]
    if not query.args.get("by_name"):
        raise ValueError("a union by position inside of one by name")
    found = [*_selects(query.left), *_selects(query.right)]
    query.set("by_name", None)
    return found
