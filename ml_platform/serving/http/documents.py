"""What the service says of itself: openapi.json, and the same as a page."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ml_platform.serving.http.endpoints import JSON, Answer, Endpoint, Need, endpoint
from ml_platform.serving.http.openapi import describe
from ml_platform.serving.http.page import ADDRESS, address_of, headers, write_page
from ml_platform.serving.http.samples import ask_for
from ml_platform.serving.known_rows import KnownRows
from ml_platform.serving.lookup import Row
from ml_platform.serving.versions.live import LiveVersions

MOST_KEPT = 32
"""Descriptions that are kept: callers who may read different use cases have different ones."""
TAG = "operations"


@dataclass(frozen=True)
class ApiDocument:
    """A description, written once in each form that somebody asks for."""

    document: dict[str, Any]

    @cached_property
    def encoded(self) -> bytes:
        return msgspec.json.encode(self.document)

    @cached_property
    def page(self) -> str:
        return write_page(self.document)


@dataclass(frozen=True)
class Documents:
    """Handlers of descriptions of the service."""

    live: LiveVersions
    endpoints: Sequence[Endpoint]
    authentication: bool
    known_rows: KnownRows
    _kept: dict[Any, ApiDocument] = field(default_factory=dict)

    @endpoint(
        "GET", "/openapi.json",
        needs=Need("read", "some"),
        summary="This description",
        answers={200: Answer(dict[str, Any])},
        tag=TAG,
    )  # fmt: skip
    async def openapi(self, request: Request) -> Response:
        """The description for programs."""
        described = await self._described(request)
        return Response(described.encoded, media_type=JSON)

    @endpoint(
        "GET", "/", "/docs",
        needs=Need("read", "some"),
        summary="This description as a page",
        answers={200: Answer(str, media=("text/html",))},
        tag=TAG,
    )  # fmt: skip
    async def docs(self, request: Request) -> Response:
        """The description for people."""
        address = address_of(request.scope["scheme"], request.headers.get("host", ""))
        described = await self._described(request)
        page = await asyncio.to_thread(lambda: described.page)
        return HTMLResponse(page.replace(ADDRESS, address), headers=headers())

    async def _described(self, request: Request) -> ApiDocument:
        # The document has an example of each use case: nobody sees those of others.
        readable = request.scope["caller"].those_where("read", self.live.names)
        champions = [self.live.of(name).champion for name in readable]
        rows = await self.known_rows.of(readable)
        # Examples name the newest partition, and none is shorter than an hour.
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        versions = tuple(each and each.version for each in champions)
        known = (readable, versions, hour, msgspec.json.encode(rows))
        if known not in self._kept:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            self._kept[known] = await asyncio.to_thread(self._made, readable, rows)
        return self._kept[known]

    def _made(self, names: Sequence[str], rows: Mapping[str, Row]) -> ApiDocument:
        document = describe(self.live, names, self.endpoints, authentication=self.authentication)
        ask_for(document, rows)
        return ApiDocument(document)
