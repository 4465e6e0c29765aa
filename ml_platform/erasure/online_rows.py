"""Rows of an entity in the online store, by the keys that views are looked up by."""

from collections.abc import Sequence

import duckdb

from ml_platform.erasure.matching import Matching
from ml_platform.errors import NotPublished
from ml_platform.features import OnlineStore
from ml_platform.features.keys import entity_parts
from ml_platform.features.views import entity_types
from ml_platform.spec.queries import literal


def forget_online(store: OnlineStore, matching: Matching, *, dry_run: bool) -> dict[str, int]:
    """Delete the entity's keys from every view; how many those are, by view."""
    found = {}
    for view, declared in matching.use_case.features.items():
        columns = entity_types(matching.use_case, declared.entity)
        if matching.of_columns(columns) is None:
            continue

        def meant(texts: Sequence[str], columns: dict[str, str] = columns) -> frozenset[str]:
            return _meant(matching, columns, texts)

        try:
            count = store.forget(matching.use_case.name, view, meant, dry_run=dry_run)
        except NotPublished:
            continue
        if count:
            found[view] = count
    return found


def _meant(matching: Matching, columns: dict[str, str], texts: Sequence[str]) -> frozenset[str]:
    """Those of some entities, as the store names them, that are to be erased."""
    if not texts:
        return frozenset()
    cursor: duckdb.DuckDBPyConnection = matching.cursor
    names = [f"c{n}" for n in range(len(columns))]
    rows = ", ".join(
        f"({', '.join(map(literal, (text, *entity_parts(text, len(columns)))))})" for text in texts
    )
    typed = ", ".join(
        f'TRY_CAST({name} AS {kind}) AS "{column}"'
        for name, (column, kind) in zip(names, columns.items(), strict=True)
    )
    found = cursor.execute(
        f"""SELECT entity FROM (SELECT entity, {typed}
            FROM (VALUES {rows}) t(entity, {", ".join(names)}))
        WHERE {matching.of_columns(columns)}"""
    ).fetchall()
    return frozenset(entity for (entity,) in found)
