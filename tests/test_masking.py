"""No password of the settings is in a text that was masked."""

from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ml_platform.alerts.channels import Channels, Message
from ml_platform.cli.platform import read_settings
from ml_platform.errors import OnlineStoreUnavailable, PlatformError
from ml_platform.failures import failure_of
from ml_platform.features import open_online_store
from ml_platform.masking import MASK, masked, secrets_of
from ml_platform.settings import Settings
from ml_platform.storage.connection_strings import without_password

PASSWORD = "hush-hush 'n/ä@7"
ENCODED = "hush-hush%20%27n%2F%C3%A4%407"
QUOTED = r"'hush-hush \'n/ä@7'"


def _nested(quoted: str) -> str:
    """The same inside of what is quoted itself."""
    return quoted.replace("\\", "\\\\").replace("'", "\\'")


SETTINGS = {
    "catalog in words": {"catalog": f"postgres:host=db user=ada password={QUOTED} dbname=lake"},
    "catalog as address": {"catalog": f"postgres:postgresql://ada:{ENCODED}@db/lake"},
    "catalog by parameter": {"catalog": f"postgres:postgresql://db/lake?password={ENCODED}"},
    "databases": {"databases": {"erp": f"postgres:host=erp password={QUOTED}"}},
    "mysql in words": {"databases": {"erp": f"mysql:host=erp password={QUOTED} database=app"}},
    "mysql as address": {"databases": {"erp": f"mysql://ada:{ENCODED}@erp:3306/app"}},
    "driver with an address": {
        "databases": {"erp": f"adbc:driver=some uri='postgresql://ada:{ENCODED}@erp/app'"}
    },
    "driver with words": {
        "databases": {"erp": "adbc:driver=some uri='host=erp password=" + _nested(QUOTED) + "'"}
    },
    "driver with a token": {"databases": {"erp": f"adbc:driver=some adbc.auth.token={QUOTED}"}},
    "lake in an object store": {
        "databases": {"shop": f"delta:s3://shop/lake key_id=AKIA12345 secret={QUOTED}"}
    },
    "catalog of a lake": {
        "databases": {
            "shop": "iceberg:warehouse=s3://shop/lake "
            f"uri=postgresql+psycopg2://ada:{ENCODED}@db/catalog"
        }
    },
    "credential of a catalog": {
        "databases": {"shop": f"iceberg:uri=https://catalog credential={QUOTED}"}
    },
    "secrets_sql": {
        "secrets_sql": "CREATE SECRET (TYPE s3, KEY_ID 'AKIA12345', "
        "SECRET 'hush-hush ''n/ä@7', ENDPOINT 'minio:9000')"
    },
    "mlflow": {"mlflow_tracking_uri": f"http://ada:{ENCODED}@mlflow:5000"},
    "mlflow database": {"mlflow_tracking_uri": f"postgresql://ada:{ENCODED}@db/mlflow"},
    "redis": {"online_store": f"rediss://:{ENCODED}@redis:6379/0"},
    "header": {"endpoints": {"trips": {"headers": {"Authorization": f"Bearer {PASSWORD}"}}}},
    "basic header": {
        "endpoints": {
            "trips": {
                "headers": {
                    "Authorization": f"Basic {b64encode(f'ada:{PASSWORD}'.encode()).decode()}"
                }
            }
        }
    },
    "endpoint": {"endpoints": {"trips": {"url": f"https://ada:{ENCODED}@models"}}},
    "celery": {"celery_broker": f"redis://:{ENCODED}@redis:6379/1"},
    "spark": {"spark_remote": f"sc://spark:15002/;token={ENCODED}"},
    "alerts": {"alerts": f"mailto://ada:{ENCODED}@example.com"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_password_is_masked_however_it_is_written(name: str) -> None:
    settings = Settings(**SETTINGS[name])
    assert PASSWORD in secrets_of(settings)
    for text in (PASSWORD, ENCODED, QUOTED, str(SETTINGS[name])):
        said = masked(f"cannot connect: {text} (refused)", settings)
        assert "hush" not in said
        assert said.startswith("cannot connect: ")
        assert said.endswith(" (refused)")


def test_tokens_of_channels_are_masked(tmp_path: Path) -> None:
    file = tmp_path / "apprise.yml"
    file.write_text("urls:\n  - slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#alerts\n")
    for alerts in (str(file), "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/"):
        said = masked("POST /T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ failed",
                      Settings(alerts=alerts))  # fmt: skip
        assert said == f"POST /{MASK}/{MASK}/{MASK} failed"


def test_what_has_the_form_of_a_password_is_masked_whoever_set_it() -> None:
    assert masked("to redis://:open@redis:1", Settings()) == f"to redis://:{MASK}@redis:1"
    assert masked("host=a password=open port=1", Settings()) == f"host=a password={MASK} port=1"


def test_where_something_is_stays_readable() -> None:
    settings = Settings(**SETTINGS["secrets_sql"], lake_files="s3://lake/files/")
    text = "GET http://minio:9000/lake/files/a.parquet: 503"
    assert masked(text, settings) == text


word = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=3, max_size=12)


@given(password=word)
@example(password="://")
def test_any_password_of_a_connection_string_is_found(password: str) -> None:
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    connection = f"host=db password='{quoted}' dbname=lake"
    assert without_password(connection) == ("host=db dbname=lake", password)
    settings = Settings(catalog=f"postgres:{connection}")
    assert password not in masked(f"[{password}] [{connection}]", settings).replace(MASK, "")


class Gone(Exception):
    __module__ = "duckdb"


def test_what_an_error_means_is_read_from_the_server_not_from_the_statement() -> None:
    asked = "Failed to execute query \"INSERT INTO t VALUES ('connection refused')\": "
    assert failure_of(Gone(asked + "ERROR: syntax"), Settings()).kind == "other"
    closed = "server closed the connection unexpectedly"
    assert failure_of(Gone(asked + closed), Settings()).kind == "unavailable"
    locked = 'Failed to execute query "PRAGMA journal_mode=WAL": database is locked'
    assert failure_of(Gone(locked), Settings()).kind == "unavailable"
    text = "Conversion Error: Could not convert string 'database is locked' to INT32"
    assert failure_of(Gone(text), Settings()).kind == "other"
    assert failure_of(OSError(28, "No space left on device"), Settings()).kind == "disk full"
    assert failure_of(ConnectionRefusedError(111, "refused"), Settings()).kind == "unavailable"
    assert failure_of(ValueError("connection refused"), Settings()).kind == "other"


def test_a_full_disk_is_called_one() -> None:
    said = str(
        failure_of(
            Gone(
                "TransactionContext Error: Failed to commit: Failed to commit DuckLake "
                "transaction.\nExceeded the maximum retry count of 0 set by the "
                "ducklake_max_retry_count setting.\n. Consider increasing the value with: e.g., "
                '"SET ducklake_max_retry_count = 10;"\nFailed to flush changes into DuckLake: '
                "database or disk is full"
            ),
            Settings(),
        )
    )
    assert said == (
        "a disk is full: Failed to flush changes into DuckLake: database or disk is full; make "
        "room, and do the same again"
    )


def test_a_redis_that_does_not_answer_is_unavailable_and_keeps_its_password(
    tmp_path: Path,
) -> None:
    address = "redis://:hush-hush@127.0.0.1:1/0"
    store = open_online_store(Settings(data=tmp_path, online_store=address))
    with pytest.raises(OnlineStoreUnavailable) as caught:
        store.newest("trips", "pace")
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None
    store.close()


def test_what_a_channel_says_of_a_failure_shows_no_password_of_the_settings() -> None:
    settings = Settings(
        alerts="json://ada:hush-hush@127.0.0.1:9/tokens", catalog="postgres:host=db password=quiet"
    )
    (channel,) = Channels.of(settings)
    message = Message("trips", frozenset(), "info", "title", "body")
    said = channel.send(message)
    assert said is not None
    assert "hush" not in said
    assert "quiet" not in repr(channel)


@pytest.mark.parametrize(
    "value", ['{"trips": {"token": "hush"}}', '{"trips": "hush"}', '"hush"'], ids=str
)
def test_a_setting_that_is_wrong_is_named_without_what_it_keeps_secret(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("ML_PLATFORM_ENDPOINTS", value)
    with pytest.raises(PlatformError) as refused:
        read_settings()
    assert str(refused.value).startswith("ML_PLATFORM_ENDPOINTS")
    assert "hush" not in str(refused.value)
