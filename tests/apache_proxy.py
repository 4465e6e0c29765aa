"""`deploy/proxy` on a real Apache, before the real servers, with a provider that runs here."""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import trustme

from tests.dagster_servers import UP_WITHIN_SECONDS, free_port, start, stop
from tests.openid_provider import Client, Person, Provider, running
from tests.served import deploy

FILES = Path(__file__).parent.parent / "deploy" / "proxy"
APACHE = shutil.which("apache2", path=f"{os.environ['PATH']}:/usr/sbin")
MODULES = Path("/usr/lib/apache2/modules")
LOADED = [
    "mpm_event", "authn_core", "authz_core", "authz_user", "auth_openidc", "alias", "mime",
    "setenvif", "headers", "reqtimeout", "socache_shmcb", "ssl", "proxy", "proxy_http",
]  # fmt: skip
GRANTS = {"ml-operators": ["reader@*"], "ml-predictors": ["predictor@*"]}
UIS = {"dagster": 3000, "mlflow": 5000, "pages": 3001, "service": 8080}
PAGE = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
"""What a browser says when it goes to a page."""
HEAD = re.compile(rb"[A-Z]+ \S+ HTTP/1\.1\r\n")


class AtThisMachine(httpx.BaseTransport):
    """Names of ml.example.org are the proxy's port here; certificates are checked by the names."""

    def __init__(self, port: int, tls: ssl.SSLContext) -> None:
        self._port, self._real = port, httpx.HTTPTransport(verify=tls)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url, extensions = request.url, dict(request.extensions)
        if url.host.endswith(".ml.example.org"):
            extensions["sni_hostname"] = url.host
            url = url.copy_with(host="127.0.0.1", port=self._port)
        return self._real.handle_request(
            httpx.Request(
                request.method,
                url,
                headers=request.headers,
                stream=request.stream,
                extensions=extensions,
            )
        )

    def close(self) -> None:
        self._real.close()


@dataclass(frozen=True)
class Ear:
    """The heads of the requests that arrived at a server."""

    port: int
    heads: list[str] = field(default_factory=list)

    def of(self, path: str) -> dict[str, str]:
        """The headers of the latest request for a path, once there is one."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            for head in reversed(self.heads):
                first, *lines = head.split("\r\n")
                if f" {path} " in first:
                    return {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
            time.sleep(0.05)
        pytest.fail(f"{path} has not arrived: {self.heads}")


@contextmanager
def listening(target: int) -> Iterator[Ear]:
    """A port that hands everything on to another, and remembers the heads of requests."""
    entrance = socket.create_server(("127.0.0.1", 0))
    ear = Ear(entrance.getsockname()[1])

    def hand_on(source: socket.socket, sink: socket.socket, heard: bool) -> None:
        with suppress(OSError):
            while block := source.recv(1 << 16):
                if heard and HEAD.match(block):
                    ear.heads.append(block.partition(b"\r\n\r\n")[0].decode("latin-1"))
                sink.sendall(block)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def both_ways(came: socket.socket) -> None:
        with came, socket.create_connection(("127.0.0.1", target)) as went:
            back = threading.Thread(target=hand_on, args=(went, came, False))
            back.start()
            hand_on(came, went, True)
            back.join()

    def accept() -> None:
        with suppress(OSError), ThreadPoolExecutor(256) as pool:
            while True:
                pool.submit(both_ways, entrance.accept()[0])

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield ear
    finally:
        entrance.shutdown(socket.SHUT_RDWR)
        entrance.close()
        accepting.join()


@dataclass(frozen=True)
class Proxy:
    port: int
    plain: int
    """The port without TLS."""
    tls: ssl.SSLContext
    root: Path
    provider: Provider
    behind: Mapping[str, Ear]

    @contextmanager
    def connected(self, name: str) -> Iterator[ssl.SSLSocket]:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        with self.tls.wrap_socket(plain, server_hostname=f"{name}.ml.example.org") as safe:
            yield safe

    def browser(self) -> httpx.Client:
        """Someone who goes from page to page and keeps cookies."""
        here = AtThisMachine(self.port, self.tls)
        return httpx.Client(transport=here, headers=PAGE, timeout=120)

    @contextmanager
    def logged_in(self, name: str, url: str) -> Iterator[tuple[httpx.Client, httpx.Response]]:
        """Somebody who asked for a page and filled in the provider's, and where that led."""
        with self.browser() as browser:
            form = browser.get(url, follow_redirects=True)
            assert "Who are you?" in form.text, form.text
            said = {"name": name, "password": name}
            yield browser, browser.post(form.url, data=said, follow_redirects=True)

    @property
    def log(self) -> list[str]:
        return (self.root / "ml-platform.log").read_text().splitlines()


def configured(
    root: Path,
    authority: trustme.CA,
    ports: Mapping[str, int],
    provider: Provider,
    behind: Mapping[str, Ear],
) -> Path:
    """The files of `deploy/proxy` with the paths and ports of a test, in a whole configuration."""
    certificate = authority.issue_cert("*.ml.example.org")
    (root / "tls").mkdir()
    certificate.private_key_pem.write_to_path(root / "tls" / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(root / "tls" / "cert.pem", append=True)
    (root / "proxy").mkdir()
    (root / "cache").mkdir()
    changed = {
        "/etc/ml-platform": str(root),
        "/etc/ssl/certs/ca-certificates.crt": str(root / "authority.pem"),
        "/var/cache/apache2/mod_auth_openidc/cache": str(root / "cache"),
        "/var/log/apache2": str(root),
        "https://login.example.org/realms/ml": provider.url,
        "<VirtualHost *:443>": f"<VirtualHost *:{ports['apache']}>",
        "<VirtualHost *:80>": f"<VirtualHost *:{ports['plain']}>",
        **{f"127.0.0.1:{UIS[name]}/": f"127.0.0.1:{ear.port}/" for name, ear in behind.items()},
    }
    whole = {file.name: file.read_text() for file in FILES.iterdir()}
    for usual, now in changed.items():
        assert any(usual in text for text in whole.values()), usual
        whole = {name: text.replace(usual, now) for name, text in whole.items()}
    for name, text in whole.items():
        (root / "proxy" / name).write_text(text)
    (root / "proxy" / "secrets.conf").write_text(
        f"OIDCClientSecret {provider.client.secret}\nOIDCCryptoPassphrase only-in-this-test\n"
    )
    conf = root / "whole.conf"
    loaded = "".join(f"LoadModule {m}_module {MODULES}/mod_{m}.so\n" for m in LOADED)
    # As Debian's: the master is root where a test is, its children are not.
    who = "User www-data\nGroup www-data\n" if os.geteuid() == 0 else ""
    if who:
        shutil.chown(root / "cache", "www-data", "www-data")
    conf.write_text(
        f"{loaded}{who}ServerRoot {root}\nServerName 127.0.0.1\nDefaultRuntimeDir {root}\n"
        f"PidFile {root}/apache.pid\nErrorLog {root}/error.log\n"
        f"Listen 127.0.0.1:{ports['apache']}\nListen 127.0.0.1:{ports['plain']}\n"
        f"TypesConfig /dev/null\nAddType text/html .html\n"
        f"<Directory />\n  AllowOverride None\n  Require all denied\n</Directory>\n"
        f"Include {root}/proxy/apache.conf\n"
    )
    return conf


def waited(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + UP_WITHIN_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"nothing listens: {log.read_text()}")


def people() -> dict[str, Person]:
    """Ada reads, Ben predicts as well, Eve has an account and nothing to do here."""
    all_ = [
        Person("ada", ["ml-operators"]),
        Person("ben", ["ml-operators", "ml-predictors"]),
        Person("eve", ["sales", "ml-operators-of-others"]),
    ]
    return {person.name: person for person in all_}


@contextmanager
def proxied(deployment: Path) -> Iterator[Proxy]:
    """Everything, with the use case `trips` served from below `deployment`."""
    assert APACHE is not None
    made = deploy(deployment)
    made.promote(20)
    client = Client(
        "ml-platform-ui",
        "a-secret",
        "https://login.ml.example.org/openid",
        "https://login.ml.example.org/",
    )
    bin_ = Path(sys.executable).parent
    with ExitStack() as ending:
        ending.callback(made.lake.close)
        # Apache's children are another user, who may not look into pytest's folders.
        root = Path(ending.enter_context(tempfile.TemporaryDirectory()))
        root.chmod(0o755)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(root / "authority.pem")
        provider = Provider(people(), client, audience="ml-platform")
        ending.enter_context(running(provider, authority))
        (root / "jwks.json").write_text(json.dumps(provider.published))
        environment = {
            **os.environ,
            "ML_PLATFORM_DATA": str(made.settings.data),
            "ML_PLATFORM_USE_CASES": str(made.settings.use_cases),
            "DAGSTER_HOME": str(root / "home"),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "ML_PLATFORM_PAGES_URL": "https://pages.ml.example.org",
            "ML_PLATFORM_SERVING_AUTHENTICATION": "true",
            "ML_PLATFORM_SERVING_OIDC_ISSUER": provider.url,
            "ML_PLATFORM_SERVING_OIDC_AUDIENCE": provider.audience,
            "ML_PLATFORM_SERVING_OIDC_KEYS": str(root / "jwks.json"),
            "ML_PLATFORM_SERVING_OIDC_CLAIM": "groups",
            "ML_PLATFORM_SERVING_OIDC_GRANTS": json.dumps(GRANTS),
        }
        (root / "home").mkdir()
        shutil.copy(FILES.parent / "dagster.yaml", root / "home")
        local = ["--host", "127.0.0.1", "--port"]
        commands = {
            "dagster": [str(bin_ / "dagster-webserver"), "--empty-workspace", *local],
            "mlflow": [
                str(bin_ / "mlflow"), "server", "--workers", "1",
                "--backend-store-uri", f"sqlite:///{root}/mlflow.db",
                "--artifacts-destination", str(root / "artifacts"),
                "--allowed-hosts", "mlflow.ml.example.org",
                "--cors-allowed-origins", "https://mlflow.ml.example.org", *local,
            ],
            "pages": [str(bin_ / "ml-platform"), "pages", "--port"],
        }  # fmt: skip
        ports = {name: free_port() for name in (*commands, "apache", "plain")}
        processes = {}
        for name, command in commands.items():
            log = root / f"{name}.log"
            processes[name] = start([*command, str(ports[name])], environment, log)
            ending.callback(stop, processes[name])
        served = ending.enter_context(
            made.served(
                authentication=True,
                oidc_issuer=provider.url,
                oidc_audience=provider.audience,
                oidc_keys=str(root / "jwks.json"),
                oidc_claim="groups",
                oidc_grants={group: tuple(grants) for group, grants in GRANTS.items()},
            )
        )
        behind = {**ports, "service": int(served.http.partition(":")[2])}
        ears = {name: ending.enter_context(listening(behind[name])) for name in UIS}
        conf = configured(root, authority, ports, provider, ears)
        checked = subprocess.run(
            [APACHE, "-t", "-f", str(conf)], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stderr
        assert checked.stderr.strip() == "Syntax OK", checked.stderr
        apache = start([APACHE, "-DFOREGROUND", "-f", str(conf)], environment, root / "apache.log")
        ending.callback(stop, apache)
        processes["apache"] = apache
        for name, process in processes.items():
            waited(ports[name], process, root / f"{name}.log")
        tls = ssl.create_default_context(cafile=root / "authority.pem")
        yield Proxy(ports["apache"], ports["plain"], tls, root, provider, ears)
