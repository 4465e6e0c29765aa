"""Which source columns a query's columns are computed from."""

from collections.abc import Mapping

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.lineage import Node, lineage
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import build_scope


def column_sources(
    query: str, sources: Mapping[str, Mapping[str, str]]
) -> dict[str, tuple[tuple[str, str], ...]]:
    """Output column → the (source, column) pairs it is computed from, sorted.

    sources: source → column → type. Syntax that sqlglot does not know yields no lineage: DuckDB is
    what decides whether a query is right.

    >>> column_sources("SELECT a, max(b) AS m FROM s GROUP BY a", {"s": {"a": "INT", "b": "INT"}})
    {'a': (('s', 'a'),), 'm': (('s', 'b'),)}
    """
    schema: dict[str, object] = {
        name: {**columns, "known_at": "TIMESTAMPTZ"} for name, columns in sources.items()
    }
    try:
        tree = qualify(sqlglot.parse_one(query, dialect="duckdb"), schema=schema, dialect="duckdb")
        if not isinstance(tree, exp.Query):
            return {}
        # Qualified once and walked for all columns together: by default sqlglot does both for each.
        nodes = lineage(
            None, tree, schema=schema, dialect="duckdb",
            scope=build_scope(tree), trim_selects=False, copy=False,
        )  # fmt: skip
        assert isinstance(nodes, dict)
        return {name: _leaves(nodes[name], schema) for name in tree.named_selects}
    except SqlglotError:
        return {}


def _leaves(node: Node, schema: dict[str, object]) -> tuple[tuple[str, str], ...]:
    found = set()
    for each in node.walk():
        if isinstance(each.expression, exp.Table) and each.expression.name in schema:
            found.add((each.expression.name, each.name.split(".")[-1].strip('"')))
    return tuple(sorted(found))
