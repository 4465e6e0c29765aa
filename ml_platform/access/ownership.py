"""Marks that say whom something was answered to: they stand in ids, so that nothing is looked up.

A mark is a short MAC under a secret that all processes of a deployment share. It is made by the
first of them that needs it and kept in the lake, where keys are: whoever can read the lake could
forge marks, and could read what they are about anyway.
"""

import hashlib
import hmac
import secrets
import threading

import duckdb

from ml_platform.errors import TableNotFound
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import PLATFORM
from ml_platform.storage import Commit, Lake, Table
from ml_platform.storage.tables import ensure_table

SECRET_BYTES = 32
MARK_BYTES = 8
"""Whoever guesses at marks has one chance in 2^64 a request."""

_TABLE = Table(PLATFORM, "ownership_secrets", {"secret": "VARCHAR"}, order=("secret",))


class Ownership:
    """Makes marks and checks them; threads may share one. Without a secret there are none."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._secret: bytes | None = None
        self._snapshot: int | None = None
        self._refreshing = threading.Lock()

    def refresh(self) -> None:
        """Read the secret where the lake has changed, and make it where there is none.

        Raises LakeError, and the secret that is known stays.
        """
        with self._refreshing, self._lake.cursor() as cursor:
            snapshot = self._lake.snapshot(cursor)
            if snapshot == self._snapshot:
                return
            found = _read(self._lake, cursor) or _make(self._lake, cursor)
            self._secret, self._snapshot = bytes.fromhex(found), snapshot

    def mark(self, principal: str, text: str) -> str | None:
        """The mark of a text that a caller is answered: hexadecimal digits; None without a secret.

        principal: which caller, as `Caller.principal` says.
        """
        if self._secret is None:
            return None
        # The length says where the one ends and the other begins.
        message = f"{len(principal)}:{principal}{text}".encode()
        return hashlib.blake2b(message, key=self._secret, digest_size=MARK_BYTES).hexdigest()

    def owns(self, principal: str, text: str, mark: str) -> bool:
        """Whether a mark is what that caller was given with that text."""
        known = self.mark(principal, text)
        return known is not None and hmac.compare_digest(known, mark)


def _read(lake: Lake, cursor: duckdb.DuckDBPyConnection) -> str | None:
    try:
        table = lake.relation(cursor, _TABLE.schema, _TABLE.name)
    except TableNotFound:
        return None
    row = cursor.execute(f"SELECT secret FROM {table}").fetchone()
    return None if row is None else str(row[0])


def _make(lake: Lake, cursor: duckdb.DuckDBPyConnection) -> str:
    """A new secret, or the one that another process has made meanwhile."""
    commit = Commit("serve", "", f"{_TABLE.schema}/{_TABLE.name}")
    ensure_table(lake, cursor, _TABLE, commit, partitioned=False)

    def make(transaction: duckdb.DuckDBPyConnection) -> bool:
        if _read(lake, transaction) is not None:
            return False
        secret = secrets.token_hex(SECRET_BYTES)
        transaction.execute(f"INSERT INTO {_TABLE.sql} VALUES ({literal(secret)})")
        return True

    lake.transact(cursor, commit, make)
    found = _read(lake, cursor)
    assert found is not None
    return found
