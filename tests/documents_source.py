"""Orders of a document database, as a `source.py` yields them."""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any

import pyarrow as pa
from pymongo import MongoClient

BATCH = 10_000
MOMENT = pa.timestamp("us", "UTC")
SCHEMA = pa.schema(
    {
        "order_id": pa.string(), "ordered_at": MOMENT, "updated_at": MOMENT, "city": pa.string(),
        "weight": pa.string(),
    }
)  # fmt: skip


def orders(
    start: datetime | None, end: datetime | None, since: datetime | None, database: str
) -> Iterator[pa.RecordBatch]:
    """Orders with event times in [start, end) that were updated at `since` or later."""
    asked: dict[str, Any] = {}
    if start is not None or end is not None:
        bounds = {"$gte": start, "$lt": end}
        inside = {sign: moment for sign, moment in bounds.items() if moment is not None}
        # Where there is no event time, the platform decides what becomes of the order.
        asked["$or"] = [{"ordered_at": inside}, {"ordered_at": None}]
    if since is not None:
        asked["updated_at"] = {"$gte": since}
    # Without tz_aware times would come without a zone.
    with MongoClient(database, tz_aware=True) as client:
        found = client.get_default_database().orders.find(asked, batch_size=BATCH)
        while documents := list(islice(found, BATCH)):
            yield pa.RecordBatch.from_pylist([_row(each) for each in documents], SCHEMA)


def _row(document: dict[str, Any]) -> dict[str, Any]:
    weight = document.get("weight")
    return {
        "order_id": document["_id"],
        "ordered_at": document.get("ordered_at"),
        "updated_at": document.get("updated_at"),
        "city": document.get("address", {}).get("city"),
        # As text, so that one that is not a number breaks the contract of its row alone.
        "weight": None if weight is None else str(weight),
    }
