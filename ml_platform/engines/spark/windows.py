"""The window of each row, as the use case's calendar says, given by Spark's Python workers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ml_platform.spec.windows import Window
from ml_platform.storage.tables import WINDOW_START, naive_utc

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True)
class Windows:
    """Windows in order of time, by their bounds in UTC."""

    starts: NDArray[np.datetime64]
    ends: NDArray[np.datetime64]

    @classmethod
    def of(cls, windows: Sequence[Window]) -> "Windows":
        starts, ends = (
            np.array([naive_utc(at) for at in bounds], "datetime64[us]")
            for bounds in ([w.start for w in windows], [w.end for w in windows])
        )
        return cls(starts, ends)

    def places(self, times: pd.Series) -> NDArray[np.intp]:
        """The number of the window that each moment is in; -1 where it is in none."""
        moments = times.dt.tz_convert(None).to_numpy("datetime64[us]")
        places = self.starts.searchsorted(moments, side="right") - 1
        inside = (places >= 0) & (moments < self.ends[places])
        return np.where(inside, places, -1)


def with_windows(rows: "DataFrame", windows: Windows) -> "DataFrame":
    """Rows with their `window_start`, by their `event_time`; without those of no window."""
    from pyspark.sql.types import StructField, StructType, TimestampNTZType

    schema = StructType([*rows.schema.fields, StructField(WINDOW_START, TimestampNTZType())])
    return rows.mapInArrow(_placing(windows), schema)


def _placing(windows: Windows) -> Callable[[Batches], Batches]:
    def place(batches: Batches) -> Batches:
        for batch in batches:
            table = pa.Table.from_batches([batch])
            places = windows.places(table.select(["event_time"]).to_pandas()["event_time"])
            starts = pa.array(windows.starts[places], pa.timestamp("us"))
            kept = table.append_column(WINDOW_START, starts).filter(pa.array(places >= 0))
            yield from kept.combine_chunks().to_batches()

    return place
