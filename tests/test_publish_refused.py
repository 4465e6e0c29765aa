"""Targets that do not answer or could not hold what is published; passwords that show nowhere."""

import threading
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from ml_platform.access import Action, Audit
from ml_platform.errors import SpecErrors, TargetError, TargetUnavailable
from ml_platform.publish import publish_range
from ml_platform.publish.opening import opened_target
from ml_platform.settings import Settings
from ml_platform.storage import Commit, Lake
from tests.database_servers import PASSWORD, Database, mysql_database
from tests.published_trips import COMMIT, Published, published_trips
from tests.severed import Proxy
from tests.trips_use_case import days

FORMS = (
    PASSWORD,
    quote(PASSWORD, safe=""),
    PASSWORD.replace("'", "\\'"),
    PASSWORD.replace("'", "''"),
)


@pytest.fixture(scope="module")
def trips(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    made = published_trips(tmp_path_factory.mktemp("published"), database)
    yield made
    made.lake.close()


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"table": "other.late"}, "publish.late.table: the setting databases, "),
        ({"table": "late"}, "publish.late.table: 'late' should be <database>.<schema>.<table>"),
        ({"columns": "[trip, probability]"}, "publish.late.columns: should hold `event_time`"),
        ({"columns": "[trip, event_time, probabilty]"}, "no column 'probabilty'. Did you mean"),
        ({"columns": "[trip, event_time, 'now() AS at']"}, '"now" is another value each time'),
        ({"columns": "[trip, event_time, 'sum(probability) AS p']"}, "publish.late.columns"),
        ({"columns": "[trip, event_time, '[trip] AS all']"}, "'all' is BIGINT[], which columns of"),
        ({"columns": "[trip, event_time, city, city]"}, "there is a column 'city' already"),
        ({"key": "[trip]"}, "publish.late.key: lacks `event_time`"),
        ({"key": "[trip, event_time, town]"}, "publish.late.key: no column 'town'"),
        ({"lengths": "{distance: 8}"}, "publish.late.lengths.distance: no column of text"),
        ({"mode": "insert"}, "publish.late.mode: "),
    ],
)
def test_a_mistake_in_a_declaration_is_named(trips, declared, said):
    with pytest.raises(SpecErrors) as caught:
        trips.declare("late", **declared)
    assert said in str(caught.value)
    assert "use_case.yaml:" in str(caught.value)


def test_a_table_that_lacks_a_column_is_refused_with_the_statement_that_adds_it(trips):
    use_case = trips.declare("narrow")
    trips.publish(use_case, days(9, 9))
    trips.database.run("ALTER TABLE narrow DROP COLUMN city")
    with pytest.raises(TargetError, match=r"ALTER TABLE .* ADD COLUMN") as caught:
        trips.publish(use_case, days(9, 9))
    trips.database.run(_unquoted(trips.database, str(caught.value).rpartition("add it: ")[2]))
    trips.publish(use_case, days(9, 9))
    assert trips.database.run("SELECT count(*) FROM narrow WHERE city IS NOT NULL") != [(0,)]


def test_a_table_that_would_round_without_a_word_is_refused(trips):
    use_case = trips.declare("rounding")
    kind = {"mysql": "FLOAT", "postgres": "REAL", "sqlite": "INTEGER"}[trips.database.kind]
    trips.database.run(
        f"CREATE TABLE rounding (trip BIGINT, event_time TIMESTAMP, probability {kind}, "
        "model_version INTEGER, city VARCHAR(20), distance DOUBLE PRECISION, is_late BOOLEAN, "
        "PRIMARY KEY (trip, event_time))"
    )
    with pytest.raises(TargetError, match=r"column '(probability|event_time)' of rounding is"):
        trips.publish(use_case, days(9, 9))
    assert trips.database.run("SELECT * FROM rounding") == []


def test_mysql_tables_that_lose_or_double_rows_are_refused(trips):
    if trips.database.kind != "mysql":
        return
    use_case = trips.declare("engines")
    trips.publish(use_case, days(9, 9))
    trips.database.run("ALTER TABLE engines ENGINE = MyISAM")
    with pytest.raises(TargetError, match="MyISAM, which has no transactions"):
        trips.publish(use_case, days(9, 9))
    trips.database.run("ALTER TABLE engines ENGINE = InnoDB, DROP PRIMARY KEY")
    with pytest.raises(TargetError, match="has no unique key over trip, event_time"):
        trips.publish(use_case, days(9, 9))


def test_a_database_that_the_setting_does_not_name_is_said(trips):
    settings = trips.lake.settings.model_copy(update={"databases": {}})
    with pytest.raises(TargetError, match="has no database 'others'"), _opened(settings):
        pass
    odd = settings.model_copy(update={"databases": {"others": SecretStr("oracle:host=db")}})
    with pytest.raises(TargetError, match="'others' should begin with 'mysql:' or "), _opened(odd):
        pass


def _opened(settings):
    return opened_target(settings, "others")


def _unquoted(database: Database, statement: str) -> str:
    """What a client sends that has not asked for ANSI quotes."""
    return statement.replace('"', "`") if database.kind == "mysql" else statement


def _through(trips: Published, port: int) -> Settings:
    """Settings that reach the database of the test through another port."""
    there = f"port={trips.database.address['port']}"
    where = trips.database.setting.replace(there, f"port={port}")
    return trips.lake.settings.model_copy(
        update={"databases": {"others": SecretStr(where)}, "server_wait_seconds": 0}
    )


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_waited_for_and_then_named_in_one_line(mariadb, tmp_path):
    database = mysql_database(mariadb, "unavailable")
    trips = published_trips(tmp_path, database)
    use_case = trips.declare("late")
    proxy = Proxy(("127.0.0.1", 0), ("127.0.0.1", mariadb["port"]))
    at_once = _through(trips, proxy.listen[1])
    proxy.close()
    lake = Lake(at_once)
    with pytest.raises(TargetUnavailable) as caught:
        publish_range(lake, use_case, "late", days(9, 9), COMMIT)
    assert "\n" not in str(caught.value)
    assert "database 'others': Can't connect to MySQL server" in str(caught.value)
    lake.close()
    patient = Lake(at_once.model_copy(update={"server_wait_seconds": 120}))
    asked = threading.Timer(1, proxy.open)
    asked.start()
    publish_range(patient, use_case, "late", days(9, 9), COMMIT)
    asked.join()
    # The connection breaks in the midst of a partition: it is published from its beginning.
    for messages in (6, 9, 12, 15):
        broken = proxy.close_after(messages)
        back = threading.Thread(target=lambda: broken.wait(30) and proxy.open())  # noqa: B023
        back.start()
        publish_range(patient, use_case, "late", days(9, 11), COMMIT)
        back.join()
        assert database.run("SELECT count(*) FROM late") == [(120,)]
    patient.close()
    proxy.close()
    trips.lake.close()


def test_the_password_shows_nowhere(trips, caplog, capsys):
    use_case = trips.declare("secret")
    audit = Audit(trips.lake).along(
        Action("ada", "cli", "publish", "trips", "published_secret", {})
    )
    publish_range(
        trips.lake, use_case, "secret", days(9, 9), Commit("run", "0", "trips/secret", also=audit)
    )
    said = [repr(trips.lake.settings)]
    for wrong in _wrong(trips.database):
        settings = trips.lake.settings.model_copy(
            update={"databases": {"others": SecretStr(wrong)}, "server_wait_seconds": 0}
        )
        lake = Lake(settings)
        try:
            publish_range(lake, use_case, "secret", days(9, 9), COMMIT)
        except TargetError as error:
            said += [str(error), repr(error.__cause__), repr(error.__context__)]
        lake.close()
    with trips.lake.cursor() as cursor:
        for query in (
            "FROM duckdb_databases()", "FROM duckdb_secrets()", "FROM lake.snapshots()",
            "FROM lake.trips.published_secret", "FROM lake.platform.audit",
        ):  # fmt: skip
            said.append(repr(cursor.execute(query).fetchall()))
    said += [caplog.text, *capsys.readouterr()]
    assert len(said) > 6
    for text in said:
        assert not [form for form in FORMS if form in text]


def _wrong(database: Database) -> list[str]:
    """Settings with the password, by which nobody gets in: another login, another port."""
    if database.kind == "sqlite":
        return ["sqlite:/nowhere/at/all.sqlite"]
    user = database.schema if database.kind == "mysql" else "test_publish_refused"
    return [
        database.setting.replace(f"user={user}", "user=nobody"),
        f"{database.kind}://ada:{quote(PASSWORD, safe='')}@127.0.0.1:1/app",
        f"{database.setting} nonsense='{PASSWORD[0:4]}'",
    ]
