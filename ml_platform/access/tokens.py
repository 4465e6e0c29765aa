"""Tokens of a login: JWTs of one OIDC issuer, checked against the keys that it publishes."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt

from ml_platform.access.roles import Caller, Grant, parse_grant
from ml_platform.errors import AccessError, IssuerUnavailable, Unauthenticated

ALGORITHMS = ("RS256", "ES256", "EdDSA")
"""None of them symmetric: nobody signs with what the issuer publishes."""
REQUIRED = ("exp", "iss", "aud", "sub")
REMEMBERED_SECONDS = 60.0
"""A signature once checked is not checked again for so long."""
MOST_REMEMBERED = 10_000
FETCH_SECONDS = 5.0
"""Least time between two fetches, whatever keys tokens claim to be signed with."""
STALE_SECONDS = 300.0
"""Keys are fetched again after so long, so that a withdrawn one is not trusted for ever."""


@dataclass(frozen=True)
class Issuer:
    """Whose tokens are taken, and what their claims grant."""

    name: str
    audience: str
    keys: str
    """JWKS: an `https://` URL, or a file."""
    claim: str = "roles"
    grants: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Grants `role@use_case` by value of the claim; empty where the values are grants."""
    leeway_seconds: float = 30.0

    def __post_init__(self) -> None:
        url = urlsplit(self.keys)
        if url.scheme == "http" and not is_loopback(url.hostname or ""):
            raise AccessError(
                f"{self.keys}: keys that are fetched without TLS can be anybody's; use https://"
            )
        for texts in self.grants.values():
            for text in texts:
                parse_grant(text)

    def grants_of(self, claims: Mapping[str, Any]) -> frozenset[Grant]:
        """What a token's claims grant; values that mean nothing here grant nothing."""
        found: Any = claims
        for part in self.claim.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        values = found.split() if isinstance(found, str) else found
        granted = set()
        for value in values if isinstance(values, list) else []:
            texts = self.grants.get(str(value), ()) if self.grants else (str(value),)
            for text in texts:
                try:
                    granted.add(parse_grant(text))
                except AccessError:
                    continue
        return frozenset(granted)


class Tokens:
    """Checks tokens of one issuer; lives in one event loop."""

    def __init__(self, issuer: Issuer, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer, self._clock = issuer, clock
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched: float | None = None
        self._fetching = asyncio.Lock()
        self._remembered: dict[str, tuple[Caller, float, float]] = {}

    async def caller(self, token: str) -> Caller:
        """Whose token it is; Unauthenticated where it is none to trust, IssuerUnavailable."""
        known = self._remembered.get(token)
        if known is not None:
            caller, until, expires = known
            if self._clock() < until and time.time() < expires:
                return caller
            del self._remembered[token]
        claims = self._checked(token, await self._key_of(token))
        subject = str(claims["sub"])
        caller = Caller(
            subject,
            self._issuer.grants_of(claims),
            principal=f"token:{self._issuer.name}#{subject}",
            expires_at=datetime.fromtimestamp(float(claims["exp"]), UTC),
        )
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        expires = float(claims["exp"]) + self._issuer.leeway_seconds
        self._remembered[token] = (caller, self._clock() + REMEMBERED_SECONDS, expires)
        return caller

    def _checked(self, token: str, key: jwt.PyJWK) -> Mapping[str, Any]:
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                issuer=self._issuer.name,
                audience=self._issuer.audience,
                leeway=self._issuer.leeway_seconds,
                options={"require": list(REQUIRED)},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"the token is not taken: {error}") from None
        return claims

    async def _key_of(self, token: str) -> jwt.PyJWK:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"neither a key nor a token: {error}") from None
        if header.get("alg") not in ALGORITHMS:
            raise Unauthenticated(
                f"tokens signed by {str(header.get('alg'))[:20]} are not taken; taken are: "
                f"{', '.join(ALGORITHMS)}"
            )
        name = header.get("kid")
        key = None if self._age() > STALE_SECONDS else self._named(name)
        if key is None:
            await self._fetch()
            key = self._named(name)
        if key is None:
            raise Unauthenticated("the token is signed by a key that its issuer does not publish")
        return key

    def _named(self, name: object) -> jwt.PyJWK | None:
        if name is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(name) if isinstance(name, str) else None

    def _age(self) -> float:
        return float("inf") if self._fetched is None else self._clock() - self._fetched

    async def _fetch(self) -> None:
        async with self._fetching:
            if self._age() < FETCH_SECONDS:
                return
            try:
                self._keys = _usable(await self._read())
            except (httpx.HTTPError, OSError, ValueError, jwt.PyJWTError) as error:
                # Keys known already are better than none: an issuer may be unavailable for a while.
                if not self._keys:
                    raise IssuerUnavailable(f"keys of {self._issuer.name}: {error}") from None
            finally:
                self._fetched = self._clock()

    async def _read(self) -> Any:
        if urlsplit(self._issuer.keys).scheme in {"http", "https"}:
            async with httpx.AsyncClient(timeout=FETCH_SECONDS) as client:
                answer = await client.get(self._issuer.keys)
                return answer.raise_for_status().json()
        return json.loads(await asyncio.to_thread(Path(self._issuer.keys).read_text))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine and nobody else can reach it."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _usable(document: Any) -> dict[str | None, jwt.PyJWK]:
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("this is no JWKS")
    keys: dict[str | None, jwt.PyJWK] = {}
    for each in listed:
        try:
            key = jwt.PyJWK.from_dict(each)
        except jwt.PyJWTError:
            # Of a kind that is not known here; others of the set may be.
            continue
        if key.public_key_use in {None, "sig"} and key.algorithm_name in ALGORITHMS:
            keys[key.key_id] = key
    return keys
