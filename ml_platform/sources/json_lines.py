"""JSON lines: one object a line; blank lines are none."""

from collections.abc import Iterator, Mapping
from functools import partial

import duckdb

from ml_platform.sources import salvage
from ml_platform.sources.landing import LandingFile
from ml_platform.sources.listing import path_columns
from ml_platform.sources.reading import (
    NO_NULL,
    Batch,
    Reading,
    numbered_lines,
    or_text,
    path_list,
    path_value,
)
from ml_platform.sources.scan import LONGEST_LINE_BYTES
from ml_platform.sources.step_tables import RAW, SALVAGED
from ml_platform.spec.queries import literal

IS_OBJECT = "CASE WHEN json_valid({0}) THEN json_type({0}) = 'OBJECT' END"


def read_json_lines(reading: Reading, files: list[LandingFile]) -> Iterator[Batch]:
    """Every line of the files, once."""
    lines = {file: scan.lines for file, scan in reading.scan(files).items()}
    read = partial(_read, reading, lines)
    yield from reading.halving(list(lines), read, partial(_read_alone, reading))


def _read(
    reading: Reading, lines: Mapping[LandingFile, int], files: list[LandingFile]
) -> Iterator[Batch]:
    reading.load_lines(
        f"""SELECT * FROM read_csv({path_list(files)}, columns = {{'__line': 'VARCHAR'}},
        auto_detect = false, header = false, delim = '', quote = '', escape = '',
        strict_mode = false, nullstr = {literal(NO_NULL)}, max_line_size = {LONGEST_LINE_BYTES},
        ignore_errors = true, filename = '__path', hive_partitioning = false)""",
        {file: lines[file] for file in files},
        sound=IS_OBJECT.format("__line"),
    )
    keys = _keys(reading, RAW, "__path")
    for file in files:
        if file.path in keys and not reading.accept(file, keys[file.path]):
            reading.cursor.execute(f"DELETE FROM {RAW} WHERE __path = ?", [file.path])
    yield Batch(_extracted(reading, numbered_lines(first_row=1)), _values(reading, files), "__line")


def _read_alone(reading: Reading, file: LandingFile, _: duckdb.Error | None) -> Iterator[Batch]:
    if not reading.load_salvaged(file, salvage.text_lines, columns=1):
        return
    reading.cursor.execute(
        f"""CREATE OR REPLACE TEMP TABLE {SALVAGED} AS
        SELECT __file, __row, __text,
            CASE WHEN __problem IS NOT NULL THEN __problem
                WHEN NOT json_valid(__c0) THEN 'is not JSON'
                WHEN NOT ({IS_OBJECT.format("__c0")}) THEN 'is not a JSON object' END AS __problem,
            CASE WHEN {IS_OBJECT.format("__c0")} THEN __c0 END AS __line
        FROM {SALVAGED}"""
    )
    keys = _keys(reading, SALVAGED, "__file")
    if not keys:
        reading.refuse(file, "none of its lines is a JSON object")
    for names in keys.values():
        if reading.accept(file, names):
            relation = _extracted(reading, SALVAGED)
            yield Batch(relation, _values(reading, [file]), or_text("__line"), "__problem")


def _keys(reading: Reading, relation: str, by: str) -> dict[str, tuple[str, ...]]:
    rows = reading.cursor.execute(
        f"""SELECT {by}, list_distinct(flatten(list(DISTINCT json_keys(__line))))
        FROM {relation} WHERE __line IS NOT NULL GROUP BY {by}"""
    ).fetchall()
    return {key: tuple(sorted(names)) for key, names in rows}


def _extracted(reading: Reading, relation: str) -> str:
    paths = ", ".join(literal(_json_path(column)) for column in reading.source.columns)
    return f"(SELECT *, json_extract_string(__line, [{paths}]) AS __values FROM {relation})"


def _values(reading: Reading, files: list[LandingFile]) -> dict[str, str]:
    in_paths = frozenset(column for file in files for column in path_columns(file.path))
    values = {column: f"__values[{n}]" for n, column in enumerate(reading.source.columns, start=1)}
    return {
        column: f"coalesce({value}, {path_value(column)})" if column.lower() in in_paths else value
        for column, value in values.items()
    }


def _json_path(column: str) -> str:
    escaped = column.replace("\\", "\\\\").replace('"', '\\"')
    return f'$."{escaped}"'
