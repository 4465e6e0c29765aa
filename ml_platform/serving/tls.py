"""TLS of HTTP and gRPC, with certificates that are renewed in place.

Files are looked at when someone connects, and read when they have changed: a renewal needs no
restart and no signal, and a connection never sees half of one.
"""

import functools
import logging
import ssl
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import AccessError

if TYPE_CHECKING:
    import grpc

    from ml_platform.settings import ServingSettings

logger = logging.getLogger(__name__)


class Certificates:
    """What a server shows of itself and asks of its clients, as the files say now.

    Raises AccessError where the files do not work at the start; later on those that worked last
    are kept.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._lock = threading.Lock()
        try:
            self._stamp = self._look()
            self._context = self._load()
        except (OSError, ssl.SSLError) as error:
            raise AccessError(
                f"the TLS files {cert} and {key} cannot be used: {error}; see "
                "ML_PLATFORM_SERVING_TLS_CERT, _TLS_KEY and _TLS_CLIENT_CA"
            ) from None

    @property
    def files(self) -> tuple[Path, Path, Path | None]:
        """Certificate chain, key, and authorities of clients."""
        return self._cert, self._key, self._client_ca

    def server_context(self) -> ssl.SSLContext:
        """A context for one server, which hands each connection over to the newest one."""
        context = self._load()

        def choose(connection: ssl.SSLObject, name: str | None, first: ssl.SSLContext) -> None:
            connection.context = self._newest()

        context.sni_callback = choose
        return context

    def grpc_credentials(self) -> "grpc.ServerCredentials":
        """The same for gRPC, which asks before each handshake."""
        import grpc

        first = self._grpc_configuration()
        seen = [self._context]

        def newer() -> "grpc.ServerCertificateConfiguration | None":
            newest = self._newest()
            if newest is seen[0]:
                return None
            seen[0] = newest
            return self._grpc_configuration()

        return grpc.dynamic_ssl_server_credentials(
            first,
            newer,  # type: ignore[arg-type]  # None is taken as well: nothing has changed
            require_client_authentication=self._client_ca is not None,
        )

    def _newest(self) -> ssl.SSLContext:
        with self._lock:
            try:
                stamp = self._look()
                if stamp != self._stamp:
                    self._context, self._stamp = self._load(), stamp
            except (OSError, ssl.SSLError) as error:
                # Key and certificate are two files, and one of them is written first.
                logger.warning("the renewed TLS files cannot be used yet: %s", error)
            return self._context

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        found = [file.stat() for file in self._files]
        return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in found)

    @property
    def _files(self) -> list[Path]:
        return [file for file in (self._cert, self._key, self._client_ca) if file is not None]

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self._cert, self._key)
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _grpc_configuration(self) -> "grpc.ServerCertificateConfiguration":
        import grpc

        authorities = None if self._client_ca is None else self._client_ca.read_bytes()
        pair = (self._key.read_bytes(), self._cert.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], authorities)


def certificates(settings: "ServingSettings") -> Certificates | None:
    """The certificates of a service; None where it speaks without TLS. Raises AccessError."""
    if settings.tls_cert is None and settings.tls_key is None and settings.tls_client_ca is None:
        return None
    if settings.tls_cert is None or settings.tls_key is None:
        raise AccessError(
            "TLS needs a certificate and its key: set ML_PLATFORM_SERVING_TLS_CERT and _TLS_KEY, "
            "or neither of them and no _TLS_CLIENT_CA"
        )
    return Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def uvicorn_context(settings: "ServingSettings") -> "functools.partial[ssl.SSLContext] | None":
    """What uvicorn makes its context with in each process; None without TLS."""
    checked = certificates(settings)
    return None if checked is None else functools.partial(_make_context, checked.files)


def _make_context(
    files: tuple[Path, Path, Path | None], config: Any, default: Any
) -> ssl.SSLContext:
    return Certificates(*files).server_context()
