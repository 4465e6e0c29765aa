"""Careful reading of text files that DuckDB's readers reject lines of.

Slower, and the whole file in memory, but each line ends up in exactly one record: a stray quote
costs its own line, not all that follow.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MOST_LINES_A_RECORD = 100
"""How far a quoted value may run on before its quote counts as stray."""


@dataclass(frozen=True)
class Record:
    """One record of a text file, or the line that is none."""

    line: int
    """Where it starts, from 1."""
    text: str
    values: tuple[str, ...] | None = None
    problem: str | None = None
    """Why the line is no record; then it has no values."""


def csv_records(content: bytes, columns: int, separator: str = ",") -> Iterator[Record]:
    r"""Records of a CSV file after its header; blank lines are none.

    >>> [r.values or r.problem for r in csv_records(b'a,b\n1,"2\n3,4\n5\n', 2)]
    ['a quote that is not closed', ('3', '4'), '1 value where the header names 2 columns']
    """
    lines = _lines(content)
    at = 1
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        record, taken = _csv_record(lines, at, columns, separator)
        yield record
        at += taken


def text_lines(content: bytes) -> Iterator[Record]:
    r"""Lines of a text file that are not blank, each its only value.

    >>> [(r.line, r.values or r.problem) for r in text_lines(b'{}\n\n\xff')]
    [(1, ('{}',)), (3, 'is not UTF-8 text')]
    """
    for number, line in enumerate(_lines(content), start=1):
        if not line.strip():
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError:
            yield Record(number, _shown(line), problem="is not UTF-8 text")
        else:
            yield Record(number, text, (text,))


def _lines(content: bytes) -> list[bytes]:
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [line.removesuffix(b"\r") for line in lines]


def _csv_record(
    lines: Sequence[bytes], at: int, columns: int, separator: str
) -> tuple[Record, int]:
    number = at + 1
    try:
        first = lines[at].decode()
    except UnicodeDecodeError:
        return Record(number, _shown(lines[at]), problem="is not UTF-8 text"), 1
    text = first
    for taken in range(1, MOST_LINES_A_RECORD + 1):
        try:
            (values,) = csv.reader([text], delimiter=separator, strict=True)
        except csv.Error as error:
            if "unexpected end of data" not in str(error):
                break
            try:
                text += "\n" + lines[at + taken].decode()
            except (IndexError, UnicodeDecodeError):
                break
        else:
            if len(values) == columns:
                return Record(number, text, tuple(values)), taken
            many = f"{len(values)} value{'s' if len(values) > 1 else ''}"
            problem = f"{many} where the header names {columns} columns"
            return Record(number, text, problem=problem), taken
    stray = text == first and first.count('"') % 2 == 0
    problem = "a quote inside a value" if stray else "a quote that is not closed"
    return Record(number, first, problem=problem), 1


def _shown(line: bytes) -> str:
    return line.decode(errors="backslashreplace")
