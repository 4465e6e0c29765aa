"""Tokens of an OIDC issuer, whose keys come from a server that runs here."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from ml_platform.access import Caller, Grant
from ml_platform.access.tokens import FETCH_SECONDS, STALE_SECONDS, Issuer, Tokens
from ml_platform.errors import AccessError, IssuerUnavailable, Unauthenticated
from tests.clock import Clock

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ELLIPTIC = ec.generate_private_key(ec.SECP256R1())
EDWARDS = ed25519.Ed25519PrivateKey.generate()


def published(name: str, key: Any, **more: str) -> dict[str, Any]:
    kind = {rsa.RSAPrivateKey: RSAAlgorithm, ec.EllipticCurvePrivateKey: ECAlgorithm}
    of = next((k for base, k in kind.items() if isinstance(key, base)), OKPAlgorithm)
    return {**of.to_jwk(key.public_key(), as_dict=True), "kid": name, **more}


@dataclass
class Login:
    """An issuer: what it publishes, and how often it was asked."""

    keys: list[dict[str, Any]] = field(default_factory=lambda: [published("first", RSA)])
    url: str = ""
    asked: int = 0
    broken: bool = False


@pytest.fixture
def login() -> Iterator[Login]:
    made = Login()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked += 1
            body = json.dumps({"keys": made.keys}).encode()
            self.send_response(500 if made.broken else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}/jwks"
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def tokens(login: Login, clock: Clock | None = None, **changes: Any) -> Tokens:
    return Tokens(Issuer("https://login", "predictions", login.url, **changes), clock or Clock())


def signed(
    key: Any = RSA, algorithm: str = "RS256", kid: str | None = "first", **claims: Any
) -> str:
    content = {
        "iss": "https://login", "aud": "predictions", "sub": "ada", "exp": time.time() + 600,
        "roles": ["operator@trips"], **claims,
    }  # fmt: skip
    content = {name: value for name, value in content.items() if value is not None}
    return jwt.encode(content, key, algorithm, headers={"kid": kid} if kid else None)


def caller(held: Tokens, token: str) -> Caller:
    return asyncio.run(held.caller(token))


def test_a_token_says_who_asks_and_what_is_granted(login: Login) -> None:
    expires_at = datetime.fromtimestamp(2_000_000_000, UTC)
    expected = Caller(
        "ada",
        frozenset({Grant("operator", "trips")}),
        principal="token:https://login#ada",
        expires_at=expires_at,
    )
    assert caller(tokens(login), signed(exp=2_000_000_000)) == expected


@pytest.mark.parametrize(
    ("key", "algorithm"), [(RSA, "RS256"), (ELLIPTIC, "ES256"), (EDWARDS, "EdDSA")]
)
def test_signatures_of_three_kinds_are_taken(login: Login, key: Any, algorithm: str) -> None:
    login.keys = [published("first", key)]
    assert caller(tokens(login), signed(key, algorithm)).name == "ada"


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"iss": "https://elsewhere"}, "issuer"),
        ({"aud": "something else"}, "[Aa]udience"),
        ({"exp": 1}, "expired"),
        ({"exp": None}, "exp"),
        ({"aud": None}, "aud"),
        ({"iss": None}, "iss"),
        ({"sub": None}, "sub"),
        ({"nbf": 4e9}, "not yet valid"),
    ],
)
def test_a_token_that_is_not_for_here_and_now_is_refused(
    login: Login, claims: dict[str, Any], said: str
) -> None:
    with pytest.raises(Unauthenticated, match=said):
        caller(tokens(login), signed(**claims))


def test_clocks_may_differ_a_little(login: Login) -> None:
    assert caller(tokens(login), signed(exp=time.time() - 20)).name == "ada"
    with pytest.raises(Unauthenticated, match="expired"):
        caller(tokens(login), signed(exp=time.time() - 40))


def test_a_signature_of_somebody_else_is_refused(login: Login) -> None:
    with pytest.raises(Unauthenticated, match=r"[Ss]ignature"):
        caller(tokens(login), signed(OTHER))


def part(document: dict[str, Any]) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=")


def forged(algorithm: str, signature: bytes | None = None) -> str:
    """A token whose head and claims are as they should be, the algorithm aside."""
    claims = jwt.decode(signed(), options={"verify_signature": False})
    text = part({"alg": algorithm, "kid": "first", "typ": "JWT"}) + b"." + part(claims)
    if signature is None:
        pem = RSA.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        signature = hmac.new(pem, text, hashlib.sha256).digest()
    return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


@pytest.mark.parametrize("algorithm", ["none", "None", "nOnE", ""])
def test_a_token_without_a_signature_is_refused(login: Login, algorithm: str) -> None:
    with pytest.raises(Unauthenticated):
        caller(tokens(login), forged(algorithm, b""))


def test_a_token_signed_with_what_is_published_is_refused(login: Login) -> None:
    with pytest.raises(Unauthenticated, match="HS256 are not taken"):
        caller(tokens(login), forged("HS256"))
    # Nor does it help to say that the signature is of another kind.
    with pytest.raises(Unauthenticated):
        caller(tokens(login), forged("RS256"))
    with pytest.raises(Unauthenticated):
        caller(tokens(login), forged("ES256"))


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "..", "é.é.é", "\x00", "x" * 100_000])
def test_what_is_no_token_is_refused(login: Login, token: str) -> None:
    with pytest.raises(Unauthenticated):
        caller(tokens(login), token)


def test_keys_for_other_uses_and_secrets_are_no_keys(login: Login) -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "first", "alg": "HS256"}
    for keys in ([secret], [published("first", RSA, use="enc")], [{"kty": "new"}]):
        login.keys = keys
        with pytest.raises(Unauthenticated, match="does not publish"):
            caller(tokens(login), signed())


def test_a_new_key_is_fetched_when_a_token_names_it(login: Login) -> None:
    clock = Clock()
    held = tokens(login, clock)
    caller(held, signed())
    login.keys = [published("second", OTHER)]
    clock.now += FETCH_SECONDS
    assert caller(held, signed(OTHER, kid="second")).name == "ada"
    assert login.asked == 2
    with pytest.raises(Unauthenticated, match="does not publish"):
        caller(held, signed(sub="bob"))


def test_unknown_keys_do_not_send_the_service_asking_each_time(login: Login) -> None:
    clock = Clock()
    held = tokens(login, clock)
    for number in range(50):
        with pytest.raises(Unauthenticated, match="does not publish"):
            caller(held, signed(kid=f"made up {number}"))
    assert login.asked == 1


def test_a_key_that_is_withdrawn_is_not_trusted_for_ever(login: Login) -> None:
    clock = Clock()
    held = tokens(login, clock)
    caller(held, signed())
    login.keys = [published("second", OTHER)]
    clock.now += STALE_SECONDS + 1
    with pytest.raises(Unauthenticated, match="does not publish"):
        caller(held, signed())


def test_keys_that_are_known_work_while_the_issuer_is_unavailable(login: Login) -> None:
    clock = Clock()
    held = tokens(login, clock)
    caller(held, signed())
    login.broken = True
    clock.now += STALE_SECONDS + 1
    assert caller(held, signed()).name == "ada"
    with pytest.raises(IssuerUnavailable):
        caller(tokens(login), signed())


@pytest.mark.slow
def test_a_token_that_was_checked_ends_all_the_same(login: Login) -> None:
    held = tokens(login, leeway_seconds=0)
    token = signed(exp=time.time() + 3)
    assert caller(held, token).name == "ada"
    while time.time() < jwt.decode(token, options={"verify_signature": False})["exp"]:
        time.sleep(0.05)
    with pytest.raises(Unauthenticated, match="expired"):
        caller(held, token)


def test_keys_come_from_a_file_as_well(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [published("first", RSA)]}))
    assert caller(tokens(Login(url=str(file))), signed()).name == "ada"
    # With one key there is no need to name it.
    assert caller(tokens(Login(url=str(file))), signed(kid=None)).name == "ada"


def test_groups_of_the_login_are_turned_into_grants(login: Login) -> None:
    held = tokens(
        login, claim="realm_access.groups",
        grants={"ml-ops": ("operator@trips", "reader@*"), "chiefs": ("admin@*",)},
    )  # fmt: skip
    token = signed(realm_access={"groups": ["ml-ops", "canteen"]}, roles=["admin@*"])
    assert caller(held, token).grants == {Grant("operator", "trips"), Grant("reader", "*")}


@pytest.mark.parametrize("roles", [None, 7, {"a": 1}, ["boss@trips", 3, None, "operator"], "admin"])
def test_claims_that_mean_nothing_grant_nothing(login: Login, roles: Any) -> None:
    found = caller(tokens(login), signed(roles=roles))
    assert (found.name, found.grants) == ("ada", frozenset())


def test_keys_are_not_fetched_in_the_clear() -> None:
    with pytest.raises(AccessError, match="use https"):
        Issuer("https://login", "predictions", "http://login.example.org/jwks")
    with pytest.raises(AccessError, match="no role"):
        Issuer("https://login", "predictions", "keys.json", grants={"x": ("boss@*",)})
