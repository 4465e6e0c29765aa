"""Careful reading of text files that DuckDB's readers reject lines of.

Slower, but each line ends up in exactly one record: a stray quote costs its own line, not all that
follow. No more of a file is in memory than the lines that one record may have.
"""

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

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


def csv_records(stream: Iterable[bytes], columns: int, separator: str = ",") -> Iterator[Record]:
    r"""Records of a CSV file after its header; blank lines are none.

    stream: the lines of the file, with their ends.

    >>> lines = [b'a,b\n', b'1,"2\n', b'3,4\n', b'5\n']
    >>> [r.values or r.problem for r in csv_records(lines, 2)]
    ['a quote that is not closed', ('3', '4'), '1 value where the header names 2 columns']
    """
    lines = _lines(stream)
    next(lines, None)
    ahead: deque[bytes] = deque()
    at = 2
    while True:
        ahead.extend(islice(lines, MOST_LINES_A_RECORD + 1 - len(ahead)))
        if not ahead:
            return
        taken = 1
        if ahead[0].strip():
            record, taken = _csv_record(ahead, at, columns, separator)
            yield record
        for _ in range(taken):
            ahead.popleft()
        at += taken


def text_lines(stream: Iterable[bytes]) -> Iterator[Record]:
    r"""Lines of a text file that are not blank, each its only value.

    >>> [(r.line, r.values or r.problem) for r in text_lines([b'{}\n', b'\n', b'\xff'])]
    [(1, ('{}',)), (3, 'is not UTF-8 text')]
    """
    for number, line in enumerate(_lines(stream), start=1):
        if not line.strip():
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError:
            yield Record(number, _shown(line), problem="is not UTF-8 text")
        else:
            yield Record(number, text, (text,))


def _lines(stream: Iterable[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(stream):
        whole = line if number else line.removeprefix(b"\xef\xbb\xbf")
        yield whole.removesuffix(b"\n").removesuffix(b"\r")


def _csv_record(
    lines: Sequence[bytes], number: int, columns: int, separator: str
) -> tuple[Record, int]:
    """The record that begins with the first of the lines, and how many of them it is made of."""
    try:
        first = lines[0].decode()
    except UnicodeDecodeError:
        return Record(number, _shown(lines[0]), problem="is not UTF-8 text"), 1
    text = first
    for taken in range(1, MOST_LINES_A_RECORD + 1):
        try:
            (values,) = csv.reader([text], delimiter=separator, strict=True)
        except csv.Error as error:
            if "unexpected end of data" not in str(error):
                break
            try:
                text += "\n" + lines[taken].decode()
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
