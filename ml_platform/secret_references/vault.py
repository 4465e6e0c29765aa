"""Secrets in HashiCorp Vault or OpenBao, by its HTTP API.

As the `vault` command, it takes address, namespace and certificates from `VAULT_ADDR`,
`VAULT_NAMESPACE`, `VAULT_CACERT`, `VAULT_CLIENT_CERT` and `VAULT_CLIENT_KEY`.
"""

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.extras import extra
from ml_platform.secret_references.providers import SecretNotRead

if TYPE_CHECKING:
    import hvac

ADDRESS = "VAULT_ADDR"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
"""What a pod in Kubernetes shows who it is by."""
SECONDS = 10
"""How long an answer may take."""
LOGINS = (
    "set VAULT_TOKEN, or VAULT_ROLE_ID and VAULT_SECRET_ID (AppRole), or VAULT_KUBERNETES_ROLE in "
    "a pod"
)


def read(name: str) -> str:
    """The value of `path#key` in a key-value store of version 1 or 2; SecretNotRead."""
    path, hash_sign, key = name.partition("#")
    if not (path.strip("/") and hash_sign and key):
        raise SecretNotRead(
            f"'{name}' does not name a secret in Vault: path and key, secret/lake#password"
        )
    address = os.environ.get(ADDRESS)
    if not address:
        raise SecretNotRead(f"{ADDRESS} does not say where Vault is: https://vault:8200")
    values = _values(address, path.strip("/"))
    if key not in values:
        raise SecretNotRead(
            f"{path} in Vault has no '{key}', it has {', '.join(sorted(values)) or 'nothing'}"
        )
    value = values[key]
    # Numbers are kept as such, and a password may consist of digits.
    return value if isinstance(value, str) else str(value)


# A process asks once for each path: settings are read several times, by what uses them.
@lru_cache(maxsize=64)
def _values(address: str, path: str) -> Mapping[str, Any]:
    with extra():
        import hvac.exceptions
        import requests
    try:
        return _read_values(_client(address), path)
    except hvac.exceptions.Forbidden:
        raise SecretNotRead(
            f"Vault at {address} does not let this login read {path}: there is no such store, no "
            "policy that allows it, or the token has expired"
        ) from None
    except hvac.exceptions.VaultDown:
        raise SecretNotRead(f"Vault at {address} is sealed") from None
    except hvac.exceptions.VaultError as error:
        # What the server says, which is no secret; not the request, which a login's may be in.
        said = "; ".join(map(str, error.errors or ())) or type(error).__name__
        raise SecretNotRead(f"Vault at {address}: {said}") from None
    except requests.exceptions.SSLError:
        raise SecretNotRead(
            f"Vault at {address} has no certificate that is trusted here, see VAULT_CACERT"
        ) from None
    except requests.exceptions.RequestException as error:
        raise SecretNotRead(f"Vault at {address} does not answer: {type(error).__name__}") from None


def _client(address: str) -> "hvac.Client":
    import hvac

    certificate, key = os.environ.get("VAULT_CLIENT_CERT"), os.environ.get("VAULT_CLIENT_KEY")
    client = hvac.Client(
        url=address,
        namespace=os.environ.get("VAULT_NAMESPACE"),
        # The library would read these once, on import.
        verify=os.environ.get("VAULT_CACERT") or True,
        cert=(certificate, key) if certificate and key else None,
        timeout=SECONDS,
    )
    if role := os.environ.get("VAULT_ROLE_ID"):
        client.auth.approle.login(
            role,
            os.environ.get("VAULT_SECRET_ID"),
            mount_point=os.environ.get("VAULT_APPROLE_MOUNT", "approle"),
        )
    elif role := os.environ.get("VAULT_KUBERNETES_ROLE"):
        client.auth.kubernetes.login(
            role,
            _service_account(),
            mount_point=os.environ.get("VAULT_KUBERNETES_MOUNT", "kubernetes"),
        )
    elif not client.token:
        raise SecretNotRead(f"Vault at {address} needs a login: {LOGINS}")
    return client


def _service_account() -> str:
    try:
        return SERVICE_ACCOUNT.read_text()
    except OSError as error:
        raise SecretNotRead(
            f"VAULT_KUBERNETES_ROLE logs in by {SERVICE_ACCOUNT}, which a pod has: {error.strerror}"
        ) from None


def _read_values(client: "hvac.Client", path: str) -> Mapping[str, Any]:
    # Where the store begins in a path, and which version it has, only the server knows.
    mount: Any = client.read(f"sys/internal/ui/mounts/{path}")
    about: Mapping[str, Any] = mount["data"] if mount else {"path": ""}
    begins = str(about["path"]).strip("/")
    versioned = (about.get("options") or {}).get("version") == "2"
    asked = f"{begins}/data/{path.removeprefix(begins).strip('/')}" if versioned else path
    answer: Any = client.read(asked)
    values = answer and (answer["data"]["data"] if versioned else answer["data"])
    if values is None:
        raise SecretNotRead(f"there is no {path} in Vault, or it was deleted")
    return dict(values)
