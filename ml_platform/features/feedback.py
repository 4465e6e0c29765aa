"""Labels that came back, beside those that `labels.sql` yields: which one holds of an example."""

import duckdb

from ml_platform.errors import TableNotFound
from ml_platform.spec.inputs import Feedback
from ml_platform.spec.logged import readable_columns
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import FEEDBACK, REQUESTS, UseCase
from ml_platform.storage import Lake


def has_feedback(lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase) -> bool:
    """Whether any has been ingested."""
    return FEEDBACK in use_case.sources and FEEDBACK in lake.tables(cursor, use_case.name)


def given_sql(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    where: str,
    snapshot: int | None = None,
) -> str:
    """A SELECT of the labels given for examples: entity, event time, label, known_at, how it came.

    where: predicate on `event_time` and `window_start`. Of a prediction that is named by its id,
    entity and event time are those of the request; they are null where there is no such request.
    """
    entity = use_case.examples.entity
    feedback = lake.relation(cursor, use_case.name, FEEDBACK, snapshot)
    found = [f"f.{quote(c)} AS {quote(c)}" for c in entity]
    join = ""
    if requests := _requests(lake, cursor, use_case, snapshot):
        found = [f"coalesce(f.{quote(c)}, r.{quote(c)}) AS {quote(c)}" for c in entity]
        join = f"LEFT JOIN (FROM {requests} WHERE {where}) r ON f.prediction_id = r.prediction_id"
    # The same said twice of one example, or by two, is said once.
    return f"""SELECT * FROM (
        SELECT {", ".join(found)}, f.event_time, f.prediction_id, f.label, f.known_at,
            f.received_at, f.feedback_id, f.origin = 'review' AS reviewed,
            f.kind = 'correction' AS corrects
        FROM (FROM {feedback} WHERE {where} AND kind <> 'skip') f {join})"""


def with_feedback(feed: str, given: str, use_case: UseCase, columns: tuple[str, ...]) -> str:
    """The query that yields one label an example: what the feed says, or what was given.

    feed, given: SELECTs, of `labels.sql` and as `given_sql` yields it. columns: of the labels.
    """
    policy = use_case.label.feedback or Feedback()
    keys = (*use_case.examples.entity, "event_time")
    on = " AND ".join(f"f.{quote(key)} = g.{quote(key)}" for key in keys)
    known = " AND ".join(f"{quote(key)} IS NOT NULL" for key in keys)
    wins = "g.known_at >= f.known_at OR f.label IS NULL"
    if policy.reviews == "win":
        wins += " OR g.reviewed"
    selected = ", ".join(quote(column) for column in columns)
    return f"""
        WITH __feed AS ({feed}), __given AS ({best_sql(given, use_case, known, keys)}),
        __beaten AS (SELECT f.* FROM __feed f SEMI JOIN __given g ON {on} AND ({wins}))
        SELECT {selected} FROM __feed f
        WHERE NOT EXISTS (FROM __beaten g WHERE {on})
        UNION ALL BY NAME
        SELECT {selected} FROM __given g
        WHERE label IS NOT NULL AND (NOT EXISTS (FROM __feed f WHERE {on})
            OR EXISTS (FROM __beaten f WHERE {on}))"""


def best_sql(given: str, use_case: UseCase, where: str, by: tuple[str, ...]) -> str:
    """A SELECT of the one thing that holds of all that was given under the same columns `by`."""
    policy = use_case.label.feedback or Feedback()
    keys = ", ".join(quote(key) for key in by)
    reviewed = "reviewed, " if policy.reviews == "win" else ""
    replaced = ""
    if policy.conflicts == "none":
        same = f"OVER (PARTITION BY {keys}, {reviewed}known_at, corrects)"
        agreed = f"CASE WHEN min(label) {same} = max(label) {same} THEN label END"
        replaced = f" REPLACE ({agreed} AS label)"
    order = f"{reviewed.replace(',', ' DESC,')}known_at DESC, corrects DESC, received_at DESC"
    return f"""SELECT *{replaced} FROM ({given}) WHERE {where}
        QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {order}, feedback_id) = 1"""


def _requests(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase, snapshot: int | None
) -> str | None:
    if REQUESTS not in use_case.sources:
        return None
    # A hashed entity names no example.
    if not readable_columns(use_case).issuperset(use_case.examples.entity):
        return None
    try:
        return lake.relation(cursor, use_case.name, REQUESTS, snapshot)
    except TableNotFound:
        return None
