"""What the lake notes of each partition that was published."""

from ml_platform.spec.publication import Publication
from ml_platform.spec.use_case import UseCase, published_table
from ml_platform.storage import Table


def record_table(use_case: UseCase, publication: str) -> Table:
    """One row for each partition with rows in the table of others."""
    return Table(
        schema=use_case.name,
        name=published_table(publication),
        columns={
            "window_at": "TIMESTAMPTZ",
            "target": "VARCHAR",
            "rows_in": "BIGINT",
            "rows_out": "BIGINT",
            "content": "VARCHAR",
            "model_versions": "INTEGER[]",
            "snapshot": "BIGINT",
            "published_at": "TIMESTAMPTZ",
        },
        order=("window_at",),
        stamps=("snapshot", "published_at"),
    )


def target_of(publication: Publication) -> str:
    """The table of others and what is done there, in words."""
    return f"{publication.table} ({publication.mode})"
