"""What came back of examples and predictions: which one holds of several, and from when on."""

import duckdb

from ml_platform.errors import TableNotFound
from ml_platform.sources.known import KnownVersions
from ml_platform.spec.inputs import Feedback
from ml_platform.spec.logged import readable_columns
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import FEEDBACK, KNOWN_UNTIL, REQUESTS, UseCase
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

    These are the examples that have landed, and the rows that were predicted by key. `gone_at` says
    when an example was removed, which is null of those that are there; where values are those as
    known, it is one of them until then.
    """
    source = use_case.examples.source
    entity = ", ".join(quote(column) for column in use_case.examples.entity)
    # With neither there is nothing, of the same types.
    never = "NULL::TIMESTAMPTZ AS gone_at"
    nothing = lake.relation(cursor, use_case.name, FEEDBACK, snapshot)
    seen = [f"(SELECT *, {never} FROM {nothing}) WHERE false"]
    event_time = f"{quote(use_case.sources[source].event_time)} AS event_time"
    if landed := _table(lake, cursor, use_case, source, snapshot):
        examples = f"SELECT {entity}, {event_time}, {WINDOW_START}, {never} FROM {landed}"
        seen.append(f"({examples}) WHERE {where}")
    known = KnownVersions(lake, cursor, use_case, snapshot)
    if use_case.is_as_known and (versions := known.sql(source, "true")):
        ended = f"{KNOWN_UNTIL} AS gone_at"
        examples = f"SELECT {entity}, {event_time}, {WINDOW_START}, {ended} FROM {versions}"
        seen.append(f"({examples}) WHERE {where}")
    if requests := _requests(lake, cursor, use_case, snapshot):
        seen.append(f"(SELECT *, {never} FROM {requests}) WHERE by_key AND {where}")
    return " UNION ALL ".join(f"SELECT {entity}, event_time, gone_at FROM {each}" for each in seen)


def counted_sql(given: str, by: tuple[str, ...], feed: str | None = None) -> str:
    """A SELECT of what was given and of `counts_from`, from when on each may be a label.

    What came first under the same columns `by` counts from when it was known on, also where it came
    long after. What came later corrects it, or what the feed says, and counts not before it came.
    given: SELECT, as `given_sql` yields it; feed: SELECT of labels, with `__from`.
    """
    keys = ", ".join(quote(key) for key in by)
    first = f"rank() OVER (PARTITION BY {keys} ORDER BY received_at) = 1"
    fed, but = "", ""
    if feed:
        fed = f"""LEFT JOIN (SELECT {keys}, min(__from) AS __fed_from FROM ({feed})
            WHERE label IS NOT NULL GROUP BY ALL) USING ({keys})"""
        first += " AND (__fed_from IS NULL OR __fed_from > received_at)"
        but = "EXCLUDE (__fed_from)"
    return f"""SELECT * {but}, CASE WHEN {first} THEN known_at
            ELSE greatest(known_at, received_at) END AS counts_from
        FROM ({given}) {fed}"""


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
