"""What the lake notes of landing files that were written again without an entity's rows.

A file that holds something else is ingested again, and what is computed from it is stale. Of these
it is known that all other rows are the same: they are noted as the versions that they were.
"""

from collections.abc import Iterable
from dataclasses import replace

import duckdb

from ml_platform.erasure.landing_files import FileRows
from ml_platform.sources.landing import create_notes, note, read_index, write_notes
from ml_platform.sources.listing import list_landing
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit, Lake


def note_rewritten(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    rewritten: Iterable[FileRows],
    commit: Commit,
) -> None:
    """Note what files look like now, where it was noted what they looked like before.

    Whoever is killed before leaves files that the next ingestion reads again, and finds unchanged.
    """
    create_notes(cursor, use_case)
    by_source: dict[str, list[FileRows]] = {}
    for each in rewritten:
        by_source.setdefault(each.source, []).append(each)
    for source, rows in by_source.items():
        stats = read_index(lake, cursor, use_case, source).stats
        now = {file.path: file for file in list_landing(lake, use_case, source)}
        for old in (each.file for each in rows):
            known, file = stats.get(old.stat), now.get(old.path)
            if known is not None and file is not None:
                fingerprint, modified = known
                looks = replace(
                    old, size=file.size, written_us=file.written_us,
                    fingerprint=fingerprint, modified_us=modified,
                )  # fmt: skip
                note(cursor, source, looks)
    write_notes(lake, cursor, use_case, commit)
