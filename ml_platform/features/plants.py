"""Kinds of leaks, each a query over the rows of any feature view."""

from collections.abc import Mapping

from ml_platform.spec.inputs import FeatureView
from ml_platform.spec.queries import is_numeric, is_time, quote

AS_IT_IS = "nothing"
"""The kind of what is checked besides: the view itself."""
NEXT = "lead({it}) OVER (PARTITION BY {entity} ORDER BY event_time)"
OF_THE_DAY = "OVER (PARTITION BY {entity}, date_trunc('day', event_time))"
KINDS: Mapping[str, str] = {
    AS_IT_IS: "{it}",
    "the next row": NEXT,
    "the next row, on one weekday": f"CASE WHEN isodow(event_time) = 7 THEN {NEXT} ELSE {{it}} END",
    "the next row, in one of a hundred": (
        f"CASE WHEN hash({{entity}}, event_time) % 100 = 0 THEN {NEXT} ELSE {{it}} END"
    ),
    "the next row, in the first hour": (
        f"CASE WHEN hour(event_time) = 0 THEN {NEXT} ELSE {{it}} END"
    ),
    "the next row, in the last ten minutes": (
        f"CASE WHEN hour(event_time) = 23 AND minute(event_time) >= 50 THEN {NEXT} ELSE {{it}} END"
    ),
    "the last row of the day": f"last({{it}} ORDER BY event_time) {OF_THE_DAY}",
    "the mean of the day": f"avg({{it}}) {OF_THE_DAY}",
    "off the mean of everything": "{it} - avg({it}) OVER ()",
}
"""What becomes of one feature of a view, as SQL over the view's rows."""
OF_NUMBERS = frozenset({"the mean of the day", "off the mean of everything"})
EARLY = "a second too early"
AHEAD = "rows of the next hour"
SO_FAR = "everything so far"


def planted_queries(view: FeatureView) -> dict[str, str]:
    """A query for each kind of leak, over the rows of a view's own; by kind."""
    keys = ", ".join(quote(column) for column in view.entity)
    numbers = [c for c, kind in view.features.items() if is_numeric(kind) and not is_time(kind)]
    # Numbers first: what a query makes of them is seldom the same in two rows.
    first = next(iter((*numbers, *view.features)))
    inner = f"(\n{view.query}) AS v"
    queries = {}
    for kind, form in KINDS.items():
        if kind in OF_NUMBERS and first not in numbers:
            continue
        item = form.format(it=quote(first), entity=keys)
        if kind == AS_IT_IS:
            queries[kind] = f"SELECT * FROM {inner}"
        else:
            queries[kind] = f"SELECT * REPLACE ({item} AS {quote(first)}) FROM {inner}"
    source = quote(view.reads[0])
    later = "s.known_at > v.event_time AND s.known_at <= v.event_time + INTERVAL 1 HOUR"
    queries[EARLY] = f"SELECT * REPLACE (event_time - INTERVAL 1 SECOND AS event_time) FROM {inner}"
    queries[AHEAD] = (
        f"SELECT *, (SELECT count(*) FROM {source} s WHERE {later}) AS planted FROM {inner}"
    )
    queries[SO_FAR] = (
        f"SELECT *, count(*) OVER (PARTITION BY {keys} ORDER BY event_time) AS planted FROM {inner}"
    )
    return queries
