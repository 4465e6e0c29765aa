"""The application of the pages: paths, and what is answered where there is no page."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from ml_platform.errors import (
    EmptyPartition,
    ModelNotFound,
    ModelRefused,
    NoChampion,
    PlatformError,
    TableNotFound,
)
from ml_platform.extras import NotInstalled
from ml_platform.settings import Settings
from ml_platform.web.drift import DriftPages, PageNotFound
from ml_platform.web.rendering import headers, render

STATUS: Mapping[type[PlatformError], HTTPStatus] = {
    EmptyPartition: HTTPStatus.NOT_FOUND,
    TableNotFound: HTTPStatus.NOT_FOUND,
    ModelNotFound: HTTPStatus.NOT_FOUND,
    NoChampion: HTTPStatus.NOT_FOUND,
    ModelRefused: HTTPStatus.CONFLICT,
    NotInstalled: HTTPStatus.NOT_IMPLEMENTED,
}
"""HTTP status of an error; 500 of any other one."""


def build_app(settings: Settings) -> Starlette:
    """All pages of a deployment; use cases are read once, when it is made."""
    pages = DriftPages(settings)

    # Starlette runs these in threads: they read the lake.
    def front(_request: Request) -> Response:
        return _page("front.html", pages.front())

    def use_case(request: Request) -> Response:
        return _page("use_case.html", pages.of(request.path_params["use_case"]))

    def drift(request: Request) -> Response:
        page = pages.drift(request.path_params["use_case"], request.path_params["partition"])
        # Evidently's page has scripts and styles of its own within it.
        allowed = {k: v for k, v in headers().items() if k != "Content-Security-Policy"}
        return HTMLResponse(page, headers=allowed)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        pages.close()

    return Starlette(
        routes=[
            Route("/", front),
            Route("/{use_case}/", use_case),
            Route("/{use_case}/drift/{partition}.html", drift),
        ],
        exception_handlers={
            PageNotFound: _not_found,
            HTTPException: _not_found,
            PlatformError: _failed,
        },
        lifespan=lifespan,
    )


def serve_pages(settings: Settings, port: int) -> None:
    """Serve the pages on 127.0.0.1 until interrupted, which raises KeyboardInterrupt."""
    import uvicorn

    config = uvicorn.Config(
        build_app(settings), host="127.0.0.1", port=port, log_level="warning", access_log=False
    )
    # `uvicorn.run` would return as if nobody had interrupted it.
    uvicorn.Server(config).run()


def _page(template: str, values: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Response:
    return HTMLResponse(render(template, values), status, headers=headers())


def _not_found(_request: Request, error: Exception) -> Response:
    said = str(error) if isinstance(error, PageNotFound) else PageNotFound.OTHER
    values = {"title": "No such page", "said": said}
    return _page("problem.html", values, HTTPStatus.NOT_FOUND)


def _failed(_request: Request, error: Exception) -> Response:
    found = (STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    status = next(found, HTTPStatus.INTERNAL_SERVER_ERROR)
    return _page("problem.html", {"title": "No report", "said": str(error)}, status)
