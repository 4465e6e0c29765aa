"""Settings refer to secrets that are kept elsewhere, whatever characters these have."""

import json
import os
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ml_platform.cli import main
from ml_platform.cli.platform import read_serving_settings, read_settings
from ml_platform.errors import PlatformError
from ml_platform.masking import secrets_of
from ml_platform.secret_references import SecretNotRead, providers
from ml_platform.secret_references.references import resolve
from ml_platform.settings import Settings
from ml_platform.storage.connection_strings import without_password, words_of

HARD = "hush-'now' /ä@7:\\"

secret = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12) | st.just(
    HARD
)


def resolved(text: str, value: str, *, is_sql: bool = False) -> str:
    return resolve(text, lambda *_: value, is_sql=is_sql)


@given(value=secret)
@example(value="${env:HOME}")
@example(value="'")
def test_a_password_of_a_connection_string_may_hold_anything(value: str) -> None:
    for written in ("password=${vault:a#b}", "password='${vault:a#b}'", "password = ${env:P}"):
        connection = resolved(f"host=db {written} dbname=lake", value)
        assert without_password(connection) == ("host=db dbname=lake", value)
        assert words_of(connection.replace("dbname", "database"))["password"] == value


@given(value=secret)
def test_a_password_of_an_address_may_hold_anything(value: str) -> None:
    for address in ("postgresql://ada:${env:P}@db:5432/lake", "mysql://ada:${env:P}@db/lake?x=1"):
        where, password = without_password(resolved(address, value))
        assert password == value
        assert where == address.replace(":${env:P}", "")
    where, password = without_password(
        resolved("postgresql://db/lake?password=${env:P}&a=b", value)
    )
    assert (where, password) == ("postgresql://db/lake?a=b", value)


@given(value=secret)
def test_a_connection_string_within_an_option_may_hold_anything(value: str) -> None:
    for inner in ("host=erp password=${env:P}", "host=erp password=\\'${env:P}\\'"):
        outer = resolved(f"driver=some uri='{inner}'", value)
        assert without_password(words_of(outer)["uri"]) == ("host=erp", value)
    outer = resolved("driver=some uri='postgresql://ada:${env:P}@erp/app'", value)
    assert without_password(words_of(outer)["uri"])[1] == value


@given(value=secret)
def test_a_text_of_sql_may_hold_anything(value: str) -> None:
    for written in ("'${env:P}'", "${env:P}"):
        statement = resolved(f"SELECT {written}, 'it''s'", value, is_sql=True)
        assert duckdb.sql(statement).fetchone() == (value, "it's")


def test_what_is_no_secret_stays_as_it_is() -> None:
    assert resolved("s3://lake/${env:TEAM}/files", "eu/west 1") == "s3://lake/eu/west%201/files"
    assert resolved("${env:WHERE}", "s3://lake/a b") == "s3://lake/a b"
    assert resolved("mailto://ada:$${HUSH}@db and ${env:A}", "x") == "mailto://ada:${HUSH}@db and x"


def test_settings_refer_to_variables_and_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "lake").write_text(f"{HARD}\n")
    monkeypatch.setenv("ERP_PASSWORD", HARD)
    monkeypatch.setenv("BEARER", 'a "quoted" token')
    monkeypatch.setenv(
        "ML_PLATFORM_CATALOG", f"postgres:host=db password=${{file:{tmp_path}/lake}} dbname=lake"
    )
    monkeypatch.setenv(
        "ML_PLATFORM_DATABASES",
        json.dumps({"erp": "mysql:host=erp password=${env:ERP_PASSWORD}"}),
    )
    monkeypatch.setenv(
        "ML_PLATFORM_ENDPOINTS",
        json.dumps({"trips": {"headers": {"Authorization": "Bearer ${env:BEARER}"}}}),
    )
    monkeypatch.setenv("ML_PLATFORM_EXTENSIONS", "httpfs,${env:MORE}")
    monkeypatch.setenv("MORE", "azure")
    monkeypatch.setenv("ML_PLATFORM_SERVING_LOG_SECRET", "${env:ERP_PASSWORD}")
    settings = read_settings()
    assert without_password(settings.catalog.removeprefix("postgres:"))[1] == HARD
    erp = settings.databases["erp"].get_secret_value()
    assert words_of(erp.removeprefix("mysql:"))["password"] == HARD
    header = settings.endpoints["trips"].headers["Authorization"].get_secret_value()
    assert header == 'Bearer a "quoted" token'
    assert settings.extensions == ("httpfs", "azure")
    assert HARD in secrets_of(settings)
    # What others pass on is what was written, not what was read.
    assert HARD not in os.environ["ML_PLATFORM_CATALOG"]
    log_secret = read_serving_settings(workers=1).log_secret
    assert log_secret is not None
    assert log_secret.get_secret_value() == HARD


def test_a_secret_may_be_all_of_a_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "databases.json"
    file.write_text(json.dumps({"erp": "sqlite:erp.db"}))
    monkeypatch.setenv("ML_PLATFORM_DATABASES", f"${{file:{file}}}")
    assert read_settings().databases["erp"].get_secret_value() == "sqlite:erp.db"


def test_a_secret_is_not_searched_for_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P", "${env:HOME}")
    monkeypatch.setenv("ML_PLATFORM_SERVING_LOG_SECRET", "${env:P}")
    log_secret = read_serving_settings(workers=1).log_secret
    assert log_secret is not None
    assert log_secret.get_secret_value() == "${env:HOME}"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("${env:NOT_SET_7}", "the environment variable NOT_SET_7 is not set"),
        ("${file:/nowhere/lake}", "there is no /nowhere/lake"),
        ("${file:lake}", "lake is not an absolute path"),
        ("${file:/dev/zero}", "/dev/zero is not a file"),
        ("${file:/}", "/ is not a file"),
        ("${valt:a#b}", "there is no provider of secrets 'valt'.*did you mean 'vault'"),
        ("${HUSH}", r"\$\{HUSH\} is not a reference to a secret.*write \$\$\{"),
        ("${vault:secret/lake}", "'secret/lake' does not name a secret in Vault: path and key"),
        ("${vault:secret/lake#password}", "VAULT_ADDR does not say where Vault is"),
    ],
)
def test_what_cannot_be_read_is_said_with_the_variable(
    monkeypatch: pytest.MonkeyPatch, written: str, said: str
) -> None:
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    monkeypatch.setenv("ML_PLATFORM_CATALOG", f"postgres:host=db password={written}")
    with pytest.raises(SecretNotRead, match=f"^ML_PLATFORM_CATALOG: {said}"):
        read_settings()


def test_json_that_is_none_is_said_without_its_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ML_PLATFORM_DATABASES", '{"erp": "postgres:password=hush"')
    monkeypatch.setattr(sys, "argv", ["ml-platform", "status"])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert "ML_PLATFORM_DATABASES is not valid JSON" in said
    assert "at character 33" in said
    assert "hush" not in said
    monkeypatch.setenv("ML_PLATFORM_DATABASES", '["erp"]')
    with pytest.raises(PlatformError, match="ML_PLATFORM_DATABASES"):
        read_settings()


def of_package(name: str) -> str:
    if name == "broken":
        raise ValueError("hush")
    return None if name == "none" else f"{name}-hush"  # type: ignore[return-value]


def test_a_package_adds_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("safe", f"{__name__}:of_package", providers.GROUP)
    monkeypatch.setattr(providers, "entry_points", lambda *, group: [point])
    monkeypatch.setenv("ML_PLATFORM_ONLINE_STORE", "redis://:${safe:lake}@redis/0")
    assert Settings().online_store == "redis://:lake-hush@redis/0"
    for name, said in (("broken", "failed with ValueError"), ("none", "returned NoneType")):
        monkeypatch.setenv("ML_PLATFORM_ONLINE_STORE", f"${{safe:{name}}}")
        with pytest.raises(SecretNotRead, match=said) as refusal:
            read_settings()
        assert "hush" not in str(refusal.value)
