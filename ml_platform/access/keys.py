"""API keys: shown once, stored hashed in the lake, expiring, revoked by a row more.

The lake is where every process of a deployment looks, on one machine or on many; the service
looks twice a second whether there is anything new and checks requests against what it has read,
so that a key costs a request microseconds, and still works while the lake is unavailable.

A secret is hashed by SHA-256 alone. Slow hashes protect passwords, which people choose and others
can guess; of 256 random bits nobody tries out a share worth mentioning, however fast the hash is.
"""

import hashlib
import hmac
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import duckdb

from ml_platform.access.audit import Action, Audit, Channel
from ml_platform.access.roles import Caller, Grant, parse_grant
from ml_platform.errors import AccessError, KeysUnread, TableNotFound, Unauthenticated
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import PLATFORM
from ml_platform.storage import Commit, Lake, Table
from ml_platform.storage.tables import ensure_table, naive_utc

PREFIX = "mlp"
"""How a key begins, by which scanners for leaked secrets find it."""
SECRET_BYTES = 32

_TABLE = Table(
    PLATFORM,
    "access_keys",
    {
        "id": "VARCHAR",
        "at": "TIMESTAMP",
        "by": "VARCHAR",
        "event": "VARCHAR",
        "name": "VARCHAR",
        "grants": "VARCHAR",
        "digest": "VARCHAR",
        "expires_at": "TIMESTAMP",
    },
    order=("at", "id"),
)


@dataclass(frozen=True)
class Key:
    """What is known of a key: everything but its secret."""

    id: str
    name: str
    grants: frozenset[Grant]
    digest: str
    """SHA-256 of the secret, in hexadecimal digits."""
    created_at: datetime
    created_by: str
    expires_at: datetime
    revoked_at: datetime | None = None
    revoked_by: str | None = None

    def state(self, now: datetime) -> str:
        """`valid`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "valid" if now < self.expires_at else "expired"


def create_key(
    lake: Lake,
    name: str,
    grants: Iterable[Grant],
    *,
    expires_at: datetime,
    created_by: str,
    commit: Commit,
    channel: Channel = "cli",
) -> tuple[Key, str]:
    """A new key, and the text of it that is shown this once; a row of the audit records it.

    Raises AccessError where it would permit nothing or has expired already.
    """
    given, now = frozenset(grants), datetime.now(UTC)
    if not name.strip() or not given:
        raise AccessError("a key needs a name and at least one role for a use case")
    if expires_at <= now:
        raise AccessError(f"a key that expires at {expires_at.isoformat()} has expired already")
    secret = secrets.token_urlsafe(SECRET_BYTES)
    key = Key(secrets.token_hex(6), name, given, _digest(secret), now, created_by, expires_at)
    action = Action(
        created_by, channel, "create key", "", f"key {key.id}",
        {"name": name, "grants": _grants_text(key)},
    )  # fmt: skip
    _append(lake, commit, key, "created", now, created_by, action)
    return key, f"{PREFIX}_{key.id}_{secret}"


def revoke_key(
    lake: Lake, key_id: str, *, revoked_by: str, commit: Commit, channel: Channel = "cli"
) -> Key:
    """Let a key be refused from now on; AccessError where there is none that could be.

    A row of the audit records it.
    """
    key = {key.id: key for key in list_keys(lake)}.get(key_id)
    if key is None:
        raise AccessError(f"there is no key '{key_id[:40]}'; `ml-platform keys list` shows all")
    if key.revoked_at is not None:
        raise AccessError(f"key {key_id} was revoked at {key.revoked_at.isoformat()} already")
    now = datetime.now(UTC)
    action = Action(revoked_by, channel, "revoke key", "", f"key {key.id}", {"name": key.name})
    _append(lake, commit, key, "revoked", now, revoked_by, action)
    return replace(key, revoked_at=now, revoked_by=revoked_by)


def list_keys(lake: Lake) -> list[Key]:
    """All keys, in the order in which they were made."""
    with lake.cursor() as cursor:
        return _read(lake, cursor)


class KeyRing:
    """The keys as they were last read; checking one takes no lock and asks nobody."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._keys: Mapping[str, Key] = {}
        self._snapshot: int | None = None
        self._refreshing = threading.Lock()

    def refresh(self) -> None:
        """Read the keys where the lake has changed; LakeError, and those known stay."""
        with self._refreshing, self._lake.cursor() as cursor:
            snapshot = self._lake.snapshot(cursor)
            if snapshot != self._snapshot:
                self._keys = {key.id: key for key in _read(self._lake, cursor)}
                self._snapshot = snapshot

    def caller(self, text: str, now: datetime) -> Caller:
        """Whose key a text is; Unauthenticated where it is none that is valid.

        Raises KeysUnread where the lake has not been read yet.
        """
        if self._snapshot is None:
            raise KeysUnread("keys have not been read yet, since the lake is unavailable", 1)
        prefix, _, rest = text.partition("_")
        key_id, _, secret = rest.partition("_")
        key = self._keys.get(key_id)
        # Which part of it was wrong is nobody's business who does not have the whole.
        same = key is not None and hmac.compare_digest(key.digest, _digest(secret))
        if key is None or not same or prefix != PREFIX:
            raise Unauthenticated("the key is not known here")
        if (state := key.state(now)) != "valid":
            raise Unauthenticated(f"key {key.id} is {state}; ask for another one")
        principal = f"key:{key.id}"
        return Caller(key.name, key.grants, principal=principal, expires_at=key.expires_at)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _grants_text(key: Key) -> str:
    return " ".join(sorted(str(grant) for grant in key.grants))


def _append(
    lake: Lake, commit: Commit, key: Key, event: str, at: datetime, by: str, action: Action
) -> None:
    texts = [by, event, key.name, _grants_text(key), key.digest]
    values = ", ".join(
        [
            literal(key.id),
            f"TIMESTAMP {literal(str(naive_utc(at)))}",
            *(literal(text) for text in texts),
            f"TIMESTAMP {literal(str(naive_utc(key.expires_at)))}",
        ]
    )
    with lake.cursor() as cursor:
        ensure_table(lake, cursor, _TABLE, commit, partitioned=False)
        lake.transact(
            cursor,
            replace(commit, also=Audit(lake).along(action)),
            lambda t: t.execute(f"INSERT INTO {_TABLE.sql} VALUES ({values})"),
        )


def _read(lake: Lake, cursor: duckdb.DuckDBPyConnection) -> list[Key]:
    try:
        table = lake.relation(cursor, _TABLE.schema, _TABLE.name)
    except TableNotFound:
        return []
    keys: dict[str, Key] = {}
    names = ", ".join(f'"{name}"' for name in _TABLE.columns)
    # A key is made before it is revoked, whatever the clocks of two machines say.
    for key_id, at, by, event, name, grants, digest, expires_at in cursor.execute(
        f"SELECT {names} FROM {table} ORDER BY event = 'revoked', \"at\", id"
    ).fetchall():
        if event == "created":
            granted = frozenset(parse_grant(text) for text in grants.split())
            keys[key_id] = Key(key_id, name, granted, digest, _aware(at), by, _aware(expires_at))
        elif key_id in keys and keys[key_id].revoked_at is None:
            keys[key_id] = replace(keys[key_id], revoked_at=_aware(at), revoked_by=by)
    return list(keys.values())


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)
