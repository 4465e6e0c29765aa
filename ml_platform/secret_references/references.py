"""References in a text, and how a secret is written where one stands."""

import re
from collections.abc import Callable
from urllib.parse import quote

from ml_platform.secret_references.providers import SecretNotRead

REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}")
"""`${provider:name}`, or `$${`, which stands for `${`."""
FORM = re.compile(r"([a-z][a-z0-9_-]*):(.+)", re.DOTALL)
QUOTED = re.compile(r"'(?:[^'\\]|\\.)*")
"""From a quote to its end, which a backslash before it is not."""
ESCAPED = re.compile(r"\\(.)")
WORD = re.compile(r"[^\s'\"\\]+")
"""A value that connection strings take without quotes."""
ADDRESS = re.compile(r"://([^\s']*)\Z")
"""An address, up to where a reference stands, without its scheme."""
OPTION = re.compile(r"[\w.-]+\s*=\s*\Z")
"""The name of an option and its equals sign."""


def resolve(text: str, read: Callable[[str, str], str], *, is_sql: bool = False) -> str:
    r"""A text with the secrets that it refers to.

    Each is escaped as its place needs it, so that a secret may hold anything: percent-encoded in an
    address, in quotes where it is the value of an option, with its quotes escaped between quotes. A
    text that is a reference and nothing else becomes the secret as it is.

    read: returns the secret for provider and name.
    is_sql: quotes between quotes are doubled, as SQL has it, instead of escaped by a backslash.

    Raises SecretNotRead for a reference without its form.

    >>> kept = {"url": "hush/now", "words": "hush 'now'"}
    >>> resolve("postgresql://ada:${vault:url}@db/lake", lambda _, name: kept[name])
    'postgresql://ada:hush%2Fnow@db/lake'
    >>> print(resolve("host=db password=${vault:words}", lambda _, name: kept[name]))
    host=db password='hush \'now\''
    """
    written: list[str] = []
    end = 0
    for found in REFERENCE.finditer(text):
        written.append(text[end : found.start()])
        end = found.end()
        if found[1] is None:
            written.append("${")
            continue
        form = FORM.fullmatch(found[1])
        if form is None:
            raise SecretNotRead(
                f"{found[0]} is not a reference to a secret, such as ${{env:NAME}}; write $${{ for "
                "${ itself"
            )
        secret = read(form[1], form[2])
        whole = found.start() == 0 and end == len(text)
        written.append(
            secret if whole else _as_place_needs("".join(written), secret, is_sql=is_sql)
        )
    return "".join((*written, text[end:]))


def _as_place_needs(before: str, secret: str, *, is_sql: bool) -> str:
    if address := ADDRESS.search(before):
        _, slash, beyond = address[1].partition("/")
        # Folders of an object store are one reference, passwords and parameters hold no slash.
        return quote(secret, safe="/" if slash and "?" not in beyond else "")
    if is_sql:
        doubled = secret.replace("'", "''")
        return doubled if before.count("'") % 2 else f"'{doubled}'"
    return _as_option_needs(before, secret)


def _as_option_needs(before: str, secret: str) -> str:
    opened = _open_quote(before)
    if opened is None:
        return _as_option(secret) if OPTION.search(before) else secret
    # What is quoted may have options itself, as a driver is given a connection string.
    return _escaped(_as_option_needs(ESCAPED.sub(r"\1", opened), secret))


def _open_quote(before: str) -> str | None:
    """What has stood since a quote that is still open; None where none is."""
    outside = 0
    while (at := before.find("'", outside)) >= 0:
        inside = QUOTED.match(before, at)
        if inside is None or inside.end() == len(before):
            return before[at + 1 :]
        outside = inside.end() + 1
    return None


def _as_option(secret: str) -> str:
    return secret if WORD.fullmatch(secret) else f"'{_escaped(secret)}'"


def _escaped(secret: str) -> str:
    return secret.replace("\\", "\\\\").replace("'", "\\'")
