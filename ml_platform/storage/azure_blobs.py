"""Files that appear in Azure's storage as a whole."""

from pathlib import Path
from urllib.parse import urlsplit

from ml_platform.storage.stores import Store, azure_connection


def upload(store: Store, url: str, file: Path) -> None:
    """Put a file in place of an object: a reader finds the old one or the new one.

    Raises ImportError where the package is not installed, ValueError where the options of the store
    do not say whose it is, and what the package raises.
    """
    from azure.storage.blob import BlobClient

    if "account" not in store.options:
        raise ValueError(f"no option 'account' of {store.location}; files cannot be put there")
    address = urlsplit(url)
    client = BlobClient.from_connection_string(
        azure_connection(store.options), address.netloc, address.path.lstrip("/"),
        # What is unavailable is waited for by whoever asks.
        retry_total=1,
    )  # fmt: skip
    with client, file.open("rb") as stream:
        client.upload_blob(stream, overwrite=True)
