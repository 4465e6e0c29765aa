"""What the lake notes of landing files that were written again without an entity's rows.

A file that holds something else is ingested again. Of these it is known what they hold: what was
noted of the old content is noted of the new one.
"""

from collections.abc import Sequence
from functools import partial

import duckdb

from ml_platform.erasure.landing_files import FileRows
from ml_platform.sources.intake import number_files, take_in
from ml_platform.sources.landing import (
    LANDINGS,
    LandingFile,
    LandingIndex,
    create_notes,
    identify,
)
from ml_platform.sources.listing import list_landing
from ml_platform.sources.tables import ingestions_table, landings_table
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit, Lake


def note_rewritten(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    rewritten: Sequence[FileRows],
    commit: Commit,
) -> None:
    """Note the new content of files in the place of the old one.

    Whoever is killed before leaves files that the next ingestion reads again, and finds unchanged.
    """
    if landings_table(use_case).name not in lake.tables(cursor, use_case.name):
        return
    first = use_case.calendar.window_at(use_case.calendar.start)
    for each in rewritten:
        listed = list_landing(lake, use_case, each.source)
        now = [file for file in listed if file.path == each.file.path]
        files = identify(cursor, use_case, each.source, now, LandingIndex())
        number_files(cursor, files, LandingIndex(), frozenset())
        create_notes(cursor, use_case)
        take_in(cursor, use_case, each.source, files, LandingIndex(), first)
        for file in files:
            lake.transact(cursor, commit, partial(_note, use_case, each, file))


def _note(
    use_case: UseCase, old: FileRows, file: LandingFile, transaction: duckdb.DuckDBPyConnection
) -> bool:
    """Note a file as `temp.__landings` has it, where its old content was noted."""
    landings, ingestions = landings_table(use_case), ingestions_table(use_case)
    known = (
        f"source = {literal(old.source)} AND file = {literal(old.file.name)} "
        f"AND fingerprint = {literal(old.file.fingerprint)}"
    )
    row = transaction.execute(
        f"SELECT epoch_us(min(modified_at)) FROM {landings.sql} WHERE {known}"
    ).fetchone()
    if row is None or row[0] is None:
        return False
    names = ", ".join(landings.columns)
    # It stays where it was among the versions of files, of which the newest is right.
    values = names.replace("modified_at", f"make_timestamptz({row[0]}) AS modified_at")
    transaction.execute(f"DELETE FROM {landings.sql} WHERE {known}")
    transaction.execute(f"INSERT INTO {landings.sql} ({names}) SELECT {values} FROM {LANDINGS}")
    transaction.execute(
        f"UPDATE {ingestions.sql} SET fingerprint = {literal(file.fingerprint)} WHERE {known}"
    )
    return True
