"""How endpoints prove who they are, and how the platform does to them."""

import ssl
from pathlib import Path

from ml_platform.errors import EndpointRefused
from ml_platform.settings import EndpointSettings

UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
"""Part of what OpenSSL and gRPC say of a certificate that no known authority has signed."""


def context_of(known: EndpointSettings) -> ssl.SSLContext:
    """TLS over HTTP: trust in the authority of the setting, or in those of this machine.

    Raises EndpointRefused where a file of the setting cannot be used.
    """
    authority = None if known.ca is None else _read(known.ca).decode("ascii", "replace")
    try:
        context = ssl.create_default_context(cadata=authority)
    except ssl.SSLError as error:
        assert known.ca is not None
        raise _unusable(known.ca, error) from None
    if known.certificate is not None:
        try:
            context.load_cert_chain(known.certificate, known.key)
        except OSError as error:
            raise _unusable(known.certificate, error) from None
    return context


def files_of(known: EndpointSettings) -> tuple[bytes | None, bytes | None, bytes | None]:
    """The same for gRPC: authority, key and certificate as PEM."""
    authority, key, certificate = (
        None if path is None else _read(path)
        for path in (known.ca, known.key or known.certificate, known.certificate)
    )
    return authority, key, certificate


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: OSError) -> EndpointRefused:
    said = error.strerror or str(error)
    return EndpointRefused(
        f"the setting endpoints names the file {path}, which is unusable: {said}"
    )
