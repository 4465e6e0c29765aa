"""Who decides something on a page, and from which page."""

import asyncio
from collections.abc import Collection, Mapping
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request

from ml_platform.access import Caller, KeyRing, Permission
from ml_platform.access.tokens import is_loopback
from ml_platform.errors import (
    OriginRefused,
    RequestError,
    RequestRefused,
    RequestTooLarge,
)
from ml_platform.serving.admission import Admission, with_address
from ml_platform.serving.http.origins import name_of
from ml_platform.settings import ServingSettings
from ml_platform.web.site import Site

MOST_BYTES = 16_384
"""Of a form."""
LONGEST_NAME = 100


class Visitors:
    """Admits people as the service does: by its settings, with the same keys, tokens and roles."""

    def __init__(self, site: Site, serving: ServingSettings) -> None:
        self._admission = Admission(KeyRing(site.lake), serving)
        self._own = urlsplit(site.settings.pages_url).hostname

    @property
    def have_to_log_in(self) -> bool:
        """Whether people are who a token says; else they say their name themselves."""
        return self._admission.on

    async def caller(self, request: Request) -> Caller:
        """Who asks; raises Unauthenticated and what else `Admission.admit` does."""
        if self._admission.on:
            await asyncio.to_thread(self._admission.ring.refresh)
        address = request.client.host if request.client else None
        given = request.headers
        try:
            found = await self._admission.admit(given.get("authorization"), given.get("x-api-key"))
        except RequestError as error:
            raise self._admission.refused(error, address) from None
        return with_address(found, address)

    async def why_not(
        self, request: Request, permission: Permission, use_cases: Collection[str]
    ) -> dict[str, str]:
        """By use case, why whoever looks at a page may not do something; empty where they may."""
        try:
            caller = await self.caller(request)
        except RequestError as error:
            return dict.fromkeys(use_cases, str(error))
        return {name: _lacking(caller, permission, name) for name in use_cases}

    async def sent(
        self, request: Request, permission: Permission
    ) -> tuple[str, Caller, Mapping[str, str]]:
        """Who sent a form of a use case's page, by name and as a caller, and its fields.

        Raises OriginRefused where a page of somebody else sent it, Unauthenticated, Forbidden,
        RequestTooLarge, and RequestRefused where a name is missing.
        """
        self._require_own_page(request)
        caller = await self.caller(request)
        caller.require(permission, request.path_params["use_case"])
        fields = _fields(await _body(request))
        if self._admission.on:
            return caller.name, caller, fields
        name = fields.get("by", "").strip()
        if not name:
            raise RequestRefused("say who you are: the decision is recorded with your name", "by")
        return name[:LONGEST_NAME], caller, fields

    def refused(self, request: Request) -> str:
        """Why a request is not answered whatever it asks; empty where it is.

        A page of somebody else can lead its own name to this server, and read what is answered.
        """
        name = name_of(request.headers.get("host", "localhost"))
        if name == self._own or is_loopback(name):
            return ""
        return (
            f"Nobody calls these pages '{name[:60]}'. Where they are reached says the setting "
            "ML_PLATFORM_PAGES_URL."
        )

    def _require_own_page(self, request: Request) -> None:
        # Browsers send it with every form. With a proxy in front the scheme is another one.
        origin = request.headers.get("origin")
        if origin is None or urlsplit(origin).netloc != request.headers.get("host"):
            raise OriginRefused(
                "only a form of these pages decides something here; programs ask the service, or "
                "use the command line"
            )


def _lacking(caller: Caller, permission: Permission, use_case: str) -> str:
    try:
        caller.require(permission, use_case)
    except RequestError as error:
        return str(error)
    return ""


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise RequestTooLarge(f"a form has at most {MOST_BYTES} bytes")
    return bytes(body)


def _fields(body: bytes) -> dict[str, str]:
    """Fields of a form; of one that comes twice the last."""
    try:
        read = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=20, errors="strict")
    except ValueError:
        raise RequestRefused("this is no form") from None
    return {name: values[-1] for name, values in read.items()}
