"""What of a query is another value each time that it is computed, by DuckDB's own catalog."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import duckdb

# Left out by the catalog, which calls all of them consistent.
SESSION_FUNCTIONS = frozenset(
    {"current_localtime", "current_localtimestamp", "current_setting", "getvariable"}
)
"""Functions that say something of the clock or of the session."""
WITHOUT_BRACKETS = frozenset(
    {
        "current_date", "current_time", "current_timestamp", "localtime", "localtimestamp",
        "current_catalog", "current_schema",
    }
)  # fmt: skip
"""Functions that SQL calls by their name alone, where no column has that name."""
BY_ARGUMENTS = {("age", 1)}
"""Functions, with their number of arguments, that differ from others of the same name."""
HARMLESS = frozenset({"error"})
"""Functions that the catalog calls volatile although they never yield a value."""
ROWS_FROM_ARGUMENTS = frozenset(
    {"generate_series", "json_each", "json_tree", "range", "repeat", "repeat_row", "unnest"}
)
"""Table functions whose rows depend on their arguments alone; the catalog says it of none."""
ANY_NAME = re.compile(r'_name(?:s":\[|":)"([^"]*)"')
NAMES = re.compile(r'"(function|column|table)_names?":\[?"([^"]*)"')
"""Names in a serialized query, each with what it names."""
SCHEMAS = frozenset({"", "main", "pg_catalog", "system"})


@dataclass(frozen=True)
class Catalog:
    """Names of DuckDB's own functions and views, in lower case."""

    moving: frozenset[str]
    """Functions whose result is another one each time."""
    reading: frozenset[str]
    """Table functions and views that read something else than their arguments."""

    @cached_property
    def suspects(self) -> frozenset[tuple[str, str]]:
        """What `NAMES` finds in a query that is not fine, unless it takes a sample."""
        functions = self.moving | self.reading | {name for name, _ in BY_ARGUMENTS}
        named = {"function": functions, "column": WITHOUT_BRACKETS, "table": self.reading}
        return frozenset((kind, name) for kind, names in named.items() for name in names)

    @cached_property
    def suspected(self) -> frozenset[str]:
        return frozenset(name for _, name in self.suspects)


def moving_part(tree: str, sources: Mapping[str, Collection[str]]) -> str | None:
    """What is wrong with a query that does not yield the same rows from the same sources.

    tree: the query as `json_serialize_sql` writes it; sources: column names by source.
    """
    catalog = duckdb_catalog()
    # Reading the whole tree takes as long as binding the query; nearly all have none of these.
    if not _is_suspect(tree, catalog) and '"sample":{' not in tree:
        return None
    nodes = list(_nodes(json.loads(tree)))
    own = {name.lower() for name in sources} | {n.lower() for node in nodes for n in _named(node)}
    read = {node["table_name"] for node in nodes if node.get("type") == "BASE_TABLE"}
    columns = {c.lower() for name in sources.keys() & read for c in sources[name]}
    found = (_problem(node, catalog, own, columns) for node in nodes)
    return min((problem for problem in found if problem), default=None)


def _is_suspect(tree: str, catalog: Catalog) -> bool:
    found = {name.lower() for name in set(ANY_NAME.findall(tree))}
    # What a name is the name of takes three times as long to find.
    return not found.isdisjoint(catalog.suspected) and not catalog.suspects.isdisjoint(
        (kind, name.lower()) for kind, name in NAMES.findall(tree)
    )


def _problem(
    node: Mapping[str, Any], catalog: Catalog, own: Collection[str], columns: Collection[str]
) -> str | None:
    if node.get("sample"):
        return "a sample has other rows each time; filter by a key, as in hash(key) % 10 = 0"
    match node.get("type"):
        case "FUNCTION":
            name, arguments = node["function_name"].lower(), len(node["children"])
            # `ts.age()` is parsed as a function of the schema `ts`, and called with it.
            arguments += node["schema"].lower() not in SCHEMAS
            moves = name in catalog.moving or (name, arguments) in BY_ARGUMENTS
            return _moves(name) if moves else None
        case "COLUMN_REF":
            *before, name = (part.lower() for part in node["column_names"])
            moves = not before and name in WITHOUT_BRACKETS - {*columns}
            return _moves(name) if moves else None
        case "TABLE_FUNCTION":
            name = node["function"]["function_name"].lower()
            return _reads(name) if name in catalog.reading else None
        case "BASE_TABLE":
            name = node["table_name"].lower()
            is_own = not node["schema_name"] and name in own
            return _reads(name) if name in catalog.reading and not is_own else None
    return None


def _moves(name: str) -> str:
    return f'"{name}" is another value each time; take it from a column'


def _reads(name: str) -> str:
    return f'"{name}" is not a source; a query reads sources only'


def _named(node: Mapping[str, Any]) -> Iterator[str]:
    """Names of the common table expressions of a node."""
    yield from (each["key"] for each in (node.get("cte_map") or {}).get("map", ()))


def _nodes(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _nodes(each)


@lru_cache
def duckdb_catalog() -> Catalog:
    """What DuckDB says of its functions and views; asked once a process, since it takes 30 ms."""
    with closing(duckdb.connect()) as connection:
        functions = connection.execute(
            "SELECT lower(function_name), function_type, stability, macro_definition "
            "FROM duckdb_functions() WHERE stability <> 'CONSISTENT' "
            "OR function_type IN ('table', 'macro', 'table_macro')"
        ).fetchall()
        views = connection.execute(
            "SELECT lower(view_name) FROM duckdb_views() WHERE internal"
        ).fetchall()
    moving = {name for name, _, stability, _ in functions if stability not in {None, "CONSISTENT"}}
    tables = {name for name, kind, *_ in functions if kind == "table"} - ROWS_FROM_ARGUMENTS
    macros = [(name, kind, _words(body.lower())) for name, kind, _, body in functions if body]
    moving = (moving | SESSION_FUNCTIONS) - HARMLESS
    tables |= {name for (name,) in views}
    for _ in macros:
        # A macro is what it calls, and may call others.
        known = moving | tables | WITHOUT_BRACKETS
        calling = [(name, kind) for name, kind, words in macros if words & known]
        if {name for name, _ in calling} <= moving | tables:
            break
        moving |= {name for name, kind in calling if kind == "macro"}
        tables |= {name for name, kind in calling if kind == "table_macro"}
    return Catalog(frozenset(moving), frozenset(tables))


def _words(body: str) -> set[str]:
    """What a macro calls: names before a bracket, and names that are called without one."""
    called = re.findall(r"(\w+)\s*\(", body)
    return {*called, *(name for name in WITHOUT_BRACKETS if name in body)}
