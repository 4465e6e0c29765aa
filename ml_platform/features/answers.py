"""Labels that came back, and until when each of them, or what `labels.sql` says, was the label.

The first thing that is said of an example counts from when it says to be known on. What is said
after it corrects it, and does not count before it came.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from ml_platform.features.feedback import best_sql, counted_sql, given_sql, has_feedback, seen_sql
from ml_platform.spec.inputs import Feedback
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake

ALWAYS = "TIMESTAMPTZ '-infinity'"


@dataclass(frozen=True)
class Answers:
    """What came back of the examples of a range.

    given: SQL of the answers, as `given_sql` selects them, and `gone_at`, when their example was
    removed, if it was.
    """

    use_case: UseCase
    given: str

    @property
    def keys(self) -> tuple[str, ...]:
        """Columns that name an example."""
        return (*self.use_case.examples.entity, "event_time")

    def current_sql(self, feed: str, columns: Sequence[str]) -> str:
        """The query that yields one label an example: what the feed says now, or what was given.

        feed: SELECT of what `labels.sql` yields; columns: of the labels.
        """
        open_ended = "NULL::TIMESTAMPTZ AS __since, NULL::TIMESTAMPTZ AS __until"
        selected = ", ".join(map(quote, columns))
        rows = self.with_answers_sql(f"SELECT *, {open_ended} FROM ({feed})")
        return f"SELECT {selected} FROM ({rows}) WHERE __until IS NULL"

    def with_answers_sql(self, feed: str) -> str:
        """Labels with the interval in which each was the truth, from those of the feed.

        feed: SELECT of labels with `__since` and `__until`, which are null where the interval has
        no such end. The same columns come out; the intervals of one example do not overlap.
        """
        by = ", ".join(map(quote, self.keys))
        using = f"USING ({by})"
        return f"""
            WITH __feed AS MATERIALIZED ({feed}),
            __answers AS MATERIALIZED ({self.given}),
            __fed AS (SELECT *, coalesce(greatest(__since, known_at), {ALWAYS}) AS __from
                FROM __feed SEMI JOIN __answers {using}),
            __counted AS ({counted_sql("FROM __answers", self.keys, "FROM __fed")}),
            __moments AS (SELECT DISTINCT {by}, counts_from AS __from FROM __counted),
            __known AS (SELECT c.*, m.__from FROM __counted c JOIN __moments m {using}
                WHERE c.counts_from <= m.__from),
            __given AS (SELECT *, least(gone_at, lead(__from) OVER (
                    PARTITION BY {by} ORDER BY __from)) AS __until
                FROM ({best_sql("FROM __known", self.use_case, "true", (*self.keys, "__from"))})),
            __bounds AS (SELECT *, lead(__from) OVER (PARTITION BY {by} ORDER BY __from) AS __until
                FROM (SELECT {by}, __from FROM __fed UNION SELECT {by}, __from FROM __given
                    UNION SELECT {by}, __until FROM __fed WHERE __until IS NOT NULL
                    UNION SELECT {by}, __until FROM __given WHERE __until IS NOT NULL))
            FROM __feed ANTI JOIN __answers {using}
            UNION ALL BY NAME ({self._winners_sql()})"""

    def _winners_sql(self) -> str:
        """What holds between two bounds: the answer, or what the feed says."""
        by = ", ".join(f"b.{quote(key)}" for key in self.keys)
        fed, given = (
            " AND ".join(
                (
                    *(f"b.{quote(key)} = {alias}.{quote(key)}" for key in self.keys),
                    f"{alias}.__from <= b.__from",
                    f"({alias}.__until IS NULL OR {alias}.__until > b.__from)",
                )
            )
            for alias in ("f", "g")
        )
        wins = "f.event_time IS NULL OR f.label IS NULL OR g.known_at >= f.known_at"
        if (self.use_case.label.feedback or Feedback()).reviews == "win":
            wins += " OR g.reviewed"
        # Of answers that contradict each other none may hold: then there is no label.
        return f"""SELECT * EXCLUDE (__is_given, __is_fed) FROM (
                SELECT {by}, nullif(b.__from, {ALWAYS}) AS __since, b.__until,
                    f.event_time IS NOT NULL AS __is_fed,
                    g.event_time IS NOT NULL AND ({wins}) AS __is_given,
                    CASE WHEN __is_given THEN g.label ELSE f.label END AS label,
                    CASE WHEN __is_given THEN g.known_at ELSE f.known_at END AS known_at
                FROM __bounds b LEFT JOIN __fed f ON {fed} LEFT JOIN __given g ON {given})
            WHERE CASE WHEN __is_given THEN label IS NOT NULL ELSE __is_fed END"""


def read_answers(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase, where: str, snapshot: int
) -> Answers | None:
    """What came back of examples that are there; None where nothing did.

    What was given waits until its example is there. where: predicate on `event_time` and
    `window_start`. The answers are in a temporary table of the cursor.
    """
    if not has_feedback(lake, cursor, use_case):
        return None
    given = given_sql(lake, cursor, use_case, where, snapshot)
    seen = seen_sql(lake, cursor, use_case, where, snapshot)
    by = ", ".join(quote(key) for key in (*use_case.examples.entity, "event_time"))
    cursor.execute(
        f"""CREATE OR REPLACE TEMP TABLE __answers AS SELECT * FROM ({given}) g
        JOIN (SELECT {by}, CASE WHEN count(*) = count(gone_at) THEN max(gone_at) END AS gone_at
            FROM ({seen}) GROUP BY ALL) s USING ({by})"""
    )
    answers = Answers(use_case, "FROM temp.__answers")
    return answers if cursor.execute("FROM temp.__answers LIMIT 1").fetchall() else None
