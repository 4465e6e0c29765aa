"""Secrets of settings in a real OpenBao, which has the API of HashiCorp Vault."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_platform.cli.platform import read_settings
from ml_platform.secret_references import SecretNotRead, vault
from ml_platform.storage.connection_strings import without_password
from tests.dagster_servers import free_port
from tests.vault_server import TOKEN, VaultServer, vault_server

HARD = "hush-'now' /ä@7:\\"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultServer]:
    with vault_server(tmp_path_factory.mktemp("vault")) as running:
        yield running


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, server: VaultServer, tmp_path: Path) -> None:
    vault._values.cache_clear()
    monkeypatch.setenv("VAULT_ADDR", server.address)
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    # Where a token of whoever runs the tests may lie.
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("VAULT_ROLE_ID", "VAULT_KUBERNETES_ROLE", "VAULT_NAMESPACE", "VAULT_CACERT"):
        monkeypatch.delenv(name, raising=False)


def password(monkeypatch: pytest.MonkeyPatch, reference: str) -> str | None:
    """What a catalog's password is that refers to a secret."""
    monkeypatch.setenv("ML_PLATFORM_CATALOG", f"postgres:host=db password=${{vault:{reference}}}")
    catalog = read_settings().catalog
    assert catalog is not None
    return without_password(catalog.removeprefix("postgres:"))[1]


def refusal(monkeypatch: pytest.MonkeyPatch, reference: str) -> str:
    with pytest.raises(SecretNotRead) as caught:
        password(monkeypatch, reference)
    assert TOKEN not in str(caught.value)
    return str(caught.value).removeprefix("ML_PLATFORM_CATALOG: ")


def test_a_secret_of_either_version_of_the_store_is_read(
    monkeypatch: pytest.MonkeyPatch, server: VaultServer
) -> None:
    server.keep("teams/rides/lake", password=HARD, port=5432)
    assert password(monkeypatch, "secret/teams/rides/lake#password") == HARD
    assert password(monkeypatch, "secret/teams/rides/lake#port") == "5432"
    server.client.sys.enable_secrets_engine("kv", path="old/store", options={"version": "1"})
    server.client.secrets.kv.v1.create_or_update_secret(
        "lake", secret={"password": HARD}, mount_point="old/store"
    )
    assert password(monkeypatch, "old/store/lake#password") == HARD


def test_a_path_is_asked_for_once_by_a_process(
    monkeypatch: pytest.MonkeyPatch, server: VaultServer
) -> None:
    server.keep("once", password="first", other="second")
    assert password(monkeypatch, "secret/once#password") == "first"
    server.keep("once", password="later")
    assert password(monkeypatch, "secret/once#password") == "first"
    assert password(monkeypatch, "secret/once#other") == "second"


def test_what_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, server: VaultServer) -> None:
    server.keep("lake", password=HARD, user="ada")
    assert refusal(monkeypatch, "secret/lake#pasword") == (
        "secret/lake in Vault has no 'pasword', it has password, user"
    )
    assert refusal(monkeypatch, "secret/late#password").startswith(
        "there is no secret/late in Vault"
    )
    assert "does not let this login read nowhere/lake: there is no such store" in refusal(
        monkeypatch, "nowhere/lake#password"
    )
    server.keep("gone", password=HARD)
    server.client.secrets.kv.v2.delete_latest_version_of_secret("gone")
    assert refusal(monkeypatch, "secret/gone#password") == (
        "there is no secret/gone in Vault, or it was deleted"
    )


def test_an_application_logs_in_by_its_role(
    monkeypatch: pytest.MonkeyPatch, server: VaultServer
) -> None:
    server.keep("rides", password=HARD)
    server.keep("others", password=HARD)
    client = server.client
    client.sys.create_or_update_policy(
        "rides", 'path "secret/data/rides" { capabilities = ["read"] }'
    )
    client.sys.enable_auth_method("approle")
    client.auth.approle.create_or_update_approle("rides", token_policies=["rides"])
    monkeypatch.delenv("VAULT_TOKEN")
    assert refusal(monkeypatch, "secret/rides#password").startswith(
        f"Vault at {server.address} needs a login: set VAULT_TOKEN, or VAULT_ROLE_ID"
    )
    role = client.auth.approle.read_role_id("rides")["data"]["role_id"]
    secret = client.auth.approle.generate_secret_id("rides")["data"]["secret_id"]
    monkeypatch.setenv("VAULT_ROLE_ID", role)
    monkeypatch.setenv("VAULT_SECRET_ID", secret)
    assert password(monkeypatch, "secret/rides#password") == HARD
    assert "does not let this login read secret/others" in refusal(
        monkeypatch, "secret/others#password"
    )
    monkeypatch.setenv("VAULT_SECRET_ID", "wrong-7c1e")
    vault._values.cache_clear()
    said = refusal(monkeypatch, "secret/rides#password")
    assert "invalid role or secret ID" in said
    assert "wrong-7c1e" not in said


def test_a_server_that_does_not_answer_or_let_in_is_said(
    monkeypatch: pytest.MonkeyPatch, server: VaultServer
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "not-the-token")
    said = refusal(monkeypatch, "secret/lake#password")
    assert "does not let this login read secret/lake: " in said
    monkeypatch.setenv("VAULT_ADDR", f"http://127.0.0.1:{free_port()}")
    assert "does not answer" in refusal(monkeypatch, "secret/lake#password")


def test_the_login_of_a_pod_is_said_to_need_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_KUBERNETES_ROLE", "rides")
    assert refusal(monkeypatch, "secret/lake#password").startswith(
        "VAULT_KUBERNETES_ROLE logs in by /var/run/secrets/kubernetes.io/serviceaccount/token"
    )


def test_a_sealed_server_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with vault_server(tmp_path) as own:
        monkeypatch.setenv("VAULT_ADDR", own.address)
        own.client.sys.seal()
        said = refusal(monkeypatch, "secret/lake#password")
    assert said == f"Vault at {own.address} is sealed"


def test_the_servers_certificate_is_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with vault_server(tmp_path, tls=True) as own:
        own.keep("lake", password=HARD)
        monkeypatch.setenv("VAULT_ADDR", own.address)
        assert "has no certificate that is trusted here, see VAULT_CACERT" in refusal(
            monkeypatch, "secret/lake#password"
        )
        monkeypatch.setenv("VAULT_CACERT", str(own.authority))
        assert password(monkeypatch, "secret/lake#password") == HARD
