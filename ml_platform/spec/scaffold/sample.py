"""How much of large files is looked at closely: rows spread evenly over all of them."""

import gzip
from collections.abc import Iterable
from pathlib import Path

ROWS_LOOKED_AT = 60_000
WHOLE_BYTES = 16 * 2**20
"""Files that are together as large are looked at as a whole."""
HEAD_BYTES = 2**20
UNPACKED = 6
"""How much larger a zipped file is as text, roughly."""


def sampling_step(files: Iterable[Path]) -> int:
    """Of how many rows of text files one is looked at; 1 where all are."""
    size, lines, head_size = 0, 0, 0
    for file in files:
        is_packed = file.name.lower().endswith(".gz")
        size += (UNPACKED if is_packed else 1) * file.stat().st_size
        if not head_size:
            with gzip.open(file) if is_packed else file.open("rb") as stream:
                head = stream.read(HEAD_BYTES)
            lines, head_size = head.count(b"\n") or 1, len(head) or 1
    if size <= WHOLE_BYTES:
        return 1
    rows = size * lines // head_size
    return max(1, rows // ROWS_LOOKED_AT)


def sampled_sql(rows: str, every: int) -> str:
    """A SELECT of one of so many rows, the same ones each time, in their order."""
    if every == 1:
        return rows
    # By hash, not by position: what repeats every so many rows would be all that is seen.
    return (
        f"SELECT * EXCLUDE (__row) FROM (SELECT *, row_number() OVER () AS __row FROM ({rows})) "
        f"WHERE hash(__row) % {every:d} = 0"
    )
