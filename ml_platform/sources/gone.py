"""Files that are gone from a table: a version without rows, of each window that they had any of."""

from collections.abc import Sequence

import duckdb

from ml_platform.sources.landing import GONE, LANDINGS, LandingFile, LandingIndex
from ml_platform.sources.listing import ListedFile
from ml_platform.sources.tables import landings_table
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake


def gone_files(
    use_case: UseCase, source: str, listed: Sequence[ListedFile], index: LandingIndex, now_us: int
) -> list[LandingFile]:
    """Files that are not there any more, where their rows go with them.

    now_us: when those are gone that were there before, in microseconds since 1970.
    """
    if not use_case.sources[source].removes_gone:
        return []
    names = {file.name for file in listed}
    return [
        LandingFile(name, "", 0, at, at, GONE)
        for name, (fingerprint, noted_us) in index.newest.items()
        if name not in names
        for at in (noted_us if fingerprint == GONE else max(now_us, noted_us + 1),)
    ]


def note_gone(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    gone: Sequence[LandingFile],
) -> None:
    """Note files as gone from every window that they have had rows of."""
    if not gone:
        return
    table = landings_table(use_case)
    cursor.execute(
        f"""INSERT INTO {LANDINGS} (source, file, fingerprint, size, modified_at, written_at,
            window_start, rows)
        SELECT DISTINCT k.source, k.file, {literal(GONE)}, 0, make_timestamptz(g.at),
            make_timestamptz(g.at), k.window_start, 0
        FROM {lake.relation(cursor, table.schema, table.name)} k
        JOIN (SELECT unnest(?::VARCHAR[]) AS file, unnest(?::BIGINT[]) AS at) g USING (file)
        WHERE k.source = ?""",
        [[file.name for file in gone], [file.modified_us for file in gone], source],
    )
