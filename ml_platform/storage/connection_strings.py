"""Connection strings of PostgreSQL and MySQL, apart from the password in them.

DuckDB repeats a connection string in its errors and in its list of databases. What is in a secret
it never shows.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from ml_platform.spec.queries import literal, quote

# A value is quoted, with a backslash before what would end it, or one word.
PASSWORD = re.compile(r"(?i)(?:^|\s)password\s*=\s*('(?:[^'\\]|\\.)*'|\S+)")
OPTION = re.compile(r"\s*([\w.-]+)\s*=\s*('(?:[^'\\]|\\.)*'|\S+)\s*")
MYSQL_OPTIONS: Mapping[str, str] = {
    "host": "host", "port": "port", "user": "user", "password": "password", "passwd": "password",
    "database": "database", "db": "database", "dbname": "database", "socket": "socket",
    "unix_socket": "socket", "ssl_mode": "ssl_mode", "ssl_ca": "ssl_ca", "ssl_cert": "ssl_cert",
    "ssl_key": "ssl_key",
}  # fmt: skip
"""Names that options of MySQL may have, and what they are called here."""
TLS_MODES = frozenset({"required", "verify_ca", "verify_identity"})
URL = re.compile(r"\s*(?:[\w+]+:)?//")
TIMEOUTS = {
    "connect_timeout": 10, "keepalives_idle": 5, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}  # fmt: skip
"""In seconds, the last one in milliseconds."""
QUERY_PASSWORD = re.compile(r"(?i)(^|&)password=([^&]*)")


def without_password(connection: str) -> tuple[str, str | None]:
    r"""A connection string without its password, and the password; None where it has none.

    >>> without_password(r"host=db password='hush \'now\'' dbname=lake")
    ('host=db dbname=lake', "hush 'now'")
    >>> without_password("postgresql://ada:hush%2Fhush@db:5432/lake")
    ('postgresql://ada@db:5432/lake', 'hush/hush')
    """
    if not URL.match(connection):
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


def with_timeouts(connection: str) -> str:
    """A connection string of PostgreSQL by which a network that is cut is noticed in seconds.

    What it says itself holds. Without them the system tries for a quarter of an hour to send, and
    waits for ever for an answer. A server that takes long to answer is not meant: its system says
    that it is there.

    >>> with_timeouts("host=db").endswith(" tcp_user_timeout=15000 host=db")
    True
    >>> with_timeouts("postgresql://db/lake?tcp_user_timeout=9").endswith("=15000&tcp_user_timeout=9")
    True
    """
    if URL.match(connection):
        address, _, query = connection.partition("?")
        ours = "&".join(f"{name}={value}" for name, value in TIMEOUTS.items())
        return f"{address}?{ours}{'&' if query else ''}{query}"
    return " ".join([*(f"{name}={value}" for name, value in TIMEOUTS.items()), connection])


def secret_sql(name: str, password: str) -> str:
    """SQL that gives DuckDB a password under a name."""
    return f"CREATE OR REPLACE SECRET {quote(name)} (TYPE postgres, PASSWORD {literal(password)})"


def mysql_parts(connection: str) -> dict[str, str]:
    """Options of a connection to MySQL: host, port, user, password, database, its encryption.

    Raises ValueError where it names something else; values are never part of the message.

    >>> mysql_parts("host=db user=ada password='hush now' database=app")
    {'host': 'db', 'user': 'ada', 'password': 'hush now', 'database': 'app'}
    >>> mysql_parts("//ada:hush%2Fhush@db:3306/app")
    {'host': 'db', 'port': '3306', 'user': 'ada', 'password': 'hush/hush', 'database': 'app'}
    """
    named = _of_url(connection) if URL.match(connection) else words_of(connection)
    found = {}
    for name, value in named.items():
        if name.lower().replace("-", "_") not in MYSQL_OPTIONS:
            known = ", ".join(dict.fromkeys(MYSQL_OPTIONS.values()))
            raise ValueError(f"a connection to MySQL has no option '{name}'; it has {known}")
        found[MYSQL_OPTIONS[name.lower().replace("-", "_")]] = value
    return found


def mysql_options(connection: str) -> dict[str, Any]:
    """The same as arguments of PyMySQL's `connect`."""
    parts = mysql_parts(connection)
    named = {"host": "host", "user": "user", "password": "password", "database": "database",
             "socket": "unix_socket", "ssl_ca": "ssl_ca", "ssl_cert": "ssl_cert",
             "ssl_key": "ssl_key"}  # fmt: skip
    found: dict[str, Any] = {named[name]: parts[name] for name in named if name in parts}
    if "port" in parts:
        found["port"] = int(parts["port"])
    mode = parts.get("ssl_mode", "preferred").lower()
    if mode in TLS_MODES:
        # PyMySQL encrypts where it is given any of these.
        found["ssl_verify_cert"] = mode != "required"
        found["ssl_verify_identity"] = mode == "verify_identity"
        found.setdefault("ssl", {})
    elif mode == "disabled":
        found["ssl_disabled"] = True
    return found


def mysql_secret_sql(name: str, connection: str) -> str:
    """SQL that gives DuckDB all of a connection to MySQL under a name.

    Raises ValueError as `mysql_parts`, and where DuckDB's extension would not check what it says:
    it compares no names, and without authorities it takes any certificate.
    """
    parts = mysql_parts(connection)
    mode = parts.get("ssl_mode", "").lower()
    if mode == "verify_identity":
        raise ValueError(
            "ssl_mode=verify_identity cannot be held where DuckDB reads, which does not compare "
            "the server's name with its certificate: use ssl_mode=verify_ca, with a ssl_ca that "
            "signs for this server alone, or that is its certificate"
        )
    if mode == "verify_ca" and "ssl_ca" not in parts:
        raise ValueError("ssl_mode=verify_ca needs ssl_ca, the file of authorities to trust")
    options = ", ".join(f"{part} {literal(value)}" for part, value in parts.items())
    return f"CREATE OR REPLACE SECRET {quote(name)} (TYPE mysql, {options})"


def words_of(connection: str) -> dict[str, str]:
    """Options of a connection that are written one after the other, as libpq reads them.

    Raises ValueError where they are not; values are never part of the message.

    >>> words_of("driver=adbc_driver_sqlite uri='a file.db'")
    {'driver': 'adbc_driver_sqlite', 'uri': 'a file.db'}
    """
    found = {}
    at = 0
    while at < len(connection.rstrip()):
        option = OPTION.match(connection, at)
        if option is None:
            raise ValueError("a connection reads name=value name=value …")
        value = option[2]
        found[option[1]] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value[0] == "'" else value
        at = option.end()
    return found


def _of_url(connection: str) -> dict[str, str]:
    parts = urlsplit(f"mysql:{connection[connection.index('//') :]}")
    login, _, host = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    host, _, port = host.partition(":")
    named = {"host": host, "port": port, "user": unquote(user), "password": unquote(password),
             "database": parts.path.lstrip("/")}  # fmt: skip
    return {
        **{name: value for name, value in named.items() if value},
        **dict(parse_qsl(parts.query)),
    }
