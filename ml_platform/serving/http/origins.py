"""Requests that a page of somebody else has a browser send: rejected.

Where nobody has to say who he is, a browser on this machine is as good as its user: a page that is
open in it could roll production back, or under a name that it has led here read what is asked.
"""

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from ml_platform.access.tokens import is_loopback
from ml_platform.errors import OriginRefused, RequestError, UnsupportedMedia
from ml_platform.serving.http.declared import PUBLIC_PATHS
from ml_platform.serving.http.problems import answer_error

READING = frozenset({"GET", "HEAD", "OPTIONS"})
JSON = "application/json"
HOSTS, ORIGINS = "ML_PLATFORM_SERVING_ALLOWED_HOSTS", "ML_PLATFORM_SERVING_ALLOWED_ORIGINS"


class SameOrigin:
    """Middleware for a service without authentication.

    hosts, origins: names that it may be called by besides those of this machine, and origins of
    pages that may ask it besides its own.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], origins: Collection[str]) -> None:
        self._app, self._hosts, self._origins = app, hosts, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in PUBLIC_PATHS:
            try:
                self._check(scope)
            except RequestError as error:
                scope.setdefault("state", {})["error_kind"] = type(error).__name__
                await answer_error(error, scope)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        host = _header(scope, b"host") or ""
        name = name_of(host) if host else "localhost"
        if not is_loopback(name) and name not in self._hosts:
            raise OriginRefused(
                "without authentication nobody may call this service "
                f"'{(name or host)[:60]}'; list the name in {HOSTS}"
            )
        if scope["method"] in READING:
            return
        origin = _header(scope, b"origin")
        if origin is not None and origin not in {f"{scope['scheme']}://{host}", *self._origins}:
            raise OriginRefused(
                f"a page of '{origin[:60]}' may not ask this; list the origin in {ORIGINS}"
            )


class JsonAlone:
    """One route, for bodies that a form of a page cannot send."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Of the methods that change something, a page may send this one without being asked.
        if scope["method"] == "POST":
            kind = (_header(scope, b"content-type") or "").partition(";")[0].strip().lower()
            if kind != JSON:
                raise UnsupportedMedia(
                    f"content type '{kind[:60]}' is not taken here; send {JSON} (curl --json)"
                )
        await self._app(scope, receive, send)


def _header(scope: Scope, name: bytes) -> str | None:
    """Of one that comes twice the first counts, here as everywhere."""
    return next((given.decode("latin-1") for key, given in scope["headers"] if key == name), None)


def name_of(host: str) -> str:
    """The name in a Host header; empty where it is no host.

    >>> name_of("Localhost:8080"), name_of("[::1]:8080"), name_of("[::1")
    ('localhost', '::1', '')
    """
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
