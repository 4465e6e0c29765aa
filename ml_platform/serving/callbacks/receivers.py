"""Who may be notified: receivers that the operator registered, and addresses of permitted kinds.

A service that posts to any address that a caller names would reach for that caller what only the
service can reach. So an address of a request has to match what the operator permits, part by part.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from ml_platform.errors import ParameterNotAllowed
from ml_platform.settings import ServingSettings
from ml_platform.spec.values import unknown

NAME = "ML_PLATFORM_SERVING_CALLBACKS"
PREFIXES = "ML_PLATFORM_SERVING_CALLBACK_URIS"
PORTS = {"https": 443, "http": 80}
ODD = re.compile(r"[^\x21-\x7e]|[\\\"<>^`{|}]")
"""Characters that no address has, and that readers of addresses disagree about."""
STEPS = re.compile(r"(?i)(?:^|/)(?:\.|%2e){1,2}(?:/|$)|%2f|%5c")


@dataclass(frozen=True)
class Receiver:
    """One address that is notified of the end of a run."""

    name: str
    """As the setting calls it; of an address of a request, its host."""
    url: str = field(repr=False)
    """Of a registered receiver empty: it is looked up when it is notified."""

    @property
    def is_registered(self) -> bool:
        return not self.url


@dataclass(frozen=True)
class Receivers:
    """Who may be notified, by the settings of the service."""

    settings: ServingSettings

    def addressed(self, names: Iterable[str], uri: str | None) -> tuple[Receiver, ...]:
        """Registered receivers of these names, and the address of a request.

        Raises ParameterNotAllowed where there is no such receiver, or the address is of no
        permitted kind.
        """
        registered = self.settings.callbacks
        for name in names:
            if name not in registered:
                said = f"the setting {NAME} has {unknown('receiver', name[:60], registered)}"
                raise ParameterNotAllowed("callbacks", said)
        found = [Receiver(name, "") for name in dict.fromkeys(names)]
        if uri is not None:
            found.append(Receiver(self._host(uri), uri))
        return tuple(found)

    def _host(self, uri: str) -> str:
        permitted = self.settings.callback_uris
        if not permitted:
            said = f"the service calls no address of a request; permitted ones are {PREFIXES}"
            raise ParameterNotAllowed("callBackUri", said)
        parts = _split(uri)
        if parts is None or not any(_permits(prefix, parts) for prefix in permitted):
            said = f"is of no permitted kind; {PREFIXES} permits {', '.join(permitted)}"
            raise ParameterNotAllowed("callBackUri", said)
        return str(parts.hostname)


def is_permitted(uri: str, prefixes: Iterable[str]) -> bool:
    """Whether an address is of one of the kinds, such as `https://*.example.org/hooks/`.

    >>> kinds = ["https://*.example.org/hooks/"]
    >>> is_permitted("https://eu.example.org/hooks/7?token=x", kinds)
    True
    >>> is_permitted("https://eu.example.org.evil.net/hooks/7", kinds)
    False
    """
    parts = _split(uri)
    return parts is not None and any(_permits(prefix, parts) for prefix in prefixes)


def _split(uri: str) -> SplitResult | None:
    """The parts of an address; None where it is none, or is one that is not the same to all."""
    try:
        parts = urlsplit(uri)
        sound = parts.port is None or 0 < parts.port <= 65535
    except ValueError:
        return None
    odd = ODD.search(uri) or STEPS.search(parts.path) or parts.fragment or "@" in parts.netloc
    return parts if sound and parts.hostname and parts.scheme in PORTS and not odd else None


def _permits(prefix: str, parts: SplitResult) -> bool:
    allowed = urlsplit(prefix)
    host, wanted = str(parts.hostname).rstrip("."), str(allowed.hostname)
    same_host = host.endswith(wanted[1:]) if wanted.startswith("*.") else host == wanted
    return (
        parts.scheme == allowed.scheme
        and same_host
        and _port(parts) == _port(allowed)
        and f"{parts.path}/".startswith(f"{allowed.path.rstrip('/')}/")
    )


def _port(parts: SplitResult) -> int:
    return parts.port or PORTS[parts.scheme]


def headers_of(receiver: str, settings: ServingSettings) -> Mapping[str, str]:
    """What a registered receiver is sent besides: the key that opens it, say."""
    found = settings.callbacks.get(receiver)
    headers = found.headers if found else {}
    return {name: value.get_secret_value() for name, value in headers.items()}
