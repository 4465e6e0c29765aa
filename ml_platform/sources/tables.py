"""The tables that ingesting writes."""

from ml_platform.spec.use_case import KNOWN_FROM, KNOWN_UNTIL, UseCase, version_table
from ml_platform.storage import Table


def source_table(use_case: UseCase, source: str) -> Table:
    """Rows of one source that keep its contract, each with the file and row it came from.

    `_row` counts from 1: rows of a Parquet file, lines of a text file (where a record begins; the
    header of a CSV file is line 1).
    """
    declared = use_case.sources[source]
    return Table(
        schema=use_case.name,
        name=source,
        columns={
            **declared.columns,
            "known_at": "TIMESTAMPTZ",
            "_file": "VARCHAR",
            "_row": "BIGINT",
        },
        order=tuple(dict.fromkeys((declared.event_time, *declared.key))),
        # Whoever owns a table puts its rows into other files, without changing one.
        stamps=("_file", "_row") if declared.removes_gone else (),
    )


def versions_table(use_case: UseCase, source: str) -> Table:
    """Every version of the rows of a source that were corrected, and when each was the truth."""
    rows = source_table(use_case, source)
    return Table(
        schema=use_case.name,
        name=version_table(source),
        columns={**rows.columns, KNOWN_FROM: "TIMESTAMPTZ", KNOWN_UNTIL: "TIMESTAMPTZ"},
        order=(*rows.order, KNOWN_FROM),
        stamps=rows.stamps,
    )


def quarantine_table(use_case: UseCase) -> Table:
    """Landed rows of all sources that broke a contract or were superseded.

    `record` is the row as JSON text; of a line that could not be parsed, an object with its `text`.
    """
    return Table(
        schema=use_case.name,
        name="quarantine",
        columns={
            "source": "VARCHAR",
            "reason": "VARCHAR",
            "_file": "VARCHAR",
            "_row": "BIGINT",
            "record": "VARCHAR",
        },
        order=("source", "_file", "_row"),
    )


def landings_table(use_case: UseCase) -> Table:
    """What is known of each version of each landing file: one row a window it has rows of.

    A file without any row, one that was refused, and one that was only touched or delivered again
    with the same content, has one row without a window. Processes that ingest side by side may
    note the same twice.
    """
    return Table(
        schema=use_case.name,
        name="landings",
        columns={
            "source": "VARCHAR",
            "file": "VARCHAR",
            "fingerprint": "VARCHAR",
            "size": "BIGINT",
            "modified_at": "TIMESTAMPTZ",
            "written_at": "TIMESTAMPTZ",
            "window_start": "TIMESTAMP",
            "rows": "BIGINT",
            "first_event": "TIMESTAMPTZ",
            "last_event": "TIMESTAMPTZ",
            "error": "VARCHAR",
        },
        order=("source", "file", "window_start"),
    )


def ingestions_table(use_case: UseCase) -> Table:
    """Which version of which file each window holds rows of; of several rows the latest holds.

    `corrections` says how rows count that it has other than before: they `arrive`, or `rewrite` the
    past; null where it holds the same as before and only its contract has changed.
    """
    return Table(
        schema=use_case.name,
        name="ingestions",
        columns={
            "source": "VARCHAR",
            "file": "VARCHAR",
            "fingerprint": "VARCHAR",
            "window_start": "TIMESTAMP",
            "snapshot": "BIGINT",
            "corrections": "VARCHAR",
        },
        order=("source", "file", "window_start"),
    )
