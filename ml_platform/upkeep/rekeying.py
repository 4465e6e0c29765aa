"""New keys for the data files of an encrypted lake.

DuckLake encrypts each data file with a key of its own, which is in the catalog: whoever had a copy
of the catalog, or of a backup, can read the files that were there then. Here every file is written
again with another key; each snapshot reads the same rows afterwards.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ml_platform.errors import LakeError
from ml_platform.storage import Commit, Lake
from ml_platform.storage.data_files import is_encrypted
from ml_platform.storage.known_files import KnownFile, known_files
from ml_platform.storage.renaming import delete_at_once
from ml_platform.storage.rewriting import Erasing, rewrite_without
from ml_platform.storage.stored_files import StoredFiles

BYTES_AT_ONCE = 2**28
"""Data files that one transaction replaces."""
FILES_AT_ONCE = 200
MOST_LOOKS = 20
"""How often files are looked for that another writer replaced meanwhile."""


@dataclass(frozen=True)
class Rekeyed:
    """What was written again."""

    files: int
    bytes: int


def require_keys(lake: Lake) -> None:
    """Raise LakeError where the lake is not encrypted."""
    with lake.cursor() as cursor:
        if not is_encrypted(cursor):
            raise LakeError(
                "this lake is not encrypted, so there are no keys to replace; "
                "ML_PLATFORM_ENCRYPTED is decided when a lake is first opened"
            )


def rekey(lake: Lake, commit: Commit, before: datetime, say: Callable[[str], None]) -> Rekeyed:
    """Write every data file that is older than a moment again, with a new key.

    One that ended early continues where it was if it is called with the same moment: what it had
    written is younger. Old files are deleted at the end; a query that is about to read one of them
    fails, and reads the new one when it is asked again.

    Raises LakeError where the lake is not encrypted, or where others replace files all the time.
    """
    require_keys(lake)
    files = size = 0
    for _ in range(MOST_LOOKS):
        old = _older(lake, before)
        if not old:
            break
        say(f"{len(old):,} data files have a key from before")
        for batch in _batches(old):
            if rewrite_without(lake, Erasing(dict.fromkeys(batch, ())), commit) is not None:
                files += len(batch)
                size += sum(file.bytes for file in batch)
    else:
        raise LakeError(
            "other writers replace data files all the time; new keys were given to "
            f"{files:,} of them: do the same again when less is written"
        )
    with lake.cursor() as cursor:
        delete_at_once(lake, cursor)
    return Rekeyed(files, size)


def _older(lake: Lake, before: datetime) -> list[KnownFile]:
    root = lake.settings.lake_files_uri
    moment = int(before.astimezone(UTC).timestamp() * 1_000_000)
    with lake.cursor() as cursor:
        known = [file for file in known_files(cursor, root) if not file.holds_deletes]
        modified = {
            name: listed.modified_us for name, listed in StoredFiles(cursor, root).listed().items()
        }
    begin = root.rstrip("/") + "/"
    # A file that is lost is named by `ml-platform verify`, and by whoever reads it.
    return [file for file in known if modified.get(file.path.removeprefix(begin), moment) < moment]


def _batches(files: Sequence[KnownFile]) -> Iterator[list[KnownFile]]:
    batch: list[KnownFile] = []
    size = 0
    for file in files:
        if batch and (size + file.bytes > BYTES_AT_ONCE or len(batch) == FILES_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.bytes
    if batch:
        yield batch
