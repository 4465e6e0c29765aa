"""Passwords that stand in settings, and texts without them."""

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pydantic import ValidationError

from ml_platform.errors import PlatformError
from ml_platform.settings import Settings

MASK = "***"
SECRET = frozenset(
    {"alerts", "celery_broker", "databases", "endpoints", "log_secret", "secrets_sql"}
)
"""Settings that hold passwords."""
SHORTEST = 3
"""A password that is shorter is replaced where its form shows that it is one, and nowhere else."""
# As libpq reads it: a value is quoted, with a backslash before what would end it, or one word.
KEYWORD = re.compile(r"(?i)\b((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s'\"]+)")
# An option of a driver may hold a whole connection string, quoted once more.
NESTED = re.compile(r"\b[\w.]+\s*=\s*'((?:[^'\\]|\\.)*)'")
# Or an address, as it is.
BARE = re.compile(r"\b[\w.-]+\s*=\s*([^\s'\"]+://[^\s'\"]+)")
WITH_OPTIONS = ("adbc:", "delta:", "iceberg:", "parquet:")
SECRET_OPTION = re.compile(
    r"(?i)\b[\w.]*(?:passwd|pwd|token|secret|credential|[_-]key)\s*=\s*('(?:[^'\\]|\\.)*'|[^\s'\"]+)"
)
USERINFO = re.compile(r"(?<=://)([^\s/@:'\"]*):([^\s/@'\"]+)@")
SECRET_QUERY = re.compile(
    r"(?i)([?&;](?:password|passwd|pwd|token|secret|sig|signature|key)=)([^&\s'\"]+)"
)
SECRET_WORDS = frozenset({"password", "passwd", "pwd", "token", "secret", "sig", "key"})
SQL_TEXT = re.compile(r"'((?:[^']|'')*)'")
# What a `CREATE SECRET` says besides: `TYPE s3, ENDPOINT '…', REGION '…'`.
OPEN_OPTION = re.compile(
    r"(?i)\b(type|provider|scope|endpoint|region|url_style|use_ssl|url_compatibility_mode|"
    r"account_name|host|port|user|database|chain|profile)\s*[:=]?\s*$"
)


def masked(text: str, settings: Settings) -> str:
    """A text without any password of the settings, and without what has the form of one.

    >>> masked("no route to postgresql://ada:hush@db/lake", Settings())
    'no route to postgresql://ada:***@db/lake'
    """
    for secret in secrets_of(settings):
        text = text.replace(secret, MASK)
    text = KEYWORD.sub(rf"\1{MASK}", text)
    text = USERINFO.sub(rf"\1:{MASK}@", text)
    return SECRET_QUERY.sub(rf"\1{MASK}", text)


@contextmanager
def named_variables(prefix: str) -> Iterator[None]:
    """Around the making of settings: PlatformError names the variable that is wrong.

    prefix: what the variables of these settings begin with.
    """
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        variable = f"{prefix}{'_'.join(str(part) for part in first['loc'])}".upper()
        # What stands where a password may is not repeated.
        secret = first["loc"] and str(first["loc"][0]).lower() in SECRET
        shown = MASK if secret else first["input"]
        raise PlatformError(f"{variable}={shown}: {first['msg']}") from None


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """Every password in settings, in each of the ways in which it may be written; longest first."""
    plain = {
        secret
        for address in _addresses(settings)
        for secret in _of_address(address)
        if len(secret) >= SHORTEST
    }
    if settings.secrets_sql is not None:
        plain |= set(_of_sql(settings.secrets_sql.get_secret_value()))
    plain |= set(_of_endpoints(settings))
    if settings.alerts is not None:
        plain |= set(_of_alerts(settings.alerts.get_secret_value()))
    written = {form for secret in plain for form in _forms(secret) if len(form) >= SHORTEST}
    return tuple(sorted(written, key=len, reverse=True))


def _addresses(settings: Settings) -> Iterator[str]:
    for text in (
        settings.catalog, settings.lake_files, settings.landing, settings.online_store,
        settings.mlflow_tracking_uri, settings.mlflow_artifacts, settings.dagster_url,
        settings.pages_url,
    ):  # fmt: skip
        if text:
            yield text
    for secret in (*settings.databases.values(), settings.celery_broker, settings.spark_remote):
        if secret:
            yield secret.get_secret_value()
    for endpoint in settings.endpoints.values():
        if endpoint.url:
            yield endpoint.url


def _of_address(address: str) -> Iterator[str]:
    """Passwords of `kind:host=… password=…`, `scheme://user:password@host?password=…`."""
    for _, value in KEYWORD.findall(address):
        yield _plain(value)
    if address.startswith(WITH_OPTIONS):
        yield from map(_plain, SECRET_OPTION.findall(address))
        for value in NESTED.findall(address):
            yield from _of_address(_plain(f"'{value}'"))
        for value in BARE.findall(address):
            yield from _of_address(value)
    at = address.find("//")
    if at < 0:
        return
    parts = urlsplit(f"x:{address[at:]}")
    # Not `parts.password`, which stops at a second @.
    _, colon, password = parts.netloc.rpartition("@")[0].partition(":")
    if colon and password:
        yield password
    yield from (
        value
        # Spark Connect has its parameters in the path: sc://spark:15002/;token=…
        for listed in (
            parse_qsl(parts.query),
            parse_qsl(parts.path.partition(";")[2], separator=";"),
        )
        for name, value in listed
        if name.lower() in SECRET_WORDS and value
    )


def _plain(value: str) -> str:
    """What a value says, which may be quoted."""
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith("'") else value


def _of_sql(statements: str) -> Iterator[str]:
    """Texts of `CREATE SECRET` that are more than where something is."""
    for found in SQL_TEXT.finditer(statements):
        text = found[1].replace("''", "'")
        if len(text) >= SHORTEST and not OPEN_OPTION.search(statements[: found.start()]):
            yield text


def _of_endpoints(settings: Settings) -> Iterator[str]:
    """Values of headers, what follows a scheme such as `Bearer`, and passwords in it."""
    for endpoint in settings.endpoints.values():
        for header in endpoint.headers.values():
            value = header.get_secret_value()
            scheme, _, rest = value.partition(" ")
            yield from (part for part in (value, rest) if len(part) >= SHORTEST)
            if scheme.lower() == "basic":
                yield from _of_basic(rest)


def _of_basic(encoded: str) -> Iterator[str]:
    """The password in what follows `Basic`."""
    try:
        decoded = base64.b64decode(encoded, validate=True).decode()
    except ValueError:
        return
    yield decoded.partition(":")[2]


def _of_alerts(value: str) -> Iterator[str]:
    """What opens the channels: passwords, and tokens in paths, of addresses or a file of them."""
    text = value if "://" in value else _content(value)
    for address in re.findall(r"[\w+]+://[^\s\"'`]+", text):
        yield from _of_address(address)
        rest = address.partition("://")[2].rpartition("@")[2].partition("?")[0]
        # A word of few letters, as a path may have, opens nothing.
        yield from (part for part in re.split(r"[/,]", rest) if re.search(r"\d|[A-Z]", part[1:])
                    and len(part) >= 8 and "." not in part)  # fmt: skip


@lru_cache(maxsize=4)
def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        # Whoever opens the channels says so.
        return ""


def _forms(secret: str) -> Iterator[str]:
    for plain in (secret, unquote(secret)):
        once = _escaped(plain)
        yield from (plain, quote(plain, safe=""), plain.replace("'", "''"))
        for form in (once, _escaped(once)):
            # As Python shows it, too.
            yield from (form, form.replace("\\", "\\\\"))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
