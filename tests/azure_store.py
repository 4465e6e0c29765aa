"""Azurite, Microsoft's emulator of Azure's Blob Storage, where this machine has it."""

import base64
import hashlib
import hmac
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

AZURITE = shutil.which("azurite-blob")
"""Comes with `npm install -g azurite@3.37`; older ones list files wrongly for deltalake."""
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Known to everybody: that of the emulator."""
VERSION = "2021-08-06"


@dataclass(frozen=True)
class BlobStore:
    """A running emulator with one account."""

    port: int

    @property
    def secret_sql(self) -> str:
        """What DuckDB reads and writes it with."""
        return (
            "CREATE SECRET (TYPE azure, CONNECTION_STRING 'DefaultEndpointsProtocol=http;"
            f"AccountName={ACCOUNT};AccountKey={KEY};"
            f"BlobEndpoint=http://127.0.0.1:{self.port}/{ACCOUNT}')"
        )

    def create(self, container: str) -> None:
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": VERSION}
        stamps = "".join(f"{name}:{value}\n" for name, value in headers.items())
        path = f"/{ACCOUNT}/{container}"
        signed = f"PUT{12 * chr(10)}{stamps}/{ACCOUNT}{path}\nrestype:container"
        digest = hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()
        headers["authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
        url = f"http://127.0.0.1:{self.port}{path}?restype=container"
        request = urllib.request.Request(url, method="PUT", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 201


@contextmanager
def azurite(folder: Path) -> Iterator[BlobStore]:
    """The emulator on a free port."""
    assert AZURITE is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [AZURITE, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder),
         # DuckDB's client may speak a newer version than the emulator knows.
         "--silent", "--disableTelemetry", "--skipApiVersionCheck"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, "Azurite ended"
                assert time.monotonic() < deadline, "Azurite did not come up"
                time.sleep(0.1)
        yield BlobStore(port)
    finally:
        process.terminate()
        process.wait(30)
