"""Alerts on a real lake, sent to a real web server and a real mail server."""

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from logging.handlers import MemoryHandler
from pathlib import Path

import pytest
from pydantic import SecretStr

from ml_platform.alerts import Channels, Condition, Findings, Notified, notify
from ml_platform.errors import AlertsMisconfigured
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from tests import trips_use_case as trips
from tests.alert_receivers import mail_receiver, web_receiver
from tests.dagster_servers import free_port

NOON = datetime(2024, 3, 20, 16, tzinfo=UTC)
DRIFT = Condition(
    use_case="trips",
    kind="drift",
    title="Drift in trips: 2 of 4 columns, 50%",
    what="2 of 4 columns have drifted: 50%, the limit is 30%.",
    since=NOON - timedelta(days=1),
    since_text="partition 2024-03-19",
    done="nothing",
    link="http://127.0.0.1:3000/assets/trips/drift_report",
)
PROMOTION = replace(
    DRIFT, kind="promotion", subject="7", title="Version 7 of trips was promoted", since=NOON
)


@pytest.fixture
def settings(either_catalog: Settings) -> Settings:
    return either_catalog


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    return trips.write_folder(tmp_path / "use_cases", "binary")


def channels(*addresses: str) -> Channels:
    return Channels.of(Settings(alerts=SecretStr(", ".join(addresses))))


def turn(
    lake: Lake, use_case: UseCase, to: Channels, minute: float, *found: Condition, **notes: str
) -> Notified:
    now = NOON + timedelta(minutes=minute)
    return notify(lake, use_case, to, lambda: Findings(found, notes), now, trips.COMMIT)


def test_a_condition_is_reported_once_while_it_lasts_and_cleared_once(
    lake: Lake, use_case: UseCase
) -> None:
    with web_receiver() as web:
        to = channels(web.url)
        for minute in range(5):
            turn(lake, use_case, to, minute, DRIFT)
        for minute in range(5, 9):
            turn(lake, use_case, to, minute, drift="1 of 4 columns: 25%, the limit is 30%.")
    assert [(post["title"], post["type"]) for post in web.received] == [
        ("Drift in trips: 2 of 4 columns, 50%", "warning"),
        ("All clear: Drift in trips: 2 of 4 columns, 50%", "success"),
    ]
    assert web.received[0]["message"].splitlines() == [
        "2 of 4 columns have drifted: 50%, the limit is 30%.",
        "Since: partition 2024-03-19",
        "Done: nothing",
        "http://127.0.0.1:3000/assets/trips/drift_report",
    ]
    assert web.received[1]["message"].splitlines() == [
        "1 of 4 columns: 25%, the limit is 30%.",
        "Noted at Wed 20 Mar 2024 12:00 America/New_York, "
        "over at Wed 20 Mar 2024 12:05 America/New_York.",
        "http://127.0.0.1:3000/assets/trips/drift_report",
    ]


@pytest.mark.slow
def test_what_comes_back_is_reported_again(lake: Lake, use_case: UseCase) -> None:
    with web_receiver() as web:
        to = channels(web.url)
        for minute, found in enumerate([[DRIFT], [], [DRIFT], []]):
            turn(lake, use_case, to, minute, *found)
    assert [title.startswith("All clear") for title in web.titles] == [False, True, False, True]


def test_an_event_is_reported_once_and_has_no_all_clear(lake: Lake, use_case: UseCase) -> None:
    with web_receiver() as web:
        to = channels(web.url)
        for minute, found in enumerate([[PROMOTION], [PROMOTION], [], [PROMOTION]]):
            turn(lake, use_case, to, minute, *found)
    assert web.titles == ["Version 7 of trips was promoted"]


def test_an_event_of_long_ago_is_history_and_not_reported(lake: Lake, use_case: UseCase) -> None:
    with web_receiver() as web:
        old = replace(PROMOTION, since=NOON - timedelta(days=8))
        assert str(turn(lake, use_case, channels(web.url), 0, old)) == (
            "1 old event; sent: 0 messages"
        )
    assert web.titles == []


@pytest.mark.slow
def test_many_of_a_kind_at_a_time_share_one_message(lake: Lake, use_case: UseCase) -> None:
    many = [
        replace(DRIFT, kind="freshness", subject=table, title=f"{table} of trips is late")
        for table in ("trips", "labels", "predictions", "drift_report")
    ]
    with web_receiver() as web:
        to = channels(web.url)
        turn(lake, use_case, to, 0, *many)
        turn(lake, use_case, to, 1, many[0])
    assert web.titles == [
        "trips: 4 late tables",
        "All clear: labels of trips is late",
        "All clear: predictions of trips is late",
        "All clear: drift_report of trips is late",
    ]
    assert "- labels of trips is late\n" in web.received[0]["message"]


def test_a_tick_without_news_writes_nothing(lake: Lake, use_case: UseCase) -> None:
    turn(lake, use_case, Channels(), 0, DRIFT)
    with lake.cursor() as cursor:
        before = lake.snapshot(cursor)
        assert str(turn(lake, use_case, Channels(), 1, DRIFT)) == "nothing new"
        assert lake.snapshot(cursor) == before


@pytest.mark.slow
def test_a_receiver_that_fails_twice_is_tried_again_and_the_good_one_is_not(
    lake: Lake, use_case: UseCase
) -> None:
    with web_receiver() as good, web_receiver(refuse=2) as shaky:
        to = channels(good.url, shaky.url)
        first = turn(lake, use_case, to, 0, DRIFT)
        (problem,) = first.problems
        assert problem.startswith("JSON (address 2): Failed to send JSON")
        assert "error=500" in problem
        assert turn(lake, use_case, to, 0.5, DRIFT).problems == ()
        assert len(turn(lake, use_case, to, 1, DRIFT).problems) == 1
        # Refused twice, so it is left alone for two minutes now.
        assert turn(lake, use_case, to, 2, DRIFT).sent == 0
        assert turn(lake, use_case, to, 3, DRIFT).sent == 1
        turn(lake, use_case, to, 10, DRIFT)
    assert (good.posts, shaky.posts) == (1, 3)
    assert shaky.titles == good.titles


@pytest.mark.slow
def test_a_dead_channel_raises_nothing_and_gets_everything_in_order_once_it_lives(
    lake: Lake, use_case: UseCase
) -> None:
    port = free_port()
    with web_receiver() as web:
        to = channels(web.url, f"json://127.0.0.1:{port}/hook")
        assert "Connection error" in turn(lake, use_case, to, 0, DRIFT).problems[0]
        turn(lake, use_case, to, 1)
        with web_receiver(port) as revived:
            for minute in (5, 6, 7):
                turn(lake, use_case, to, minute)
    assert revived.titles == [
        "Drift in trips: 2 of 4 columns, 50%",
        "All clear: Drift in trips: 2 of 4 columns, 50%",
    ]
    assert len(web.received) == 2


@pytest.mark.slow
def test_what_cannot_be_delivered_in_a_day_expires(lake: Lake, use_case: UseCase) -> None:
    port = free_port()
    to = channels(f"json://127.0.0.1:{port}/hook")
    turn(lake, use_case, to, 0, DRIFT)
    with web_receiver(port) as revived:
        turn(lake, use_case, to, 24 * 60, DRIFT)
        turn(lake, use_case, to, 24 * 60 + 90, DRIFT)
    assert revived.posts == 0


@pytest.mark.slow
def test_what_a_process_claimed_and_never_sent_is_sent_by_another(
    lake: Lake, use_case: UseCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> list[object]:
        raise KeyboardInterrupt

    with web_receiver() as web:
        to = channels(web.url)
        with monkeypatch.context() as patch:
            patch.setattr("ml_platform.alerts.notification._send", dies)
            with pytest.raises(KeyboardInterrupt):
                turn(lake, use_case, to, 0, DRIFT)
        assert turn(lake, use_case, to, 1, DRIFT).sent == 0
        assert turn(lake, use_case, to, 3, DRIFT).sent == 1


@pytest.mark.slow
def test_evaluators_that_run_at_once_send_nothing_twice(
    settings: Settings, use_case: UseCase
) -> None:
    with web_receiver() as web:
        to = channels(web.url)
        errors: list[BaseException] = []

        def evaluate() -> None:
            lake = Lake(settings)
            try:
                # All within the lease: this clock runs faster than a sender on a busy machine.
                for minute in (0, 0.5, 1):
                    turn(lake, use_case, to, minute, DRIFT, PROMOTION)
            except BaseException as error:
                errors.append(error)
                raise
            finally:
                lake.close()

        threads = [threading.Thread(target=evaluate) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert sorted(web.titles) == [
        "Drift in trips: 2 of 4 columns, 50%",
        "Version 7 of trips was promoted",
    ]


@pytest.mark.slow
def test_a_mail_arrives_with_subject_and_text(lake: Lake, use_case: UseCase) -> None:
    port = free_port()
    with mail_receiver(port) as mails:
        mail = (
            f"mailto://127.0.0.1:{port}?from=platform@example.com&mode=insecure"
            "&to=ada@example.com,grace@example.com"
        )
        notified = turn(lake, use_case, channels(mail), 0, DRIFT)
    assert notified.problems == ()
    assert [mail["Subject"] for mail in mails.mails] == [DRIFT.title, DRIFT.title]
    assert {mail["To"] for mail in mails.mails} == {"ada@example.com", "grace@example.com"}
    text = mails.mails[0].get_payload(decode=True)
    assert isinstance(text, bytes)
    assert text.decode().splitlines()[0] == "2 of 4 columns have drifted: 50%, the limit is 30%."


@pytest.fixture
def routed(tmp_path: Path) -> Iterator[Channels]:
    file = tmp_path / "apprise.conf"
    file.write_text(
        "trips = json://127.0.0.1:1/a\n"
        "critical = json://127.0.0.1:1/b\n"
        "trips, promotion, rollback = json://127.0.0.1:1/c\n"
        "parcels = json://127.0.0.1:1/d\n"
        "json://127.0.0.1:1/e\n"
    )
    return Channels.of(Settings(alerts=SecretStr(str(file))))


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        (DRIFT, [1, 5]),
        (PROMOTION, [1, 3, 5]),
        (replace(DRIFT, kind="performance"), [1, 2, 5]),
    ],
)
def test_tags_route_by_use_case_severity_and_kind(
    routed: Channels, lake: Lake, use_case: UseCase, condition: Condition, wanted: list[int]
) -> None:
    notified = turn(lake, use_case, routed, 0, condition)
    assert [problem.split(")")[0] for problem in notified.problems] == [
        f"JSON (address {place}" for place in wanted
    ]


def test_no_address_is_ever_shown(
    lake: Lake, use_case: UseCase, capfd: pytest.CaptureFixture[str]
) -> None:
    hidden = "tok3n"
    logged = MemoryHandler(capacity=1000)
    logging.getLogger().addHandler(logged)
    to = channels(
        f"json://127.0.0.1:9/{hidden}",
        f"mailto://ada:{hidden}@127.0.0.1:9?from=a@example.com&to=b@example.com&mode=insecure",
        f"nosuch://{hidden}",
    )
    said = [
        str(turn(lake, use_case, to, 0, DRIFT).problems),
        repr(to),
        "".join(record.getMessage() for record in logged.buffer),
        *capfd.readouterr(),
    ]
    with lake.cursor() as cursor:
        said.append(str(cursor.execute("FROM lake.trips.alert_deliveries").fetchall()))
    logging.getLogger().removeHandler(logged)
    assert "begins with 'nosuch://', is none that Apprise knows" in said[0]
    assert not any(hidden in text for text in said)


@pytest.mark.parametrize(
    ("setting", "error"),
    [("nowhere.conf", "is neither an Apprise address"), ("empty.conf", "names no address")],
)
def test_a_setting_without_any_channel_is_refused(tmp_path: Path, setting: str, error: str) -> None:
    (tmp_path / "empty.conf").write_text("\n")
    with pytest.raises(AlertsMisconfigured, match=error):
        Channels.of(Settings(alerts=SecretStr(str(tmp_path / setting))))
