"""Labels that came back, beside those that `labels.sql` yields: which one holds of an example."""

import duckdb

from ml_platform.errors import TableNotFound
from ml_platform.spec.inputs import Feedback
from ml_platform.spec.logged import readable_columns
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import FEEDBACK, REQUESTS, UseCase
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START


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


def seen_sql(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    where: str,
    snapshot: int | None = None,
) -> str:
    """A SELECT of entity and event time of what something can be said of; where: as in `given_sql`.

    These are the examples that have landed, and the rows that were predicted by key.
    """
    source = use_case.examples.source
    entity = ", ".join(quote(column) for column in use_case.examples.entity)
    # With neither there is nothing, of the same types.
    seen = [f"{lake.relation(cursor, use_case.name, FEEDBACK, snapshot)} WHERE false"]
    if landed := _table(lake, cursor, use_case, source, snapshot):
        event_time = f"{quote(use_case.sources[source].event_time)} AS event_time"
        examples = f"SELECT {entity}, {event_time}, {WINDOW_START} FROM {landed}"
        seen.append(f"({examples}) WHERE {where}")
    if requests := _requests(lake, cursor, use_case, snapshot):
        seen.append(f"{requests} WHERE by_key AND {where}")
    return " UNION ALL ".join(f"SELECT {entity}, event_time FROM {each}" for each in seen)


def with_feedback(
    feed: str, given: str, seen: str, use_case: UseCase, columns: tuple[str, ...]
) -> str:
    """The query that yields one label an example: what the feed says, or what was given.

    What was given waits until its example is there. feed, given, seen: SELECTs, of `labels.sql`,
    as `given_sql` and as `seen_sql` yield them. columns: of the labels.
    """
    policy = use_case.label.feedback or Feedback()
    keys = (*use_case.examples.entity, "event_time")
    on = " AND ".join(f"f.{quote(key)} = g.{quote(key)}" for key in keys)
    there = " AND ".join(f"g.{quote(key)} = s.{quote(key)}" for key in keys)
    matched = f"SELECT g.* FROM ({given}) g SEMI JOIN ({seen}) s ON {there}"
    wins = "g.known_at >= f.known_at OR f.label IS NULL"
    if policy.reviews == "win":
        wins += " OR g.reviewed"
    selected = ", ".join(quote(column) for column in columns)
    return f"""
        WITH __feed AS ({feed}), __given AS ({best_sql(matched, use_case, "true", keys)}),
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
    return _table(lake, cursor, use_case, REQUESTS, snapshot)


def _table(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    name: str,
    snapshot: int | None,
) -> str | None:
    try:
        return lake.relation(cursor, use_case.name, name, snapshot)
    except TableNotFound:
        return None
