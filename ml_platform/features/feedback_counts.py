"""What became of the feedback about a range of examples."""

from dataclasses import dataclass

from ml_platform.features.feedback import given_sql, has_feedback, seen_sql
from ml_platform.features.views import inside_sql, windows_sql
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake


@dataclass(frozen=True)
class FeedbackCounts:
    """What became of the feedback about a range of examples."""

    given: int
    """Labels and corrections; those that say the same of one example count once."""
    unmatched: int
    """Predictions and examples that it is about and that are not there.

    Those are predictions that are not in `requests` or were not made by key, and examples that have
    not landed. What is said of them is no label until they have.
    """
    conflicts: int
    """Examples of which different labels are known at the same moment."""


def count_feedback(lake: Lake, use_case: UseCase, window_range: Window) -> FeedbackCounts:
    """How much feedback there is about the examples of a range, and what is odd about it."""
    with lake.cursor(use_case.timezone) as cursor:
        if not has_feedback(lake, cursor, use_case):
            return FeedbackCounts(0, 0, 0)
        where = f"{inside_sql(window_range)} AND {windows_sql(use_case, window_range)}"
        given = given_sql(lake, cursor, use_case, where)
        seen = seen_sql(lake, cursor, use_case, where)
        names = [quote(key) for key in (*use_case.examples.entity, "event_time")]
        keys, first = ", ".join(names), names[0]
        same = " AND ".join(f"g.{name} = s.{name}" for name in names)
        row = cursor.execute(
            f"""WITH given AS ({given}), seen AS (FROM ({seen}) WHERE gone_at IS NULL)
            SELECT count(DISTINCT ({keys}, prediction_id, label, known_at)),
                (SELECT count(DISTINCT ({keys}, prediction_id))
                    FROM (FROM given g ANTI JOIN seen s ON {same})),
                (SELECT count(*) FROM (SELECT 1 FROM given WHERE {first} IS NOT NULL
                    GROUP BY {keys}, known_at, reviewed, corrects
                    HAVING count(DISTINCT label) > 1))
            FROM given"""
        ).fetchone()
    return FeedbackCounts(*row) if row else FeedbackCounts(0, 0, 0)
