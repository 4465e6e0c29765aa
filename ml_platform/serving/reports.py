"""A small server of drift pages: lists what was reported, draws a page when it is asked for."""

import threading
from collections.abc import Mapping
from functools import partial
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote, urlsplit

from ml_platform.errors import (
    EmptyPartition,
    ModelNotFound,
    ModelRefused,
    NoChampion,
    PlatformError,
    TableNotFound,
)
from ml_platform.monitoring import StoredDrift, render_drift_html, stored_drift
from ml_platform.registry import Registry
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_cases
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake

STATUS: Mapping[type[PlatformError], HTTPStatus] = {
    EmptyPartition: HTTPStatus.NOT_FOUND,
    TableNotFound: HTTPStatus.NOT_FOUND,
    ModelNotFound: HTTPStatus.NOT_FOUND,
    NoChampion: HTTPStatus.NOT_FOUND,
    ModelRefused: HTTPStatus.CONFLICT,
}
"""HTTP status of an error; 500 of any other one."""

LATEST = 5
STYLE = (
    "body{font-family:sans-serif;margin:2em;max-width:70em}td,th{text-align:left;"
    "padding:.2em 1em .2em 0}"
)


class PageNotFound(Exception):
    """No page has this address; says what there is instead."""


class ReportServer:
    """The pages, without any HTTP; use cases are read once, when it is made."""

    def __init__(self, settings: Settings) -> None:
        self._lake = Lake(settings)
        self._registry = Registry(settings)
        self._loaded = load_use_cases(settings.use_cases, settings.databases)
        self._drawing = threading.Lock()

    def close(self) -> None:
        """Detach from the lake."""
        self._lake.close()

    def page(self, path: str) -> bytes:
        """The HTML at a path; PageNotFound, or the PlatformError that kept it from being made."""
        match [unquote(part) for part in urlsplit(path).path.split("/")[1:] if part]:
            case []:
                return self._front_page()
            case [name]:
                return self._windows(self._use_case(name))
            case [name, "drift", file] if file.endswith(".html"):
                return self._drift(self._use_case(name), file.removesuffix(".html"))
        raise PageNotFound(
            "There are /, /<use case>/ and /<use case>/drift/<partition>.html, nothing else."
        )

    def _use_case(self, name: str) -> UseCase:
        # Only names of loaded use cases and keys of partitions ever become part of a file's path.
        if name in self._loaded.broken:
            raise self._loaded.broken[name]
        if name not in self._loaded.use_cases:
            known = ", ".join(self._loaded.use_cases) or "none"
            raise PageNotFound(f"No use case is called '{name}'. There are: {known}.")
        return self._loaded.use_cases[name]

    def _drift(self, use_case: UseCase, key: str) -> bytes:
        try:
            window = use_case.calendar.window(key)
        except ValueError as error:
            raise PageNotFound(f"{use_case.name}: {error}.") from None
        # Drawing takes seconds of CPU and much memory: one at a time, the others wait.
        with self._drawing:
            return render_drift_html(self._lake, self._registry, use_case, window).read_bytes()

    def _front_page(self) -> bytes:
        parts = []
        for name, use_case in self._loaded.use_cases.items():
            reports = stored_drift(self._lake, use_case)
            parts.append(f'<h2><a href="/{name}/">{name}</a></h2><p>{escape(use_case.description)}')
            parts.append(f"</p>{_table(use_case, reports[-LATEST:])}")
        for name, errors in self._loaded.broken.items():
            parts.append(f"<h2>{escape(name)} is broken</h2><pre>{escape(str(errors))}</pre>")
        return _html("Drift reports", "".join(parts) or "<p>There are no use cases.</p>")

    def _windows(self, use_case: UseCase) -> bytes:
        table = _table(use_case, stored_drift(self._lake, use_case))
        return _html(f"{use_case.name}: drift reports", f'{table}<p><a href="/">All use cases</a>')


def serve_reports(settings: Settings, port: int) -> None:
    """Serve drift pages on 127.0.0.1 until interrupted."""
    with make_server(settings, port) as server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, pages: ReportServer, port: int) -> None:
        self._pages = pages
        super().__init__(("127.0.0.1", port), partial(_Handler, pages))

    def server_close(self) -> None:
        super().server_close()
        self._pages.close()


def make_server(settings: Settings, port: int) -> ThreadingHTTPServer:
    """The server, listening but not yet answering; port 0 takes a free one."""
    return _Server(ReportServer(settings), port)


class _Handler(BaseHTTPRequestHandler):
    server_version = "reports"

    def __init__(self, pages: ReportServer, *arguments: object) -> None:
        self._pages = pages
        super().__init__(*arguments)  # type: ignore[arg-type]  # the three that socketserver gives

    def do_GET(self) -> None:
        status, body = self._answer()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-cache")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self) -> tuple[HTTPStatus, bytes]:
        try:
            return HTTPStatus.OK, self._pages.page(self.path)
        except PageNotFound as error:
            return HTTPStatus.NOT_FOUND, _html("No such page", f"<p>{escape(str(error))}</p>")
        except PlatformError as error:
            status = STATUS.get(type(error), HTTPStatus.INTERNAL_SERVER_ERROR)
            return status, _html("No report", f"<pre>{escape(str(error))}</pre>")


def _table(use_case: UseCase, reports: list[StoredDrift]) -> str:
    if not reports:
        return "<p>No drift report has been written yet.</p>"
    rows = []
    for report in reversed(reports):
        key = use_case.calendar.key(report.window)
        largest = "" if report.largest_score is None else f"{report.largest_score:.3f}"
        share = f"{len(report.drifted)} of {report.judged}" if report.judged else "not judged"
        columns = escape(", ".join(report.drifted))
        rows.append(
            f'<tr><td><a href="/{use_case.name}/drift/{quote(key, safe="")}.html">{escape(key)}</a>'
            f"</td><td>{share}</td><td>{largest}</td><td>{report.version}</td><td>{columns}</td>"
            "</tr>"
        )
    head = "<tr><th>partition<th>drifted<th>largest score<th>against version<th>columns</tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _html(title: str, content: str) -> bytes:
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        f"<style>{STYLE}</style><h1>{escape(title)}</h1>{content}</html>"
    ).encode()
