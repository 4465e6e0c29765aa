"""The API as a page that people read: openapi.json in plain HTML, without a script."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ml_platform.html import page_headers, page_templates

ADDRESS = "http://address.invalid"
"""Stands in the page for where the service was asked; a page is made once for all callers."""
SERVICE = "service"
"""Heading of what is about no use case in particular."""
HOST = re.compile(r"[A-Za-z0-9.\-]+(:[0-9]+)?|\[[0-9a-fA-F:.]+\](:[0-9]+)?")
LONGEST_LINE = 90
DEEPEST = 5
MOST_VALUES = 12
"""Allowed values that are listed."""


@dataclass(frozen=True)
class Field:
    """One line of a table: a parameter, or a property of a body."""

    name: str
    depth: int
    kind: str
    description: str
    is_required: bool


@dataclass(frozen=True)
class PageAnswer:
    """An answer as the page shows it."""

    status: str
    description: str
    media: str
    fields: list[Field]
    examples: Mapping[str, str]


@dataclass(frozen=True)
class Operation:
    """An operation as the page shows it."""

    id: str
    method: str
    path: str
    summary: str
    description: str
    permission: str
    parameters: list[Field]
    body: list[Field]
    curl: str
    answers: list[PageAnswer]
    problems: list[PageAnswer]


def write_page(document: Mapping[str, Any]) -> str:
    """The page of a document; `ADDRESS` stands in it for the service's own."""
    groups: dict[str, dict[str, list[Operation]]] = {}
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            *about, area = described["tags"]
            group = groups.setdefault(about[0] if about else SERVICE, {})
            operation = _operation(document, path, method.upper(), described)
            group.setdefault(area, []).append(operation)
    # What every service has comes last, after one use case and the other.
    ordered = sorted(groups.items(), key=lambda group: group[0] == SERVICE)
    return _template().render(
        info=document["info"],
        groups=dict(ordered),
        authentication="security" in document,
        style=style(),
    )


def headers() -> Mapping[str, str]:
    """Headers of the page."""
    return page_headers(style())


def address_of(scheme: str, host: str) -> str:
    """Where a caller has asked the service; what is no host is not repeated to them.

    >>> address_of("http", "localhost:8080"), address_of("http", "x;rm -rf")
    ('http://localhost:8080', 'http://localhost:8080')
    """
    return f"{scheme}://{host}" if HOST.fullmatch(host) else "http://localhost:8080"


@cache
def style() -> str:
    """The page's style sheet."""
    return _environment().get_template("docs.css").render()


@cache
def _template() -> jinja2.Template:
    return _environment().get_template("docs.html")


@cache
def _environment() -> jinja2.Environment:
    environment = page_templates("ml_platform.serving.http")
    environment.filters["code"] = _with_code
    return environment


def _with_code(text: str) -> Markup:
    """Text as HTML, with what stands between backticks as code.

    >>> str(_with_code("Needs `read` < all"))
    'Needs <code>read</code> &lt; all'
    """
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _operation(
    document: Mapping[str, Any], path: str, method: str, described: Mapping[str, Any]
) -> Operation:
    body = described.get("requestBody", {}).get("content", {}).get("application/json", {})
    answers: list[PageAnswer] = []
    problems: list[PageAnswer] = []
    for status, answer in described["responses"].items():
        shown = _shown(document, status, answer)
        is_problem = "application/problem+json" in answer["content"]
        (problems if is_problem else answers).append(shown)
    return Operation(
        id=described["operationId"],
        method=method,
        path=path,
        summary=described["summary"],
        description=described["description"],
        permission=described.get("x-permission", ""),
        parameters=[_parameter(each) for each in described["parameters"]],
        body=list(_fields(document, body.get("schema", {}))),
        curl=_curl(document, path, method, described, body),
        answers=answers,
        problems=problems,
    )


def _shown(document: Mapping[str, Any], status: str, answer: Mapping[str, Any]) -> PageAnswer:
    is_problem = "application/problem+json" in answer["content"]
    schema = next(iter(answer["content"].values()))["schema"]
    examples = {
        name: example["value"]["detail"]
        for content in answer["content"].values()
        for name, example in content.get("examples", {}).items()
    }
    media = ", ".join(answer["content"])
    fields = [] if is_problem else list(_fields(document, schema))
    return PageAnswer(status, answer["description"], media, fields, examples)


def _parameter(described: Mapping[str, Any]) -> Field:
    where = {"path": "path", "query": "query", "header": "header"}[described["in"]]
    kind = f"{where}, {_kind(described['schema'])}"
    return Field(
        described["name"], 0, kind, described.get("description", ""), described["required"]
    )


def _curl(
    document: Mapping[str, Any],
    path: str,
    method: str,
    described: Mapping[str, Any],
    body: Mapping[str, Any],
) -> str:
    examples = {each["name"]: each.get("example", "") for each in described["parameters"]}
    url = re.sub(r"{(\w+)}", lambda found: str(examples[found[1]]), path)
    parts = ["curl -s"]
    if method not in {"GET", "POST"}:
        parts.append(f"-X {method}")
    if "security" in document and described.get("security") != []:
        parts.append('-H "X-API-Key: $KEY"')
    if "example" in body:
        text = json.dumps(body["example"])
        if len(text) > LONGEST_LINE:
            text = json.dumps(body["example"], indent=2)
        parts.append(f"--json {shlex.quote(text)}")
    return " ".join([*parts, f"{ADDRESS}{url}"])


def _fields(
    document: Mapping[str, Any], schema: Mapping[str, Any], depth: int = 0
) -> Iterator[Field]:
    """The properties of a schema and of what is in them, top down."""
    schema = _resolved(document, schema)
    forms = schema.get("oneOf", [])
    for number, form in enumerate(forms):
        if number:
            yield Field("or", depth, "", "", False)
        yield from _fields(document, form, depth)
    required = schema.get("required", ())
    for name, given in schema.get("properties", {}).items():
        described = _resolved(document, given)
        description = given.get("description", described.get("description", ""))
        yield Field(name, depth, _kind(described), description, name in required)
        if depth < DEEPEST:
            yield from _fields(document, _inside(document, described), depth + 1)


def _inside(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the elements of a list are, and of a value that may be missing what it is."""
    schema = _resolved(document, schema)
    for each in schema.get("anyOf", ()):
        if each.get("type") != "null":
            return _inside(document, each)
    items = schema.get("items")
    return _inside(document, items) if isinstance(items, dict) else schema


def _resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _kind(schema: Mapping[str, Any]) -> str:
    """What a value can be, in a few words.

    >>> _kind({"type": ["number", "null"]}), _kind({"type": "array", "items": {"type": "string"}})
    ('number or null', 'list of string')
    >>> _kind({"enum": ["found", "expired"]}), _kind({"const": "trips"})
    ('"found" or "expired"', '"trips"')
    """
    if "$ref" in schema:
        return "object"
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        values = [json.dumps(value) for value in schema["enum"]]
        return " or ".join([*values[:MOST_VALUES], *(["…"] if values[MOST_VALUES:] else [])])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(each) for each in schema["anyOf"]))
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if "format" in schema:
        kinds = [schema["format"] if kind == "string" else kind for kind in kinds]
    if kinds[:1] == ["array"]:
        items = schema.get("items", {})
        kinds[0] = f"list of {_kind(items)}" if items else "list"
    return " or ".join(kinds) or "any value"
