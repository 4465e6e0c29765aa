"""The rows behind the pages, as JSON and CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from starlette.responses import JSONResponse, Response

from ml_platform.errors import TableNotFound
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START, naive_utc

FORMATS = ("json", "csv")


def report_rows(
    lake: Lake, use_case: UseCase, table: str, window: Window | None
) -> list[Mapping[str, Any]]:
    """The rows of a report table, of one partition or of all, with the partition's key in front."""
    with lake.cursor("UTC") as cursor:
        try:
            relation = lake.relation(cursor, use_case.name, table)
        except TableNotFound:
            return []
        found = cursor.execute(
            f"""SELECT * EXCLUDE ({WINDOW_START}) FROM {relation}
            WHERE $1 IS NULL OR {WINDOW_START} = $1 ORDER BY ALL""",
            [naive_utc(window.start) if window else None],
        )
        names = [column[0] for column in found.description or ()]
        rows = found.fetchall()
    at = names.index("window_at")
    keys: dict[datetime, str] = {}
    for row in rows:
        if row[at] not in keys:
            keys[row[at]] = use_case.calendar.key(use_case.calendar.window_at(row[at]))
    return [{"partition": keys[row[at]], **dict(zip(names, row, strict=True))} for row in rows]


def answer(rows: Sequence[Mapping[str, Any]], form: str, name: str) -> Response:
    """Rows in one of the `FORMATS`; CSV as a file of that name."""
    plain = [{k: _plain(v) for k, v in row.items()} for row in rows]
    if form == "json":
        return JSONResponse(plain)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(plain[0]) if plain else [])
    writer.writeheader()
    writer.writerows(plain)
    # Browsers save it under this name.
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return Response(text.getvalue(), media_type="text/csv", headers=headers)


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value
