"""Keys: shown once, stored hashed, expiring, revoked at once."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_platform.access import Caller, Grant, Key, KeyRing, create_key, list_keys, revoke_key
from ml_platform.errors import AccessError, KeysUnread, Unauthenticated
from ml_platform.storage import Lake
from tests.trips_use_case import COMMIT, settings

NOW = datetime.now(UTC)
PREDICTOR = Grant("predictor", "trips")


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = Lake(settings(tmp_path))
    yield lake
    lake.close()


def make(lake: Lake, name: str = "web shop", days: float = 1) -> tuple[Key, str]:
    return create_key(
        lake, name, [PREDICTOR], expires_at=datetime.now(UTC) + timedelta(days=days),
        created_by="ada", commit=COMMIT,
    )  # fmt: skip


def ring(lake: Lake) -> KeyRing:
    made = KeyRing(lake)
    made.refresh()
    return made


def test_a_key_shows_whose_it_is(lake: Lake) -> None:
    key, text = make(lake)
    assert ring(lake).caller(text, NOW) == Caller(
        "web shop",
        frozenset({PREDICTOR}),
        principal=f"key:{key.id}",
        expires_at=key.expires_at,
    )


def test_no_secret_is_stored(lake: Lake, tmp_path: Path) -> None:
    _, text = make(lake)
    secret = text.split("_", 2)[2].encode()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert files
    assert not any(secret in file.read_bytes() for file in files)


@pytest.mark.parametrize("change", ["", "x", "mlp", "mlp__", "mlp_0_x", "{}x", "{}\x00", "ä{}"])
def test_what_is_no_key_is_refused(lake: Lake, change: str) -> None:
    _, text = make(lake)
    with pytest.raises(Unauthenticated, match="not known here"):
        ring(lake).caller(change.format(text), NOW)


def test_a_key_with_the_secret_of_another_is_refused(lake: Lake) -> None:
    (one, _), (_, other) = make(lake), make(lake)
    with pytest.raises(Unauthenticated):
        ring(lake).caller(f"mlp_{one.id}_{other.split('_', 2)[2]}", NOW)


def test_a_key_ends_when_it_expires(lake: Lake) -> None:
    key, text = make(lake)
    held = ring(lake)
    held.caller(text, key.expires_at - timedelta(seconds=1))
    with pytest.raises(Unauthenticated, match="expired"):
        held.caller(text, key.expires_at)


def test_a_revoked_key_is_refused_at_the_next_look(lake: Lake) -> None:
    (key, text), (_, kept) = make(lake), make(lake)
    held = ring(lake)
    held.caller(text, NOW)
    revoke_key(lake, key.id, revoked_by="bob", commit=COMMIT)
    held.refresh()
    with pytest.raises(Unauthenticated, match="revoked"):
        held.caller(text, NOW)
    held.caller(kept, NOW)
    assert [each.revoked_by for each in list_keys(lake)] == ["bob", None]


def test_a_key_is_revoked_once(lake: Lake) -> None:
    key, _ = make(lake)
    revoke_key(lake, key.id, revoked_by="bob", commit=COMMIT)
    with pytest.raises(AccessError, match="already"):
        revoke_key(lake, key.id, revoked_by="bob", commit=COMMIT)
    with pytest.raises(AccessError, match="no key 'nope'"):
        revoke_key(lake, "nope", revoked_by="bob", commit=COMMIT)


def test_a_key_that_could_do_nothing_is_not_made(lake: Lake) -> None:
    with pytest.raises(AccessError, match="at least one role"):
        create_key(lake, "x", [], expires_at=NOW + timedelta(1), created_by="ada", commit=COMMIT)
    with pytest.raises(AccessError, match="expired already"):
        make(lake, days=-1)


def test_nobody_learns_that_a_key_is_none_before_the_keys_were_read(lake: Lake) -> None:
    with pytest.raises(KeysUnread):
        KeyRing(lake).caller("mlp_1_2", NOW)
