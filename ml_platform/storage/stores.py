"""Folders of lakes that others own: on disk, in S3 or in Azure, and what opens them.

DuckDB, deltalake and pyiceberg each call the same few options by names of their own.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import duckdb

from ml_platform.spec.queries import literal, quote
from ml_platform.spec.values import suggest
from ml_platform.storage.connection_strings import words_of
from ml_platform.storage.extensions import load_extension

FIRST_WORD = re.compile(r"\s*('(?:[^'\\]|\\.)*'|\S+)")
S3, AZURE = "s3", "az"
OPTIONS = {
    "": frozenset[str](),
    S3: frozenset({"key_id", "secret", "session_token", "region", "endpoint"}),
    AZURE: frozenset({"account", "account_key", "endpoint"}),
}
"""Options of a location, by the scheme of its URL."""
DELTA_NAMES = {
    S3: {
        "key_id": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY", "region": "AWS_REGION",
        "session_token": "AWS_SESSION_TOKEN", "endpoint": "AWS_ENDPOINT_URL",
    },
    AZURE: {
        "account": "AZURE_STORAGE_ACCOUNT_NAME", "account_key": "AZURE_STORAGE_ACCOUNT_KEY",
        "endpoint": "AZURE_STORAGE_ENDPOINT",
    },
}  # fmt: skip
PATIENCE = {"max_retries": "2", "retry_timeout": "15s", "connect_timeout": "5s"}
"""How long deltalake itself tries to reach a store."""
ICEBERG_NAMES = {
    S3: {
        "key_id": "s3.access-key-id", "secret": "s3.secret-access-key", "region": "s3.region",
        "session_token": "s3.session-token", "endpoint": "s3.endpoint",
    },
    AZURE: {"account": "adls.account-name", "account_key": "adls.account-key"},
}  # fmt: skip


@dataclass(frozen=True)
class Store:
    """A folder, or a prefix of an object store, and the options that open it."""

    location: str
    """An absolute path, or a URL, without a slash at its end."""
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def scheme(self) -> str:
        """`s3`, `az`, or nothing for a folder of this machine."""
        return self.location.partition("://")[0] if "://" in self.location else ""

    def at(self, *parts: str) -> str:
        """The path or URL of something below."""
        return "/".join((self.location, *parts))

    def open(self, cursor: duckdb.DuckDBPyConnection, name: str) -> None:
        """Let DuckDB read and write it.

        name: of the lake; that of the secret, which DuckDB never shows.
        """
        if self.scheme:
            load_extension(cursor, "httpfs" if self.scheme == S3 else "azure")
        if self.options:
            scope = f"SCOPE {literal(self.location)}"
            secret = self._s3_secret() if self.scheme == S3 else self._azure_secret()
            cursor.execute(
                f"CREATE OR REPLACE SECRET {quote(f'store of {name}')} ({secret}, {scope})"
            )

    @property
    def delta_options(self) -> dict[str, str]:
        """As deltalake calls them."""
        names = DELTA_NAMES.get(self.scheme, {})
        found = {names[name]: value for name, value in self.options.items()}
        if self._endpoint.startswith("http:"):
            found["allow_http"] = "true"
        # Whoever asks waits for a store that is unavailable, as for any other server.
        return {**found, **PATIENCE} if self.scheme else found

    @property
    def _endpoint(self) -> str:
        return self.options.get("endpoint", "")

    def _s3_secret(self) -> str:
        given = {"key_id": "KEY_ID", "secret": "SECRET", "session_token": "SESSION_TOKEN",
                 "region": "REGION"}  # fmt: skip
        parts = ["TYPE s3"]
        parts += [f"{given[n]} {literal(v)}" for n, v in self.options.items() if n in given]
        if self._endpoint:
            address = urlsplit(self._endpoint)
            parts += [
                f"ENDPOINT {literal(address.netloc + address.path.rstrip('/'))}",
                "URL_STYLE 'path'",
                f"USE_SSL {'false' if address.scheme == 'http' else 'true'}",
            ]
        return ", ".join(parts)

    def _azure_secret(self) -> str:
        return f"TYPE azure, CONNECTION_STRING {literal(azure_connection(self.options))}"


def iceberg_properties(given: Mapping[str, str]) -> dict[str, str]:
    """Properties of a catalog, of which those of its object store may be called as options are.

    >>> iceberg_properties({"uri": "sqlite:///c", "warehouse": "s3://lakes", "region": "eu"})
    {'uri': 'sqlite:///c', 'warehouse': 's3://lakes', 's3.region': 'eu'}
    """
    in_azure = "account" in given
    names = ICEBERG_NAMES[AZURE if in_azure else S3]
    found = {names.get(name, name): value for name, value in given.items()}
    if in_azure and found.pop("endpoint", ""):
        found["adls.connection-string"] = azure_connection(given)
    return found


def azure_connection(options: Mapping[str, str]) -> str:
    """A connection string as Azure's own libraries read it."""
    endpoint = options.get("endpoint", "")
    scheme = endpoint.partition("://")[0] or "https"
    words = [f"DefaultEndpointsProtocol={scheme}", f"AccountName={options.get('account', '')}"]
    if key := options.get("account_key"):
        words.append(f"AccountKey={key}")
    words.append(f"BlobEndpoint={endpoint}" if endpoint else "EndpointSuffix=core.windows.net")
    return ";".join(words)


def store_of(where: str) -> Store:
    """The store that `<folder or URL> [option=value …]` names.

    Raises ValueError where it names none; values of options are never part of the message.

    >>> store_of("s3://lakes/shared/ region=eu-central-1")
    Store(location='s3://lakes/shared', options={'region': 'eu-central-1'})
    """
    first = FIRST_WORD.match(where)
    if first is None:
        raise ValueError("does not say where it is: a folder, or a URL such as s3://bucket/folder")
    location = first[1]
    if location.startswith("'"):
        location = re.sub(r"\\(.)", r"\1", location[1:-1])
    store = Store(location.rstrip("/"), words_of(where[first.end() :].strip()))
    if store.scheme not in OPTIONS:
        raise ValueError(f"'{store.scheme}://' is not read; it may be s3://, az:// or a folder")
    if not store.scheme and not PurePosixPath(location).is_absolute():
        raise ValueError(f"'{location}' is not an absolute path")
    for name in store.options:
        if name not in OPTIONS[store.scheme]:
            known = OPTIONS[store.scheme]
            hint = suggest(name, known) or f"; there are {', '.join(sorted(known)) or 'none'}"
            raise ValueError(f"no option '{name}' of {store.location}{hint}")
    return store
