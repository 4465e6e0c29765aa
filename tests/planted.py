"""Feature queries with a leak planted in each, and clean ones that are easily taken for leaking.

All are over the same generated rides of a month in which clocks change. `World` computes a view of
them on a real lake.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pandas as pd

from ml_platform.features import LeakReport, check_written, compute_features
from ml_platform.sources import source_table
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake, replace_windows

ZONE = ZoneInfo("America/New_York")
COMMIT = Commit("test", "0")
FIRST = datetime(2024, 2, 12, tzinfo=ZONE)
DAYS = 38
"""Days with rides; the clocks are set forward on 10 March."""
MONTH = Window(datetime(2024, 2, 20, tzinfo=ZONE), datetime(2024, 3, 21, tzinfo=ZONE))
"""Thirty days, with eight days of rides before them."""
PLACES = "abcde"
SPEC = """\
description: Rides
partitions: {cadence: daily, start: 2024-02-12, timezone: America/New_York}
sources:
  rides:
    files: "rides/*.csv"
    event_time: left_at
    key: [ride]
    columns: {ride: VARCHAR, left_at: TIMESTAMPTZ, place: VARCHAR, fare: DOUBLE, seats: INTEGER}
  arrivals:
    files: "arrivals/*.csv"
    event_time: left_at
    known_at: arrived_at
    key: [ride]
    columns:
      {ride: VARCHAR, left_at: TIMESTAMPTZ, arrived_at: TIMESTAMPTZ, place: VARCHAR, delay: DOUBLE}
  totals:
    files: "totals/*.csv"
    event_time: day
    known_at: "day + interval 26 hours"
    key: [place, day]
    columns: {place: VARCHAR, day: TIMESTAMPTZ, total: DOUBLE}
features:
  pace: {entity: [place], lookback: LOOKBACK, ttl: 2h}
examples: {source: rides, entity: [ride], columns: [fare]}
label: {task: binary, horizon: HORIZON}
model: {metric: roc_auc}
"""
LABELS = "SELECT ride, left_at AS event_time, delay > 10 AS label, known_at FROM arrivals"


@dataclass(frozen=True)
class Query:
    """A feature query over the sources of `SPEC`."""

    sql: str
    lookback: str = "2d"


def over(features: str, rest: str = "") -> Query:
    """Features of each ride."""
    return Query(f"SELECT place, left_at AS event_time, {features} FROM rides {rest}")


def known(features: str, rest: str = "") -> Query:
    """Features at the moment at which each arrival is known."""
    return Query(f"SELECT place, known_at AS event_time, {features} FROM arrivals {rest}")


NEXT = "OVER (PARTITION BY place ORDER BY left_at)"
DAY = "OVER (PARTITION BY place, date_trunc('day', left_at))"
NEXT_FARE = f"lead(fare) {NEXT}"
TOTAL_OF_YESTERDAY = """
SELECT r.place, r.left_at AS event_time, t.total FROM rides r JOIN totals t ON t.place = r.place
AND t.day = date_trunc('day', date_trunc('day', r.left_at) - INTERVAL 1 HOUR) {}"""

LEAKS = {
    "the next row": over(f"{NEXT_FARE} AS fare"),
    "the last value of a frame": over(
        "last_value(fare) OVER (PARTITION BY place ORDER BY left_at "
        "ROWS BETWEEN CURRENT ROW AND 3 FOLLOWING) AS fare"
    ),
    "a later subquery": over(
        "(SELECT min(l.left_at) FROM rides l WHERE l.place = r.place AND l.left_at > r.left_at) "
        "- left_at AS wait",
        "AS r",
    ),
    "a shifted zone": Query(
        """SELECT r.place, r.left_at AS event_time, count(o.ride) AS n FROM rides r
        JOIN rides o ON o.place = r.place AND o.left_at <= timezone('UTC', timezone(
            'America/New_York', r.left_at)) + INTERVAL 5 HOUR
            AND o.left_at > r.left_at - INTERVAL 1 HOUR GROUP BY ALL"""
    ),
    "the total of yesterday before it is known": Query(TOTAL_OF_YESTERDAY.format(""), "3d"),
    "late means": over(
        """(SELECT avg(a.delay) FROM arrivals a WHERE a.place = r.place
        AND a.left_at BETWEEN r.left_at - INTERVAL 3 HOURS AND r.left_at) AS delay""",
        "AS r",
    ),
    "the mean of yesterday, with late rows": over(
        """(SELECT avg(a.delay) FROM arrivals a WHERE a.place = r.place
        AND a.left_at < date_trunc('day', r.left_at)
        AND a.left_at >= date_trunc('day', r.left_at - INTERVAL 24 HOURS)) AS delay""",
        "AS r",
    ),
    "in the first hour": over(
        f"CASE WHEN hour(left_at) = 0 THEN {NEXT_FARE} ELSE fare END AS fare"
    ),
    "in the last ten minutes": over(
        f"CASE WHEN hour(left_at) = 23 AND minute(left_at) >= 50 THEN {NEXT_FARE} ELSE fare END f"
    ),
    "in one row of a hundred": over(
        f"CASE WHEN hash(ride) % 100 = 0 THEN {NEXT_FARE} ELSE fare END AS fare"
    ),
    "on Sundays": over(f"CASE WHEN isodow(left_at) = 7 THEN {NEXT_FARE} ELSE fare END AS fare"),
    "in one partition of thirty": over(
        f"CASE WHEN day(left_at) = 17 THEN {NEXT_FARE} ELSE fare END AS fare"
    ),
    "of one place": over(f"CASE WHEN place = 'c' THEN {NEXT_FARE} ELSE fare END AS fare"),
    "at night": over(f"CASE WHEN hour(left_at) < 4 THEN max(fare) {DAY} ELSE fare END AS fare"),
    "over midnight": over(
        """count(*) OVER (PARTITION BY place ORDER BY left_at
        RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND INTERVAL 20 MINUTES FOLLOWING) AS n"""
    ),
    "over midnight alone": over(
        f"""CASE WHEN date_trunc('day', lead(left_at) {NEXT}) <> date_trunc('day', left_at)
        THEN {NEXT_FARE} ELSE fare END AS fare"""
    ),
    "the most of the day": over(f"max(fare) {DAY} AS fare"),
    "how many there will be": over(f"count(*) {DAY} AS n"),
    "a share of the day": over(f"fare / sum(fare) {DAY} AS share"),
    "off the mean of the day": over(f"fare - avg(fare) {DAY} AS fare"),
    "the rank in the day": over(
        "percent_rank() OVER (PARTITION BY place, date_trunc('day', left_at) ORDER BY fare) AS p"
    ),
    "off the mean of everything": over("fare - avg(fare) OVER () AS fare"),
    "a spread of everything": over("fare / stddev_pop(fare) OVER (PARTITION BY place) AS fare"),
    "the next row as a list": over(
        "list(fare) OVER (PARTITION BY place ORDER BY left_at ROWS BETWEEN 1 PRECEDING AND 1 "
        "FOLLOWING) AS fares"
    ),
    "the next row in a struct": over(f"{{'now': fare, 'next': {NEXT_FARE}}} AS fares"),
    "the next row as text": over(f"lead(ride) {NEXT} AS ride"),
    "whether there is a next row": over(f"lead(ride) {NEXT} IS NULL AS is_last"),
    "the nearest row": Query(
        """SELECT r.place, r.left_at AS event_time, o.fare FROM rides r ASOF JOIN rides o
        ON o.place = r.place AND o.left_at > r.left_at"""
    ),
    "between two rows": over(f"(lag(fare) {NEXT} + {NEXT_FARE}) / 2 AS fare"),
    "an hour at its start": Query(
        """SELECT place, date_trunc('hour', left_at) AS event_time, count(*) AS n, sum(fare) AS fare
        FROM rides GROUP BY ALL"""
    ),
    "a day at its start": Query(
        """SELECT place, date_trunc('day', left_at) AS event_time, sum(fare) AS fare
        FROM rides GROUP BY ALL"""
    ),
    "the last row of the day alone": over(
        "fare",
        """QUALIFY row_number() OVER (PARTITION BY place, date_trunc('day', left_at)
        ORDER BY left_at DESC) = 1""",
    ),
    "rows that will not be late": over(
        "fare", "SEMI JOIN (FROM arrivals WHERE delay < 10) USING (ride)"
    ),
    "what arrives later": Query(
        """SELECT r.place, r.left_at AS event_time, a.delay FROM rides r
        JOIN arrivals a USING (ride)"""
    ),
    "an arrival a second early": Query(
        """SELECT place, known_at - INTERVAL 1 SECOND AS event_time, delay FROM arrivals"""
    ),
    "how many are on the way and will be late": over(
        """(SELECT count(*) FROM arrivals a WHERE a.place = r.place AND a.left_at <= r.left_at
        AND a.arrived_at > r.left_at AND a.delay > 10) AS n""",
        "AS r",
    ),
    "the most expensive ride so far, ties broken by the next": over(
        f"arg_max(coalesce({NEXT_FARE}, 0), fare) {NEXT} AS fare".replace(
            f"coalesce({NEXT_FARE}, 0)", "seats"
        )
        + f", {NEXT_FARE} > fare AS rises"
    ),
    "the lookback in event time": known(
        """avg(delay) OVER (PARTITION BY place ORDER BY known_at
        RANGE BETWEEN INTERVAL 48 HOURS PRECEDING AND CURRENT ROW) AS delay"""
    ),
    "further back than the lookback": over(
        """sum(fare) OVER (PARTITION BY place ORDER BY left_at
        RANGE BETWEEN INTERVAL 72 HOURS PRECEDING AND CURRENT ROW) AS fare"""
    ),
    "everything so far": over(f"count(*) {NEXT} AS n"),
    "24 hours in a lookback of a day": Query(
        over(
            """count(*) OVER (PARTITION BY place ORDER BY left_at
            RANGE BETWEEN INTERVAL 24 HOURS PRECEDING AND CURRENT ROW) AS n"""
        ).sql,
        "1d",
    ),
}
"""By kind; of the last four the lookback is too short."""
TOO_SHORT = (
    "the lookback in event time",
    "further back than the lookback",
    "everything so far",
    "24 hours in a lookback of a day",
)
WEEK = """OVER (PARTITION BY place ORDER BY left_at
    RANGE BETWEEN INTERVAL 5 DAYS PRECEDING AND CURRENT ROW)"""
CLEAN = {
    "a sliding sum as a difference of totals": Query(
        f"""WITH totals AS (
            SELECT place, left_at, sum(fare * 1e7 / 3) {NEXT} AS total FROM rides)
        SELECT t.place, t.left_at AS event_time,
            t.total - coalesce(b.total, 0) AS fare
        FROM totals t ASOF LEFT JOIN totals b
        ON b.place = t.place AND b.left_at <= t.left_at - INTERVAL 1 HOUR"""
    ),
    "a variance by hand": Query(
        over(
            f"""sum((fare + 1e4) * (fare + 1e4)) {WEEK} / count(*) {WEEK}
            - (sum(fare + 1e4) {WEEK} / count(*) {WEEK}) ** 2 AS spread"""
        ).sql,
        "6d",
    ),
    "a slope over the time": Query(
        over(f"regr_slope(fare, epoch(left_at)) {WEEK} AS slope").sql, "6d"
    ),
    "HUGEINT": Query(
        over(f"sum(seats) {WEEK} * 1000000000000000000000000::HUGEINT AS n").sql, "6d"
    ),
    "DECIMAL": Query(over(f"sum(fare::DECIMAL(18, 6)) {WEEK} AS fare").sql, "6d"),
    "a list": over(
        "list(fare) OVER (PARTITION BY place ORDER BY left_at ROWS 1 PRECEDING) AS fares",
        "QUALIFY row_number() OVER (PARTITION BY place, date_trunc('day', left_at) "
        "ORDER BY left_at) > 1",
    ),
    "a list of sums": Query(over(f"[sum(fare) {WEEK}, avg(fare) {WEEK}] AS fares").sql, "6d"),
    "a struct": Query(over(f"{{'n': count(*) {WEEK}, 'fare': sum(fare) {WEEK}}} AS s").sql, "6d"),
    "a map": Query(over(f"histogram(seats) {WEEK} AS seats").sql, "6d"),
    "ties": Query(
        """SELECT place, date_trunc('hour', left_at) + INTERVAL 1 HOUR AS event_time,
        arg_max(fare, (left_at, ride)) AS last, count(*) AS n, median(fare) AS fare
        FROM rides GROUP BY ALL"""
    ),
    "the day so far": over(
        """count(*) OVER (PARTITION BY place, date_trunc('day', left_at) ORDER BY left_at) AS n,
        sum(fare) OVER (PARTITION BY place, date_trunc('day', left_at) ORDER BY left_at) AS fare"""
    ),
    "the day before, by the clock": over(
        """(SELECT count(*) FROM rides o WHERE o.place = r.place
        AND date_trunc('day', o.left_at) = date_trunc('day', r.left_at) - INTERVAL 1 DAY) AS n""",
        "AS r",
    ),
    "24 hours in a lookback of 25": Query(
        over(
            """count(*) OVER (PARTITION BY place ORDER BY left_at
            RANGE BETWEEN INTERVAL 24 HOURS PRECEDING AND CURRENT ROW) AS n"""
        ).sql,
        "25h",
    ),
    "nothing": over("NULL::DOUBLE AS fare, NULL::VARCHAR AS word, NULL::DOUBLE[] AS fares"),
    "NaN and infinities": over("'nan'::DOUBLE AS a, 'inf'::DOUBLE AS b, -'inf'::DOUBLE AS c, fare"),
    "means of what has arrived": Query(
        """SELECT place, known_at AS event_time, avg(delay) OVER (PARTITION BY place
        ORDER BY known_at RANGE BETWEEN INTERVAL 24 HOURS PRECEDING AND CURRENT ROW) AS delay
        FROM arrivals""",
        "3d",
    ),
    "what had arrived by then": over(
        """(SELECT avg(a.delay) FROM arrivals a WHERE a.place = r.place
        AND a.known_at BETWEEN r.left_at - INTERVAL 3 HOURS AND r.left_at) AS delay""",
        "AS r",
    ),
    "the total of yesterday from two on": Query(
        TOTAL_OF_YESTERDAY.format("WHERE r.left_at >= t.known_at"), "3d"
    ),
    "how many are on the way": over(
        """(SELECT count(*) FROM rides o LEFT JOIN arrivals a USING (ride)
        WHERE o.place = r.place AND o.left_at BETWEEN r.left_at - INTERVAL 6 HOURS AND r.left_at
        AND (a.known_at IS NULL OR a.known_at > r.left_at)) AS n""",
        "AS r",
    ),
    "the row before": over(
        "fare - lag(fare) OVER (PARTITION BY place, date_trunc('day', left_at) ORDER BY left_at) f"
    ),
    "a quantile": Query(over(f"quantile_cont(fare, 0.9) {WEEK} AS fare").sql, "6d"),
    "every third row": over(
        "fare",
        """QUALIFY row_number() OVER (PARTITION BY place, date_trunc('day', left_at)
        ORDER BY left_at) % 3 = 0""",
    ),
    "an hour at its end": Query(
        """SELECT place, date_trunc('hour', left_at) + INTERVAL 1 HOUR AS event_time,
        sum(fare) AS fare FROM rides GROUP BY ALL"""
    ),
    "the last ride of the hour, at its end": Query(
        """SELECT place, date_trunc('hour', left_at) + INTERVAL 1 HOUR AS event_time, fare
        FROM rides QUALIFY row_number() OVER (PARTITION BY place, date_trunc('hour', left_at)
        ORDER BY left_at DESC) = 1"""
    ),
}


class World:
    """A lake with rides, and a view of them."""

    def __init__(self, folder: Path, lake: Lake, rides_a_day: int = 60, seed: int = 1) -> None:
        self.folder, self.lake = folder, lake
        self.use_case: UseCase
        self.declare(over("fare"))
        self._land(rides_a_day, Random(seed))

    def declare(self, query: Query, labels: str = LABELS, horizon: str = "2d") -> Path:
        """Make the view this query; the file that it is in."""
        (self.folder / "features").mkdir(parents=True, exist_ok=True)
        file = self.folder / "features" / "pace.sql"
        file.write_text(query.sql)
        spec = SPEC.replace("LOOKBACK", query.lookback).replace("HORIZON", horizon)
        texts = {
            "use_case.yaml": spec,
            "labels.sql": labels,
            "model.py": "def build():\n    pass\n",
        }
        for name, text in texts.items():
            (self.folder / name).write_text(text)
        self.use_case = load_use_case(self.folder)
        return file

    def check(self, query: Query, window: Window) -> list[LeakReport]:
        """Compute a view of a window, or of a range, and check it."""
        self.declare(query)
        self.drop("pace_features")
        written = compute_features(self.lake, self.use_case, "pace", window, COMMIT)
        return check_written(self.lake, self.use_case, "pace", written)

    def drop(self, table: str) -> None:
        with self.lake.cursor() as cursor:
            cursor.execute(f'DROP TABLE IF EXISTS lake."{self.use_case.name}"."{table}"')

    def _land(self, rides_a_day: int, random: Random) -> None:
        days = [FIRST + timedelta(days=number) for number in range(DAYS)]
        rides, arrivals, totals = [], [], []
        for day in days:
            for number in range(rides_a_day):
                # Seldom in the night, but always some in its first hour and in its last minutes.
                hour = 24 * (number / rides_a_day if number % 3 else random.random())
                left_at = day.astimezone(UTC) + timedelta(seconds=int(hour * 3600))
                ride = f"{day:%m%d}-{number}"
                place = random.choice(PLACES)
                fare = round(random.lognormvariate(2, 1), 4)
                minutes = random.choice([7, 25, 50, 90, 300])
                rides.append((ride, left_at, place, fare, random.randint(1, 4), left_at))
                arrived_at = left_at + timedelta(minutes=minutes, seconds=random.randrange(60))
                delay = round(random.gauss(8, 10), 3)
                arrivals.append((ride, left_at, arrived_at, place, delay, arrived_at))
            for place in PLACES:
                known_at = day.astimezone(UTC) + timedelta(hours=26)
                totals.append((place, day.astimezone(UTC), random.random() * 100, known_at))
        for source, rows in (("rides", rides), ("arrivals", arrivals), ("totals", totals)):
            self._put(source, rows)

    def _put(self, source: str, rows: list[tuple[object, ...]]) -> None:
        table = source_table(self.use_case, source)
        names = [*self.use_case.sources[source].columns, "known_at"]
        frame = pd.DataFrame(rows, columns=names).astype(object)
        items = ", ".join(
            f'CAST("{c}" AS {t}) AS "{c}"' if c in names else f'NULL::{t} AS "{c}"'
            for c, t in table.columns.items()
        )
        with self.lake.cursor() as cursor:
            cursor.register("given", frame)
            replace_windows(
                self.lake, cursor, table, f"SELECT {items} FROM given",
                time=self.use_case.sources[source].event_time, calendar=self.use_case.calendar,
                window_range=Window(FIRST, FIRST + timedelta(days=DAYS)), commit=COMMIT,
            )  # fmt: skip


def day(number: int) -> Window:
    """A day of `MONTH`, from 0."""
    start = MONTH.start + timedelta(days=number)
    return Window(start, start + timedelta(days=1))
