"""An OpenID provider that runs here: people log in on its page, authlib hands out the tokens.

Authorization code flow, PKCE demanded; access tokens are JWTs (RFC 9068) for another audience than
the client; tokens are renewed, with an ID token of the day; RP-initiated logout.
"""

import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import flask
import trustme
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import ClientMixin, InvalidRequestError, grants
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from authlib.oidc.core import OpenIDCode
from authlib.oidc.rpinitiated import EndSessionEndpoint
from joserfc.jwk import KeySet, RSAKey
from werkzeug.serving import make_server

PAGE = """<!doctype html><title>Provider</title><h1>Who are you?</h1>
<form method="post"><input name="name"><input name="password" type="password">
<button>Log in</button></form>"""


@dataclass
class Person:
    """`name` is the subject of the tokens, and the password."""

    name: str
    groups: list[str]

    def get_user_id(self) -> str:
        return self.name

    @property
    def claims(self) -> dict[str, Any]:
        return {"sub": self.name, "email": f"{self.name}@example.org", "groups": self.groups}


@dataclass(frozen=True)
class Client(ClientMixin):
    id: str
    secret: str
    callback: str
    after_logout: str

    @property
    def client_metadata(self) -> dict[str, Any]:
        return {"post_logout_redirect_uris": [self.after_logout]}

    def get_client_id(self) -> str:
        return self.id

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri == self.callback

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == self.secret

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_basic"

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in {"authorization_code", "refresh_token"}


@dataclass(frozen=True)
class Code:
    """What somebody logged in for."""

    person: Person
    client: Client
    data: dict[str, str]

    def get_redirect_uri(self) -> str:
        return self.data["redirect_uri"]

    def get_scope(self) -> str:
        return self.data["scope"]

    def get_nonce(self) -> str | None:
        return self.data.get("nonce")

    def get_auth_time(self) -> int:
        return int(time.time())

    def get_acr(self) -> None:
        return None

    def get_amr(self) -> None:
        return None

    @property
    def code_challenge(self) -> str:
        return self.data["code_challenge"]

    @property
    def code_challenge_method(self) -> str:
        return self.data["code_challenge_method"]


@dataclass(frozen=True)
class Granted:
    """What a refresh token stands for."""

    person: Person
    client: Client
    scope: str

    def check_client(self, client: Client) -> bool:
        return client is self.client

    def get_scope(self) -> str:
        return self.scope


@dataclass
class Provider:
    """The provider's books, which tests change while it runs."""

    people: dict[str, Person]
    client: Client
    audience: str
    seconds: int = 3600
    """How long tokens live."""
    url: str = ""
    key: RSAKey = field(
        default_factory=lambda: RSAKey.generate_key(2048, {"use": "sig"}, auto_kid=True)
    )
    codes: dict[str, Code] = field(default_factory=dict)
    renewable: dict[str, Granted] = field(default_factory=dict)
    access: dict[str, Person] = field(default_factory=dict)
    renewed: int = 0
    """How often tokens were renewed."""

    @property
    def published(self) -> dict[str, Any]:
        return {"keys": [{**self.key.as_dict(private=False), "alg": "RS256"}]}


@contextmanager
def running(provider: Provider, authority: trustme.CA) -> Iterator[Provider]:
    """The provider at `https://127.0.0.1:…`, which becomes its `url`."""
    certificate = authority.issue_cert("127.0.0.1")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(tls)
    server = make_server("127.0.0.1", 0, create_app(provider), threaded=True, ssl_context=tls)
    provider.url = f"https://127.0.0.1:{server.server_port}"
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    ).start()
    try:
        yield provider
    finally:
        server.shutdown()


def create_app(provider: Provider) -> flask.Flask:
    app = flask.Flask("provider")
    app.secret_key = "only here"
    server = _server(provider, app)

    @app.get("/.well-known/openid-configuration")
    def metadata() -> dict[str, Any]:
        return {
            "issuer": provider.url,
            "authorization_endpoint": f"{provider.url}/authorize",
            "token_endpoint": f"{provider.url}/token",
            "userinfo_endpoint": f"{provider.url}/userinfo",
            "end_session_endpoint": f"{provider.url}/logout",
            "jwks_uri": f"{provider.url}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        }

    @app.get("/jwks")
    def jwks() -> dict[str, Any]:
        return provider.published

    @app.route("/authorize", methods=["GET", "POST"])
    def authorize() -> flask.typing.ResponseReturnValue:
        known = provider.people.get(flask.session.get("person", ""))
        if flask.request.method == "POST":
            asked = provider.people.get(flask.request.form["name"])
            if asked is None or flask.request.form["password"] != asked.name:
                return PAGE, 401
            flask.session["person"] = asked.name
            known = asked
        try:
            grant = server.get_consent_grant(end_user=known)
        except OAuth2Error as error:
            return f"refused: {error.error} {error.description}", 400
        if known is None:
            return PAGE
        return server.create_authorization_response(grant_user=known, grant=grant)

    @app.post("/token")
    def token() -> flask.typing.ResponseReturnValue:
        return server.create_token_response()

    @app.get("/userinfo")
    def userinfo() -> flask.typing.ResponseReturnValue:
        kind, _, token = flask.request.headers.get("authorization", "").partition(" ")
        person = provider.access.get(token)
        return ("no", 401) if kind != "Bearer" or person is None else person.claims

    @app.get("/logout")
    def logout() -> flask.typing.ResponseReturnValue:
        return server.create_endpoint_response("end_session") or "Logged out of the provider"

    return app


def _server(provider: Provider, app: flask.Flask) -> AuthorizationServer:
    """authlib's server, with the books of the provider."""
    keys = KeySet([provider.key])

    class CodeGrant(grants.AuthorizationCodeGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic"]

        def save_authorization_code(self, code: str, request: Any) -> None:
            provider.codes[code] = Code(request.user, request.client, dict(request.payload.data))

        def query_authorization_code(self, code: str, client: Client) -> Code | None:
            found = provider.codes.get(code)
            return found if found is not None and found.client is client else None

        def delete_authorization_code(self, authorization_code: Code) -> None:
            provider.codes = {k: v for k, v in provider.codes.items() if v != authorization_code}

        def authenticate_user(self, authorization_code: Code) -> Person:
            return authorization_code.person

    class Demanded(CodeChallenge):
        SUPPORTED_CODE_CHALLENGE_METHOD = ["S256"]

        def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
            if grant.request.payload.data.get("code_challenge_method") != "S256":
                raise InvalidRequestError("PKCE is demanded")
            super().validate_code_challenge(grant, redirect_uri)

    class IdToken(OpenIDCode):
        def exists_nonce(self, nonce: str, request: Any) -> bool:
            return any(code.get_nonce() == nonce for code in provider.codes.values())

        def resolve_client_private_key(self, client: Client) -> KeySet:
            return keys

        def get_client_claims(self, client: Client) -> dict[str, Any]:
            return {"iss": provider.url, "aud": client.id, "exp": time.time() + provider.seconds}

        def get_encode_header(self, client: Client) -> dict[str, Any]:
            return {"alg": "RS256", "kid": provider.key.kid}

        def generate_user_info(self, user: Person, scope: str) -> dict[str, Any]:
            return user.claims

    class Renewal(grants.RefreshTokenGrant):
        def authenticate_refresh_token(self, refresh_token: str) -> Granted | None:
            return provider.renewable.get(refresh_token)

        def authenticate_user(self, refresh_token: Granted) -> Person:
            provider.renewed += 1
            return refresh_token.person

        def revoke_old_credential(self, refresh_token: Granted) -> None:
            """It may be used again: requests at the same moment renew side by side."""

    class AccessToken(JWTBearerTokenGenerator):
        def get_jwks(self) -> KeySet:
            return keys

        def get_audiences(self, client: Client, user: Person, scope: str) -> str:
            return provider.audience

        def get_extra_claims(
            self, client: Client, grant_type: str, user: Person, scope: str
        ) -> dict[str, Any]:
            self.issuer = provider.url
            return {"iss": provider.url, "groups": user.groups}

    class Logout(EndSessionEndpoint):
        def get_server_jwks(self) -> KeySet:
            return keys

        def end_session(self, end_session_request: Any) -> None:
            flask.session.clear()

    def save(token: dict[str, Any], request: Any) -> None:
        provider.access[token["access_token"]] = request.user
        if "refresh_token" in token:
            granted = Granted(request.user, request.client, token["scope"])
            provider.renewable[token["refresh_token"]] = granted

    def client(name: str) -> Client | None:
        return provider.client if name == provider.client.id else None

    app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = True
    server = AuthorizationServer(app, query_client=client, save_token=save)
    server.register_grant(CodeGrant, [Demanded(), IdToken(require_nonce=True)])
    server.register_grant(Renewal, [IdToken()])
    generator = AccessToken(
        provider.url,
        refresh_token_generator=lambda **_: secrets.token_urlsafe(32),
        expires_generator=lambda client, grant_type: provider.seconds,
    )
    server.register_token_generator("default", generator)
    server.register_endpoint(Logout)
    return server
