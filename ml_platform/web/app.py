"""The application of the pages: paths, and what answers them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ml_platform.errors import (
    PlatformError,
)
from ml_platform.settings import ServingSettings, Settings
from ml_platform.web import (
    answering,
    data,
    decisions,
    drift_reports,
    impacts,
    partitions,
    predictions,
    records,
    retraining,
    runs,
    use_case,
    versions,
)
from ml_platform.web.observer import Observer
from ml_platform.web.overview import overview
from ml_platform.web.rendering import headers
from ml_platform.web.responses import failed, in_parts, not_found, page
from ml_platform.web.site import PageNotFound, Site
from ml_platform.web.visitors import Visitors

SOON_SECONDS = 5
"""After which the first page is loaded again while use cases are still being read."""


class Pages:
    """All pages of a deployment; use cases are loaded once, when it is made.

    Starlette runs its methods in threads: they read the lake.
    """

    def __init__(self, settings: Settings, serving: ServingSettings | None = None) -> None:
        self.site = Site(settings)
        self.serving = serving or ServingSettings()
        self.visitors = Visitors(self.site, self.serving)
        self.observer = Observer(self.site)
        self.waiting = decisions.Approvals(self.site)
        self.evidently = drift_reports.EvidentlyPages(self.site)

    def overview(self, _request: Request) -> Response:
        """What needs somebody, and all use cases."""
        values = overview(self.site, self.observer)
        shown = page("overview.html", values)
        if values["waiting"]:
            shown.headers["Refresh"] = str(SOON_SECONDS)
        return shown

    def use_case(self, request: Request) -> Response:
        """One use case over time."""
        asked = request.query_params
        every_column = asked.get("columns") == "all"
        name = request.path_params["use_case"]
        before = asked.get("before")
        known = use_case.known(self.site, name, before)
        return in_parts(
            "use_case.html",
            known,
            lambda: use_case.use_case_page(self.site, self.observer, name, before, every_column),
        )

    def drift_reports(self, request: Request) -> Response:
        """All drift reports of a use case."""
        return page("drift_reports.html", drift_reports.listed(self.site, *_of(request)))

    def evidently_page(self, request: Request) -> Response:
        """Evidently's report of a partition."""
        # Evidently's page has scripts and styles of its own within it.
        allowed = {k: v for k, v in headers().items() if k != "Content-Security-Policy"}
        return HTMLResponse(self.evidently.draw(*_of(request)), headers=allowed)

    def drift(self, request: Request) -> Response:
        """The drift report of a partition."""
        known = partitions.drift_partition(self.site, *_of(request))
        return in_parts(
            "drift.html",
            known,
            lambda: partitions.drift_columns(self.site, known["case"], known["stored"]),
        )

    def performance(self, request: Request) -> Response:
        """The performance report of a partition."""
        asked = _of(request)
        known = partitions.require_performance(self.site, *asked)
        return in_parts(
            "performance.html", known, lambda: partitions.performance_partition(self.site, *asked)
        )

    def version(self, request: Request) -> Response:
        """The card of a model version."""
        name, version = request.path_params["use_case"], request.path_params["version"]
        known = versions.require_version(self.site, name, version)
        return in_parts(
            "version.html", known, lambda: versions.version_page(self.site, name, version)
        )

    def version_markdown(self, request: Request) -> Response:
        """The card as Markdown."""
        name, version = request.path_params["use_case"], request.path_params["version"]
        text = versions.version_markdown(self.site, name, version)
        return PlainTextResponse(text, media_type="text/markdown; charset=utf-8")

    def prediction(self, request: Request) -> Response:
        """What a prediction was made of."""
        return page("prediction.html", predictions.prediction_page(self.site, *_asked(request)))

    def impact(self, request: Request) -> Response:
        """What a file, a row, a correction or a model version touched."""
        return page("impact.html", impacts.impact_page(self.site, *_asked(request)))

    def impact_json(self, request: Request) -> Response:
        """The same as a document."""
        return JSONResponse(impacts.impact_json(self.site, *_asked(request)))

    async def approvals(self, request: Request) -> Response:
        """What waits for a person, in all use cases."""
        values = await run_in_threadpool(self.waiting.page)
        names = {each["case"].name for each in values["found"]}
        why_not = await self.visitors.why_not(request, "approve", names)
        for each in values["found"]:
            each["why_not"] = why_not[each["case"].name]
        return page("approvals.html", {**values, "asks_name": not self.visitors.have_to_log_in})

    async def answer(self, request: Request) -> Response:
        """A person's answer about a challenger."""
        by, caller, fields = await self.visitors.sent(request, "approve")
        name, version = request.path_params["use_case"], request.path_params["version"]
        done = await run_in_threadpool(
            answering.decide, self.site, name, version, by, caller, fields
        )
        return RedirectResponse(done, HTTPStatus.SEE_OTHER, headers())

    async def review_queue(self, request: Request) -> Response:
        """The next prediction that waits for a person."""
        name, by = request.path_params["use_case"], request.query_params.get("by", "")
        values = await run_in_threadpool(answering.review_page, self.site, name, by)
        why_not = await self.visitors.why_not(request, "label", [name])
        asks_name = not self.visitors.have_to_log_in
        return page("review.html", {**values, "why_not": why_not[name], "asks_name": asks_name})

    async def review(self, request: Request) -> Response:
        """A person's answer about a prediction."""
        by, caller, fields = await self.visitors.sent(request, "label")
        name = request.path_params["use_case"]
        then = await run_in_threadpool(
            answering.review, self.site, self.serving, name, by, caller, fields
        )
        return RedirectResponse(then, HTTPStatus.SEE_OTHER, headers())

    def runs(self, _request: Request) -> Response:
        """What Dagster works on."""
        return page("runs.html", runs.runs_page(self.site.settings))

    def rollouts(self, request: Request) -> Response:
        """What is tried beside the champion."""
        return page("rollouts.html", decisions.rollouts_page(self.site, *_of(request)))

    def retraining(self, request: Request) -> Response:
        """When challengers are trained, and what that would have done on history."""
        (name,) = _of(request)
        case = self.site.use_case(name)
        known = {"case": case, "policy": case.retrain}
        return in_parts(
            "retraining.html", known, lambda: retraining.retraining_page(self.site, name)
        )

    def costs(self, request: Request) -> Response:
        """What a use case took."""
        name, days = request.path_params["use_case"], request.query_params.get("days")
        return page("costs.html", records.costs_page(self.site, name, days))

    def audit(self, request: Request) -> Response:
        """Who did what."""
        return page("audit.html", records.audit_page(self.site, dict(request.query_params)))

    def rows(self, request: Request) -> Response:
        """The rows behind a diagram, or behind a partition's page."""
        parts = request.path_params
        case = self.site.use_case(parts["use_case"])
        table, key, form = parts["table"], parts.get("partition"), parts["form"]
        if table not in {"drift", "performance"} or form not in data.FORMATS:
            raise PageNotFound(PageNotFound.OTHER)
        window = self.site.window(case, key) if key else None
        found = data.report_rows(self.site.lake, case, f"{table}_report", window)
        name = "-".join(filter(None, (case.name, table, key)))
        return data.answer(found, form, name)


class KnownNames:
    """Middleware that answers requests to names of this machine and of the pages alone."""

    def __init__(self, app: ASGIApp, visitors: Visitors) -> None:
        self._app, self._visitors = app, visitors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (said := self._visitors.refused(Request(scope))):
            values = {"title": "This name is not known", "said": said}
            await page("problem.html", values, HTTPStatus.FORBIDDEN)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def build_app(pages: Pages) -> Starlette:
    """The application of the pages; while it runs, it reads use cases in the background."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        pages.observer.start()
        yield
        pages.observer.stop()
        pages.site.close()

    return Starlette(
        routes=[
            Route("/", pages.overview),
            Route("/approvals", pages.approvals),
            Route("/audit", pages.audit),
            Route("/runs", pages.runs),
            Route("/{use_case}/", pages.use_case),
            Route("/{use_case}/rollouts", pages.rollouts),
            Route("/{use_case}/review", pages.review_queue),
            Route("/{use_case}/review", pages.review, methods=["POST"]),
            Route("/{use_case}/versions/{version:int}/answer", pages.answer, methods=["POST"]),
            Route("/{use_case}/retraining", pages.retraining),
            Route("/{use_case}/costs", pages.costs),
            Route("/{use_case}/predictions", pages.prediction),
            Route("/{use_case}/impact", pages.impact),
            Route("/{use_case}/impact.json", pages.impact_json),
            Route("/{use_case}/versions/{version:int}", pages.version),
            Route("/{use_case}/versions/{version:int}.md", pages.version_markdown),
            Route("/{use_case}/drift/", pages.drift_reports),
            Route("/{use_case}/drift/{partition}.html", pages.evidently_page),
            Route("/{use_case}/{table}.{form}", pages.rows),
            Route("/{use_case}/{table}/{partition}.{form}", pages.rows),
            Route("/{use_case}/drift/{partition}", pages.drift),
            Route("/{use_case}/performance/{partition}", pages.performance),
        ],
        exception_handlers={
            PageNotFound: not_found,
            HTTPException: not_found,
            PlatformError: failed,
        },
        middleware=[
            Middleware(KnownNames, pages.visitors),
            # Diagrams are many points that are much alike: a tenth of the bytes.
            Middleware(GZipMiddleware, minimum_size=2_000, compresslevel=4),
        ],
        lifespan=lifespan,
    )


def serve_pages(settings: Settings, serving: ServingSettings, port: int) -> None:
    """Serve the pages on 127.0.0.1 until interrupted, which raises KeyboardInterrupt."""
    import uvicorn

    config = uvicorn.Config(
        build_app(Pages(settings, serving)),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        access_log=False,
    )
    # `uvicorn.run` would return as if nobody had interrupted it.
    uvicorn.Server(config).run()


def _of(request: Request) -> tuple[str, ...]:
    parts = request.path_params
    return tuple(parts[name] for name in ("use_case", "partition") if name in parts)


def _asked(request: Request) -> tuple[str, dict[str, str]]:
    return request.path_params["use_case"], dict(request.query_params)
