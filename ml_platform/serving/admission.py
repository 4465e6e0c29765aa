"""Who is let in: callers identified by key or token, and how often each of them may ask."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, ip_address, ip_network

from ml_platform.access import ANY, Caller, Grant, KeyRing
from ml_platform.access.keys import PREFIX
from ml_platform.access.tokens import Issuer, Tokens, is_loopback
from ml_platform.errors import AccessError, RateExceeded, RequestError, Unauthenticated
from ml_platform.settings import ServingSettings

NOBODY = Caller("anonymous", frozenset({Grant("admin", ANY)}), is_proved=False)
"""Whoever asks where authentication is off: somebody on this machine."""
UNASKED = Caller("anonymous", is_proved=False)
"""Anonymous callers, on paths that are open to everybody; they have no permissions."""
CALLER: ContextVar[Caller] = ContextVar("caller", default=UNASKED)
"""Who asks, for everything that is done for one request, whatever protocol brought it."""


LONGEST_ADDRESS = 60
"""What a proxy on this machine says of where a request came from can be of any length."""
MOST_NAMES = 10_000
"""Callers or addresses that are remembered; about a megabyte."""
IPV6_PREFIX = 64
"""Bits of an IPv6 address that one customer of a provider has: the rest are theirs to choose."""


class Rates:
    """How often each caller may ask, each with an allowance that fills up again steadily.

    Of more than `MOST_NAMES` those who asked longest ago are forgotten: their allowance is full.
    Source: the generic cell rate algorithm, ITU-T I.371; one number a caller.
    """

    def __init__(
        self, per_second: float | None, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = 0.0 if per_second is None else 1 / per_second
        self._slack = (burst - 1) * self._interval
        self._clock = clock
        # In the order in which they asked last.
        self._due: OrderedDict[str, float] = OrderedDict()

    def take(self, principal: str, name: str = "") -> None:
        """Count a request; RateExceeded, and it is not counted, where it comes too early.

        name: of the caller, for people, where the principal is none.
        """
        if wait := self.wait_seconds(principal):
            raise RateExceeded(
                f"{name or principal} asks more often than {1 / self._interval:g} times a second",
                wait,
            )

    def wait_seconds(self, name: str) -> int:
        """Count a request and return 0; where it comes too early, how long to wait instead."""
        if not self._interval:
            return 0
        now = self._clock()
        due = max(self._due.get(name, now), now)
        early = due - now - self._slack
        # Sums of floats: a request that comes exactly when it may is let in.
        if early > self._interval * 1e-6:
            return math.ceil(early)
        self._due[name] = due + self._interval
        self._due.move_to_end(name)
        if len(self._due) > MOST_NAMES:
            self._due.popitem(last=False)
        return 0


class Admission:
    """Identifies who asks and counts how often; for HTTP and gRPC alike.

    Raises AccessError where the settings would let anybody in, or say only half of what they have
    to.
    """

    def __init__(self, ring: KeyRing, settings: ServingSettings) -> None:
        check_exposure(settings)
        self.ring, self.on = ring, settings.authentication
        self._tokens = _tokens(settings)
        self._rates = Rates(settings.requests_per_second, settings.burst)
        self._failures = Rates(settings.failures_per_second, settings.failures_burst)

    async def admit(self, authorization: str | None, api_key: str | None) -> Caller:
        """Who asks, by what the request says of it.

        authorization: `Bearer` and a key or a token. Raises Unauthenticated, RateExceeded and
        IssuerUnavailable.
        """
        caller = await self._caller(authorization, api_key) if self.on else NOBODY
        self._rates.take(caller.identity, caller.name)
        return caller

    def refused(self, error: RequestError, address: str | None) -> RequestError:
        """What to answer whom `admit` has let down: the error, or that it was one too many.

        Counted are failed logins, by address. Who has a key is let in from the same address all
        the same: 256 random bits are not found by trying, and many callers share a proxy.
        """
        if not isinstance(error, Unauthenticated):
            return error
        wait = self._failures.wait_seconds(_network(address))
        if not wait:
            return error
        return RateExceeded("too many failed logins from your address", wait)

    async def _caller(self, authorization: str | None, api_key: str | None) -> Caller:
        if authorization is not None:
            scheme, _, text = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise Unauthenticated("the Authorization header should be `Bearer` and a key")
            text = text.strip()
        elif api_key is not None:
            text = api_key.strip()
        else:
            raise Unauthenticated(
                "say who you are: send `Authorization: Bearer <key>`, or the key as `X-API-Key`"
            )
        if self._tokens is None or text.startswith(f"{PREFIX}_"):
            return self.ring.caller(text, datetime.now(UTC))
        return await self._tokens.caller(text)


def with_address(caller: Caller, address: str | None) -> Caller:
    """A caller as records name them: whom nobody knows, by the address that they ask from.

    >>> with_address(NOBODY, "127.0.0.1").name, with_address(Caller("ada"), "127.0.0.1").name
    ('anonymous@127.0.0.1', 'ada')
    """
    if caller.is_proved or not address:
        return caller
    known = address[:LONGEST_ADDRESS]
    return replace(caller, name=f"{caller.name}@{known}", principal=f"address:{known}")


def _network(address: str | None) -> str:
    """What stands for an address where failures are counted.

    >>> _network("2001:db8::1") == _network("2001:db8::2"), _network("::ffff:10.1.2.3")
    (True, '10.1.2.3')
    """
    try:
        known = ip_address(address or "")
    except ValueError:
        # A socket in the file system, or a test's client.
        return address or ""
    if isinstance(known, IPv4Address):
        return str(known)
    if known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    return str(ip_network((known, IPV6_PREFIX), strict=False))


def check_exposure(settings: ServingSettings) -> None:
    """Raise AccessError where others could ask and nobody asks them who they are."""
    if not settings.authentication and not is_loopback(settings.host):
        raise AccessError(
            f"ML_PLATFORM_SERVING_HOST={settings.host} can be reached by others, and "
            "authentication is off: set ML_PLATFORM_SERVING_AUTHENTICATION=true and give each "
            "caller a key (`ml-platform keys create`), or listen on 127.0.0.1"
        )


def _tokens(settings: ServingSettings) -> Tokens | None:
    said = (settings.oidc_issuer, settings.oidc_audience, settings.oidc_keys)
    if not any(said):
        return None
    issuer, audience, keys = said
    if not issuer or not audience or not keys:
        raise AccessError(
            "tokens are checked by issuer, audience and keys: set ML_PLATFORM_SERVING_OIDC_ISSUER, "
            "_OIDC_AUDIENCE and _OIDC_KEYS, or none of them"
        )
    return Tokens(
        Issuer(
            issuer, audience, keys, settings.oidc_claim, settings.oidc_grants,
            settings.oidc_leeway_seconds,
        )
    )  # fmt: skip
