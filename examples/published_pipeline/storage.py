"""Azure Blob Storage, by Microsoft's emulator Azurite."""

import base64
import hashlib
import hmac
import os
import shutil
import urllib.request
from contextlib import ExitStack
from email.utils import formatdate
from pathlib import Path

from published_pipeline.processes import accepts, free_port, running

ACCOUNT = "devstoreaccount1"
# Known to everybody: that of the emulator.
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


def storage(root: Path, opened: ExitStack) -> dict[str, str]:
    """Settings of the lake's files and of landing: on Azurite, where that is installed."""
    program = shutil.which("azurite-blob")
    if program is None:
        return {}
    port = free_port()
    place = f"http://127.0.0.1:{port}/{ACCOUNT}"
    # DuckDB's client may speak a newer version than the emulator knows.
    command = [
        program,
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        str(port),
        "--silent",
        "--location",
        str(root / "azurite"),
        "--disableTelemetry",
        "--skipApiVersionCheck",
    ]
    log = root / "azurite.log"
    opened.enter_context(running(command, dict(os.environ), log, lambda: accepts(port)))
    for container in ("lake", "landing"):
        create_container(place, container)
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
        f"BlobEndpoint={place}"
    )
    return {
        "ML_PLATFORM_EXTENSIONS": "azure",
        "ML_PLATFORM_SECRETS_SQL": f"CREATE SECRET (TYPE azure, CONNECTION_STRING '{connection}')",
        "ML_PLATFORM_LAKE_FILES": "az://lake/files/",
        "ML_PLATFORM_LANDING": "az://landing",
    }


def create_container(place: str, container: str) -> None:
    """As the portal does it; the request is signed with the account's key."""
    stamps = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    lines = "".join(f"{name}:{value}\n" for name, value in stamps.items())
    signed = f"PUT{12 * chr(10)}{lines}/{ACCOUNT}/{ACCOUNT}/{container}\nrestype:container"
    mac = hmac.new(base64.b64decode(ACCOUNT_KEY), signed.encode(), hashlib.sha256).digest()
    headers = {**stamps, "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(mac).decode()}"}
    url = f"{place}/{container}?restype=container"
    request = urllib.request.Request(url, method="PUT", headers=headers)
    with urllib.request.urlopen(request, timeout=30):
        pass
