"""How CSV files begin: their encoding, their separator, the names of their columns."""

import codecs
import csv
import gzip
import io
from itertools import islice
from pathlib import Path

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
HEAD_BYTES = 2**20
LINES_LOOKED_AT = 200


def separator_of(file: Path) -> str:
    """The separator by which lines have as many values as the header; ValueError without one."""
    head = _head(file)
    found = {}
    for separator in SEPARATORS:
        try:
            lines = csv.reader(io.StringIO(head, newline=""), delimiter=separator)
            rows = [row for row in islice(lines, LINES_LOOKED_AT) if row]
        except csv.Error:
            continue
        # The last one may be cut.
        rows = rows[:-1] if len(rows) > 2 else rows
        if rows and len(rows[0]) > 1:
            same = sum(len(row) == len(rows[0]) for row in rows)
            found[separator] = (2 * same > len(rows), len(rows[0]))
    if not found:
        return ","
    best = max(found, key=lambda separator: found[separator])
    if not found[best][0]:
        tried = ", ".join(SEPARATORS.values())
        problem = f"its lines have other numbers of values than its header; tried {tried}"
        raise ValueError(f"{problem}. Write it with one of these, and double quotes around texts")
    return best


def header_of(file: Path, separator: str) -> list[str]:
    """The names of a file's columns; some may be empty. ValueError where one is there twice."""
    try:
        names = next(csv.reader(io.StringIO(_head(file), newline=""), delimiter=separator))
    except (StopIteration, csv.Error):
        names = []
    if not any(names):
        raise ValueError(f"{file.name} has no header in its first line")
    lowered = [name.lower() for name in names if name]
    for name in names:
        if lowered.count(name.lower()) > 1:
            raise ValueError(f"column '{name}' stands in {file.name} twice; rename one")
    return names


def _head(file: Path) -> str:
    with gzip.open(file) if file.name.lower().endswith(".gz") else file.open("rb") as stream:
        content = stream.read(HEAD_BYTES)
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(content)
    except UnicodeDecodeError:
        raise ValueError(f"{file.name} is not UTF-8 text; write it as UTF-8") from None
