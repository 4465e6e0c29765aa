"""Kinds of leaks, each a query over the rows of any feature view."""

from collections.abc import Mapping, Sequence

from ml_platform.features.planting.outcomes import AS_IT_IS
from ml_platform.features.views import inside_sql, instant
from ml_platform.spec.inputs import FeatureView, Source
from ml_platform.spec.queries import is_numeric, is_time, quote
from ml_platform.spec.windows import Window

PLANTED = "planted"
"""The column that a leak adds, where it does not replace a feature; NULL in rows without a leak."""
BY_TIME = "OVER (PARTITION BY {entity} ORDER BY event_time"
NEXT = f"lead({{it}}) {BY_TIME})"
DAY = "date_trunc('day', event_time)"
OF_THE_DAY = f"OVER (PARTITION BY {{entity}}, {DAY})"
NEXT_IF = {
    "on one weekday": "isodow(event_time) = 7",
    "in one of a hundred": "hash({entity}, event_time) % 100 = 0",
    "in one partition": "{inside}",
    "in the first hour": "hour(event_time) = 0",
    "in the last ten minutes": "hour(event_time) = 23 AND minute(event_time) >= 50",
    "over midnight": f"date_trunc('day', lead(event_time) {BY_TIME})) <> {DAY}",
}
"""Rows in which alone a view is given the next row."""
ITEMS: Mapping[str, str] = {
    "the next row": NEXT,
    **{
        f"the next row, {when}": f"CASE WHEN {condition} THEN {NEXT} ELSE {{it}} END"
        for when, condition in NEXT_IF.items()
    },
    "the next row, in a list": f"list({{it}}) {BY_TIME} ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING)",
    "the next row, in a struct": f"struct_pack(it := {{it}}, later := {NEXT})",
    "the last value of a frame": (
        f"last_value({{it}}) {BY_TIME} ROWS BETWEEN CURRENT ROW AND 3 FOLLOWING)"
    ),
    "the last row of the day": f"last({{it}} ORDER BY event_time) {OF_THE_DAY}",
    "the mean of the day": f"avg({{it}}) {OF_THE_DAY}",
    "off the mean of everything": "{it} - avg({it}) OVER ()",
}
"""What becomes of one feature of a view, as SQL over the view's rows."""
OF_NUMBERS = frozenset({"the mean of the day", "off the mean of everything"})


def _counted(rows: str) -> str:
    """A query that counts rows from one moment on until another one.

    rows: a SELECT of `since` and `until`. As a correlated subquery it would take ten times as long.
    """
    return f"""WITH __counted AS ({rows}),
        __steps AS (SELECT since AS moment, 1 AS n FROM __counted WHERE since < until
            UNION ALL SELECT until, -1 FROM __counted WHERE since < until),
        __sums AS (SELECT moment, sum(sum(n)) OVER (ORDER BY moment) AS n
            FROM __steps GROUP BY moment)
        SELECT v.*, nullif(s.n, 0)::DOUBLE AS planted
        FROM {{rows}} ASOF LEFT JOIN __sums s ON v.event_time >= s.moment"""


QUERIES: Mapping[str, str] = {
    AS_IT_IS: "SELECT * FROM {rows}",
    "a second too early": (
        "SELECT * REPLACE (event_time - INTERVAL 1 SECOND AS event_time) FROM {rows}"
    ),
    "only the last row of the day": (
        f"SELECT * FROM {{rows}} QUALIFY row_number() OVER "
        f"(PARTITION BY {{entity}}, {DAY} ORDER BY event_time DESC) = 1"
    ),
    "rows of the next hour": _counted(
        "SELECT known_at - INTERVAL 1 HOUR AS since, known_at AS until FROM {source}"
    ),
    "the nearest later row": (
        "SELECT v.*, epoch(s.known_at) AS planted FROM {rows} "
        "ASOF LEFT JOIN {source} s ON v.event_time < s.known_at"
    ),
    "rows that happened and are not known yet": _counted(
        "SELECT {at} AS since, known_at AS until FROM {source}"
    ),
    "everything so far": f"SELECT *, count(*) {BY_TIME}) AS planted FROM {{rows}}",
    "an hour further back than the lookback": (
        # Of rows before the window's start less the lookback: others may be counted.
        f"""SELECT v.*, CASE WHEN event_time < w.__start + INTERVAL 1 HOUR THEN nullif(
            count(*) {BY_TIME} RANGE BETWEEN {{lookback}} + INTERVAL 1 HOUR PRECEDING
            AND {{lookback}} + least(INTERVAL 1 HOUR, INTERVAL 1 MICROSECOND
                + coalesce(event_time - w.__start, INTERVAL 1 HOUR)) PRECEDING), 0) END AS planted
        FROM {{rows}} ASOF LEFT JOIN (VALUES {{windows}}) AS w(__start, __end)
        ON v.event_time >= w.__start"""
    ),
    "late rows, further back than the lookback": _counted(
        # They happened before what the window is shown, and were known within the lookback.
        """SELECT greatest(known_at, w.__start) AS since,
            least(known_at + {lookback}, w.__end) AS until
        FROM {source} JOIN (VALUES {windows}) AS w(__start, __end)
        ON {at} < w.__start - {lookback} AND known_at > w.__start - {lookback}"""
    ),
}
"""The view itself; leaks in which rows there are, of sources, and of a lookback that is too short.

at: event time of the source's rows.
"""


def planted_queries(
    view: FeatureView, source: tuple[str, Source], windows: Sequence[Window]
) -> dict[str, str]:
    """A query for each kind of leak, over the rows of a view's own; by kind.

    source: name and declaration of one that it reads, of which rows leak; windows: those that are
    computed, of which the middle one alone has one of the leaks.
    """
    name, declared = source
    numbers = [c for c, kind in view.features.items() if is_numeric(kind) and not is_time(kind)]
    # Numbers first: what a query makes of them is seldom the same in two rows.
    first = next(iter((*numbers, *view.features)))
    words = {
        "it": quote(first),
        "entity": ", ".join(quote(column) for column in view.entity),
        "rows": f"(\n{view.query}) AS v",
        "inside": inside_sql(windows[len(windows) // 2]),
        "source": quote(name),
        "at": f"CAST({quote(declared.event_time)} AS TIMESTAMPTZ)",
        "windows": ", ".join(f"({instant(w.start)}, {instant(w.end)})" for w in windows),
        "lookback": view.lookback.sql,
    }
    itself, *others = QUERIES
    items = {
        kind: f"SELECT * REPLACE ({form} AS {{it}}) FROM {{rows}}"
        for kind, form in ITEMS.items()
        if kind not in OF_NUMBERS or first in numbers
    }
    forms = {itself: QUERIES[itself], **items, **{kind: QUERIES[kind] for kind in others}}
    return {kind: form.format_map(words) for kind, form in forms.items()}
