"""Connection strings of PostgreSQL, apart from the password in them.

DuckDB repeats a connection string in its errors and in its list of databases. What is in a secret
it never shows.
"""

import re
from urllib.parse import unquote, urlsplit, urlunsplit

from ml_platform.spec.queries import literal, quote

# A value is quoted, with a backslash before what would end it, or one word.
PASSWORD = re.compile(r"(?i)(?:^|\s)password\s*=\s*('(?:[^'\\]|\\.)*'|\S+)")
QUERY_PASSWORD = re.compile(r"(?i)(^|&)password=([^&]*)")


def without_password(connection: str) -> tuple[str, str | None]:
    r"""A connection string without its password, and the password; None where it has none.

    >>> without_password(r"host=db password='hush \'now\'' dbname=lake")
    ('host=db dbname=lake', "hush 'now'")
    >>> without_password("postgresql://ada:hush%2Fhush@db:5432/lake")
    ('postgresql://ada@db:5432/lake', 'hush/hush')
    """
    if "://" not in connection:
        found = PASSWORD.search(connection)
        if found is None:
            return connection, None
        value = found[1]
        if value.startswith("'"):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        return connection.replace(found[0], "").strip(), value
    parts = urlsplit(connection)
    password = None
    if found := QUERY_PASSWORD.search(parts.query):
        password = unquote(found[2])
        parts = parts._replace(query=QUERY_PASSWORD.sub("", parts.query).lstrip("&"))
    login, at, host = parts.netloc.rpartition("@")
    user, colon, in_login = login.partition(":")
    if colon:
        password = password if password is not None else unquote(in_login)
        parts = parts._replace(netloc=f"{user}{at}{host}")
    return urlunsplit(parts), password or None


def secret_sql(name: str, password: str) -> str:
    """SQL that gives DuckDB a password under a name."""
    return f"CREATE OR REPLACE SECRET {quote(name)} (TYPE postgres, PASSWORD {literal(password)})"
