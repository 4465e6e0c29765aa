"""Where rows of a source come from: one origin, and nothing said of it that is about another."""

from collections.abc import Collection

from ml_platform.spec.inputs import Source
from ml_platform.spec.mistakes import Mistakes
from ml_platform.spec.values import no_database, unknown
from ml_platform.spec.yaml_text import PathInDocument

ORIGINS = ("files", "table", "python", "delta", "iceberg")


def check_origin(
    path: PathInDocument,
    source: Source,
    mistakes: Mistakes,
    databases: Collection[str] | None,
) -> None:
    """Add what is wrong with the origin of a source.

    databases: names that a table may begin with; None where they are not known.
    """
    given = [name for name in ORIGINS if getattr(source, name)]
    if not given:
        mistakes.add(path, "lands from nowhere; add `files: …`, or `table: …`")
        return
    if len(given) > 1:
        named = " and ".join(f"`{name}:`" for name in given)
        mistakes.add((*path, given[-1]), f"a source has one origin, not {named}; remove one")
        return
    if source.csv is not None and source.file_format != "csv":
        problem = f"is about CSV files, and this source has {_what(source)}; remove it"
        mistakes.add((*path, "csv"), problem)
    if source.rows_of:
        _check_rows(path, source, mistakes, databases)
    elif source.added_columns == "take":
        problem = "'take' is about a `table:` of a database, or a function; remove it"
        mistakes.add((*path, "added_columns"), problem)
    elif source.high_water is not None:
        problem = "is about a `table:` of a database, which alone has one; remove it"
        mistakes.add((*path, "high_water"), problem)
    if source.lake_table:
        _check_lake_table((*path, source.file_format), source, mistakes, databases)
    if source.files:
        return
    if source.late == "replace":
        problem = "'replace' is about files; a table always holds what is true now; remove it"
        mistakes.add((*path, "late"), problem)
    for name in ("format", *(("when_gone",) if source.rows_of else ())):
        if getattr(source, name) is not None:
            mistakes.add((*path, name), "is about files, and a table has none; remove it")


def check_table(
    path: PathInDocument, table: str, mistakes: Mistakes, databases: Collection[str] | None
) -> None:
    """Add what is wrong with the name of a table of a database."""
    database, *rest = table.split(".")
    if not all((database, *rest)) or len(rest) not in {1, 2}:
        problem = f"'{table}' should be <database>.<schema>.<table>, such as erp.public.orders"
        mistakes.add(path, problem)
    elif databases is not None and database not in databases:
        mistakes.add(path, no_database(database, databases))


def _what(source: Source) -> str:
    if source.rows_of:
        return "a table" if source.table else "a function"
    if source.files:
        return f"{source.file_format} files"
    return "a delta table" if source.delta else "an iceberg table"


def _check_rows(
    path: PathInDocument,
    source: Source,
    mistakes: Mistakes,
    databases: Collection[str] | None,
) -> None:
    origin = (*path, "table" if source.table else "python")
    if source.table:
        check_table(origin, source.table, mistakes, databases)
    elif source.database and databases is not None and source.database not in databases:
        mistakes.add((*path, "database"), no_database(source.database, databases))
    if source.high_water is None:
        problem = "needs a column that grows with every change; add `high_water: updated_at`"
        mistakes.add(origin, problem)
    elif source.high_water not in source.columns:
        problem = unknown("column", source.high_water, source.columns)
        mistakes.add((*path, "high_water"), problem)


def _check_lake_table(
    path: PathInDocument,
    source: Source,
    mistakes: Mistakes,
    databases: Collection[str] | None,
) -> None:
    table = source.lake_table
    if "://" in table:
        problem = "is a URL; name its lake in the setting databases, and write <database>.<table>"
        mistakes.add(path, problem)
    elif "/" not in table:
        database, *rest = table.split(".")
        form = "<database>.<namespace>.<table>" if source.iceberg else "<database>.<table>"
        if len(rest) < form.count(".") or not all((database, *rest)):
            mistakes.add(path, f"'{table}' should be {form}, or the path of the table's folder")
        elif databases is not None and database not in databases:
            mistakes.add(path, no_database(database, databases))
