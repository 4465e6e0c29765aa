"""Which source columns a query's columns are computed from."""

from collections.abc import Mapping

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.lineage import lineage
from sqlglot.optimizer.qualify import qualify


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
        return {name: _leaves(name, tree, schema) for name in tree.named_selects}
    except SqlglotError:
        return {}


def _leaves(name: str, tree: exp.Query, schema: dict[str, object]) -> tuple[tuple[str, str], ...]:
    found = set()
    for node in lineage(name, tree, schema=schema, dialect="duckdb").walk():
        if isinstance(node.expression, exp.Table) and node.expression.name in schema:
            found.add((node.expression.name, node.name.split(".")[-1].strip('"')))
    return tuple(sorted(found))
