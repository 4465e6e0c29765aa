"""Lines of an entity in files that a service appends to, or that wait to be brought to landing.

They are overwritten by blanks where they are: the service continues to write behind them, and blank
lines are no rows.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from ml_platform.erasure.matching import PREDICTION_ID, Matching
from ml_platform.serving.records.outbox import written_below
from ml_platform.serving.records.segments import ENDING, OPEN
from ml_platform.settings import Settings
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import LOGGED_SOURCES, REQUESTS


def blank_lines(settings: Settings, matching: Matching, *, dry_run: bool) -> dict[str, int]:
    """Blank the entity's lines; how many those are, by source. dry_run: only count them."""
    found: dict[str, int] = {}
    # What was predicted of it comes first: feedback names that.
    for learning in (True, False):
        for source in (REQUESTS,) if learning else (*LOGGED_SOURCES[1:], REQUESTS):
            for path in _files(settings, matching, source):
                places = _places(matching, path, learning=learning)
                if learning or not places:
                    continue
                found[source] = found.get(source, 0) + len(places)
                if not dry_run:
                    _blank(path, places)
    return found


def _files(settings: Settings, matching: Matching, source: str) -> Iterator[Path]:
    if source not in matching.use_case.sources:
        return
    folder = written_below(settings, matching.use_case) / source
    yield from sorted((folder / OPEN).glob(f"*{ENDING}"))
    if settings.root / "outbox" in folder.parents:
        yield from sorted(folder.glob(f"*{ENDING}"))


def _places(matching: Matching, path: Path, *, learning: bool) -> list[tuple[int, int]]:
    """Where the entity's lines begin, and how many bytes they have before their ends."""
    cursor = matching.cursor
    lines = path.read_bytes().split(b"\n")
    cursor.execute("CREATE OR REPLACE TEMP TABLE __lines (number BIGINT, line VARCHAR)")
    texts = [line.decode(errors="replace") for line in lines]
    values = ", ".join(
        f"({number}, {literal(text)})" for number, text in enumerate(texts) if text.strip()
    )
    if not values:
        return []
    cursor.execute(
        f"INSERT INTO temp.__lines SELECT * FROM (VALUES {values}) WHERE json_valid(col1)"
    )
    where = matching.of_record("line")
    if learning:
        ids = cursor.execute(
            f"SELECT json_extract_string(line, '$.{PREDICTION_ID}') FROM temp.__lines WHERE {where}"
        ).fetchall()
        matching.learn((), (each for (each,) in ids if each is not None))
    chosen = cursor.execute(f"SELECT number FROM temp.__lines WHERE {where}").fetchall()
    begins, at = [], 0
    for line in lines:
        begins.append(at)
        at += len(line) + 1
    return [(begins[number], len(lines[number])) for (number,) in chosen]


def _blank(path: Path, places: list[tuple[int, int]]) -> None:
    file = os.open(path, os.O_WRONLY)
    try:
        for begin, length in places:
            os.pwrite(file, b" " * length, begin)
        os.fsync(file)
    finally:
        os.close(file)
