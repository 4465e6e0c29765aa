"""Where secrets are kept: variables, files, Vault, and what installed packages add."""

import os
from collections.abc import Callable
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from ml_platform.errors import PlatformError

GROUP = "ml_platform.secret_providers"
"""Entry points of packages: a name, and a function that returns the secret of a reference."""
LARGEST = 1_000_000
"""Bytes of a file that holds a secret."""


class SecretNotRead(PlatformError):
    """A setting refers to a secret that could not be read; the message never holds it."""


Provider = Callable[[str], str]
"""Returns the secret that follows the provider's name in a reference; SecretNotRead says why there
is none."""


def read_secret(provider: str, name: str) -> str:
    """The secret of `${provider:name}`; SecretNotRead."""
    if provider in PROVIDERS:
        return PROVIDERS[provider](name)
    added = {point.name: point for point in entry_points(group=GROUP)}
    if provider in added:
        return _of_package(added[provider], name)
    known = sorted({*PROVIDERS, *added})
    near = get_close_matches(provider, known, n=1)
    raise SecretNotRead(
        f"there is no provider of secrets '{provider}', there are {', '.join(known)}"
        + (f"; did you mean '{near[0]}'?" if near else "; write $${ for ${ itself")
    )


def _of_package(point: EntryPoint, name: str) -> str:
    try:
        secret = point.load()(name)
    except SecretNotRead:
        raise
    except Exception as error:
        # Its text may hold whatever it read.
        raise SecretNotRead(
            f"'{point.value}', which provides secrets '{point.name}', failed with "
            f"{type(error).__name__}"
        ) from None
    if not isinstance(secret, str):
        raise SecretNotRead(
            f"'{point.value}', which provides secrets '{point.name}', returned "
            f"{type(secret).__name__} instead of text"
        )
    return secret


def _of_variable(name: str) -> str:
    if name not in os.environ:
        raise SecretNotRead(f"the environment variable {name} is not set")
    return os.environ[name]


def _of_file(name: str) -> str:
    """A file's text without the line feed at its end, which editors and `echo` write."""
    path = Path(name)
    if not path.is_absolute():
        raise SecretNotRead(f"{name} is not an absolute path")
    try:
        # A device has no end.
        if not path.is_file():
            raise SecretNotRead(f"{name} is not a file" if path.exists() else f"there is no {name}")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise SecretNotRead(f"{name} is larger than {LARGEST:,} bytes")
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SecretNotRead(f"{name} is not text in UTF-8") from None
    except OSError as error:
        raise SecretNotRead(f"{name}: {error.strerror}") from None


def _of_vault(name: str) -> str:
    from ml_platform.secret_references.vault import read

    return read(name)


PROVIDERS: dict[str, Provider] = {"env": _of_variable, "file": _of_file, "vault": _of_vault}
"""Those that the platform has, by the name that a reference begins with."""
