"""Of several answers about one example: which was its label at each moment."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Literal

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.features.answers import Answers
from ml_platform.spec.inputs import Feedback
from ml_platform.spec.use_case import UseCase
from tests import trips_use_case as trips


@dataclass(frozen=True)
class Answer:
    """An answer, its moments in hours."""

    known: int
    received: int
    label: bool
    reviewed: bool
    corrects: bool


@dataclass(frozen=True)
class Fed:
    """What `labels.sql` says from an hour on until another."""

    since: int | None
    until: int | None
    label: bool | None
    known: int

    @property
    def counts_from(self) -> int:
        return self.known if self.since is None else max(self.since, self.known)


HOURS = st.integers(0, 6)
ANSWERS = st.lists(
    st.builds(Answer, HOURS, HOURS, st.booleans(), st.booleans(), st.booleans()),
    min_size=1,
    max_size=4,
)


@st.composite
def feeds(draw: st.DrawFn) -> list[Fed]:
    """Versions of one label, one after the other; in some intervals there is none."""
    bounds: list[int | None] = [None, *sorted(draw(st.sets(HOURS, max_size=2))), None]
    said = st.builds(Fed, st.none(), st.none(), st.sampled_from([True, False, None]), HOURS)
    found = [(since, until, draw(st.none() | said)) for since, until in pairwise(bounds)]
    return [Fed(since, until, f.label, f.known) for since, until, f in found if f]


def label_at(
    hour: int, feed: Sequence[Fed], answers: Sequence[Answer], policy: Feedback
) -> tuple[bool | None, int] | None:
    """What is known at an hour: a label, and from when on it says to be known."""
    wins = policy.reviews == "win"
    came = min(answer.received for answer in answers)
    fed_from = min((f.counts_from for f in feed if f.label is not None), default=None)

    def counts_from(answer: Answer) -> int:
        is_first = answer.received == came and (fed_from is None or fed_from > came)
        return answer.known if is_first else max(answer.known, answer.received)

    def rank(answer: Answer) -> tuple[Any, ...]:
        return wins and answer.reviewed, answer.known, answer.corrects

    counted = [answer for answer in answers if counts_from(answer) <= hour]
    said = [f for f in feed if f.counts_from <= hour and (f.until is None or hour < f.until)]
    fed = (said[0].label, said[0].known) if said else None
    if not counted:
        return fed
    best = max(counted, key=lambda answer: (*rank(answer), answer.received))
    label: bool | None = best.label
    if policy.conflicts == "none" and len({a.label for a in counted if rank(a) == rank(best)}) > 1:
        label = None
    if fed and fed[0] is not None and best.known < fed[1] and not (wins and best.reviewed):
        return fed
    return None if label is None else (label, best.known)


def moment(hour: int | None) -> datetime | None:
    return None if hour is None else datetime(2024, 3, 2, tzinfo=UTC) + timedelta(hours=hour)


@pytest.fixture(scope="module")
def trips_case(tmp_path_factory: pytest.TempPathFactory) -> UseCase:
    return trips.write_folder(tmp_path_factory.mktemp("trips"), "binary")


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def as_rows(rows: Sequence[Sequence[Any]], columns: str) -> str:
    """SELECT of an example's rows."""

    def text(value: Any) -> str:
        is_moment = isinstance(value, datetime)
        return "NULL" if value is None else f"'{value}'" if is_moment else str(value)

    named = ", ".join(
        f"v.{c.split()[0]}::{c.split()[1]} AS {c.split()[0]}" for c in columns.split(",")
    )
    names = ", ".join(c.split()[0] for c in columns.split(","))
    values = ", ".join(f"({', '.join(map(text, row))})" for row in rows)
    nothing = ", ".join("NULL" for _ in columns.split(","))
    only = "" if rows else "WHERE false"
    return (
        f"SELECT 7::BIGINT AS trip, TIMESTAMPTZ '2024-03-02 00:00:00+00' AS event_time, {named} "
        f"FROM (VALUES {values or f'({nothing})'}) v({names}) {only}"
    )


@given(
    feed=feeds(),
    answers=ANSWERS,
    reviews=st.sampled_from(["win", "count"]),
    conflicts=st.sampled_from(["last", "none"]),
)
def test_at_each_moment_the_label_is_that_of_what_had_been_said_by_then(
    trips_case: UseCase,
    connection: duckdb.DuckDBPyConnection,
    feed: list[Fed],
    answers: list[Answer],
    reviews: Literal["win", "count"],
    conflicts: Literal["last", "none"],
) -> None:
    policy = Feedback(reviews=reviews, conflicts=conflicts)
    label = trips_case.label.model_copy(update={"feedback": policy})
    case = trips_case.model_copy(update={"label": label})
    fed = as_rows(
        [(f.label, moment(f.known), moment(f.since), moment(f.until)) for f in feed],
        "label BOOLEAN,known_at TIMESTAMPTZ,__since TIMESTAMPTZ,__until TIMESTAMPTZ",
    )
    given_rows = as_rows(
        [
            (a.label, moment(a.known), moment(a.received), number, a.reviewed, a.corrects, None)
            for number, a in enumerate(answers)
        ],
        "label BOOLEAN,known_at TIMESTAMPTZ,received_at TIMESTAMPTZ,feedback_id VARCHAR,"
        "reviewed BOOLEAN,corrects BOOLEAN,gone_at TIMESTAMPTZ",
    )
    answered_sql = Answers(case, given_rows).with_answers_sql(fed)
    found = connection.execute(
        f"SELECT label, known_at, __since, __until FROM ({answered_sql})"
    ).fetchall()
    current_sql = Answers(case, given_rows).current_sql(
        f"SELECT * EXCLUDE (__since, __until) FROM ({fed}) WHERE __until IS NULL",
        ("label", "known_at"),
    )
    now = connection.execute(current_sql).fetchall()
    for hour in range(8):
        at = moment(hour)
        assert at is not None
        holds = [
            (label, known)
            for label, known, since, until in found
            if (since is None or since <= at) and (until is None or at < until)
        ]
        expected = label_at(hour, feed, answers, policy)
        assert holds == ([] if expected is None else [(expected[0], moment(expected[1]))])
    assert now == holds
