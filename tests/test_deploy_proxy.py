"""The login in front of the UIs: a real Apache, the real servers, and a provider that runs here."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import jwt
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from tests.apache_proxy import APACHE, MODULES, UIS, Proxy, proxied
from tests.browsers import needs_chromium, opened_browser

COOKIE = "ml_platform_session"
PROGRAM = {"accept": "*/*"}
"""What a program says that runs in a page, and curl."""
FORGED = {
    "authorization": "Bearer mlp_made_up", "x-api-key": "mlp_made_up", "x-real-ip": "203.0.113.9",
    "forwarded": "for=203.0.113.9", "x-forwarded-for": "203.0.113.9",
    "x-forwarded-host": "evil.example.org", "x-forwarded-server": "evil.example.org",
    "x-forwarded-port": "1", "x-forwarded-proto": "gopher",
    "oidc_claim_groups": "ml-operators", "oidc-claim-sub": "eve", "oidc_access_token": "made-up",
}  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        APACHE is None or not (MODULES / "mod_auth_openidc.so").exists(),
        reason="libapache2-mod-auth-openidc is not installed",
    ),
]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with proxied(tmp_path_factory.mktemp("deployment")) as running:
        yield running


@pytest.fixture(scope="module")
def ada(proxy: Proxy) -> Iterator[httpx.Client]:
    """Somebody who may read, logged in."""
    with proxy.logged_in("ada", url("dagster")) as (browser, page):
        assert page.status_code == 200, page.text
        yield browser


def url(name: str, path: str = "/") -> str:
    return f"https://{name}.ml.example.org{path}"


def session(browser: httpx.Client) -> dict[str, str]:
    return {"cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}


def is_sent_to_the_login(answer: httpx.Response, proxy: Proxy) -> bool:
    return answer.status_code == 302 and answer.headers["location"].startswith(
        f"{proxy.provider.url}/authorize?"
    )


@pytest.mark.parametrize("name", UIS)
def test_nobody_gets_on_without_a_login(proxy: Proxy, name: str) -> None:
    heard = len(proxy.behind[name].heads)
    for headers in ({}, FORGED, {"cookie": f"{COOKIE}=eve"}):
        for path in ("/", "/graphql", "/metrics", "/static/x", "//", "/openid/x", "/a%2Fb"):
            with proxy.browser() as browser:
                page = browser.get(url(name, path), headers=headers)
                assert is_sent_to_the_login(page, proxy), (path, page)
                # A page's own program, and what nobody can be sent back to, gets an error.
                program = browser.get(url(name, path), headers={**headers, **PROGRAM})
                assert program.status_code == 401, (path, program)
                posted = browser.post(url(name, path), headers=headers, json={})
                assert posted.status_code == 401, (path, posted)
    assert len(proxy.behind[name].heads) == heard


def test_the_login_asks_for_a_code_with_pkce(proxy: Proxy) -> None:
    with proxy.browser() as browser:
        there = browser.get(url("mlflow")).headers["location"]
        asked = parse_qs(urlsplit(there).query)
        assert asked["response_type"] == ["code"]
        assert asked["code_challenge_method"] == ["S256"]
        assert len(asked["code_challenge"][0]) == 43
        assert asked["redirect_uri"] == ["https://login.ml.example.org/openid"]
        # A code that somebody else brings is nothing without what this browser was given.
        made_up = browser.get(url("login", f"/openid?code=x&state={asked['state'][0]}x"))
        assert COOKIE not in browser.cookies, made_up
        assert is_sent_to_the_login(browser.get(url("mlflow")), proxy)


def test_one_login_leads_to_the_page_asked_for_and_serves_all_hosts(proxy: Proxy) -> None:
    with proxy.logged_in("ben", url("dagster", "/runs?view=list")) as (browser, page):
        assert page.status_code == 200
        # The module names the port that it listens at, which is another one in a test.
        assert str(page.url.copy_with(port=None)) == url("dagster", "/runs?view=list")
        assert "dagster" in page.text.lower()
        (reported,) = [
            cookie
            for step in page.history
            for cookie in step.headers.get_list("set-cookie")
            if cookie.startswith(COOKIE)
        ]
        assert (
            reported.split("; ", 1)[1]
            == "Path=/; Domain=ml.example.org; Secure; HttpOnly; SameSite=Lax"
        )
        assert "MLflow" in browser.get(url("mlflow")).text
        assert "trips" in browser.get(url("pages")).text
        # The pages know who asks, and what that person may not.
        refused = browser.post(
            url("pages", "/trips/versions/1/answer"),
            data={"decision": "approve", "reason": "mine"},
            headers={"Origin": "https://pages.ml.example.org"},
        )
        assert refused.status_code == 403
        assert "ben lacks the permission" in refused.text
        assert browser.get(url("service", "/status/trips")).json()["use_case"] == "trips"
        asked = browser.post(url("dagster", "/graphql"), json={"query": "{ version }"})
        assert asked.json()["data"]["version"].startswith("1.")


def test_many_tabs_may_wait_for_a_login(proxy: Proxy) -> None:
    with proxy.browser() as browser:
        for tab in range(12):
            assert is_sent_to_the_login(browser.get(url("dagster", f"/{tab}")), proxy)
        states = [name for name in browser.cookies if "state" in name]
    assert len(states) <= 8


def test_who_asks_without_tls_is_sent_to_where_it_is(proxy: Proxy) -> None:
    asked = f"http://127.0.0.1:{proxy.plain}/runs?view=list"
    answer = httpx.get(asked, headers={"host": "dagster.ml.example.org"}, timeout=60)
    there = (answer.status_code, answer.headers["location"])
    assert there == (301, url("dagster", "/runs?view=list"))


def test_only_the_group_gets_in(proxy: Proxy) -> None:
    with proxy.logged_in("eve", url("dagster", "/eve")) as (browser, page):
        for answer in (page, *(browser.get(url(name, "/eve")) for name in UIS)):
            assert answer.status_code == 403
            assert "Your account may not use this" in answer.text
        arrived = [head for ear in proxy.behind.values() for head in ear.heads]
        assert not any("/eve" in head for head in arrived)


def test_a_session_that_was_tampered_with_logs_in_again(proxy: Proxy, ada: httpx.Client) -> None:
    good = ada.cookies[COOKIE]
    for bad in (good[:-1], f"{good}x", good.swapcase(), f"{good[:-4]}AAAA", "..%2Fx", "../cache/x"):
        with proxy.browser() as browser:
            page = browser.get(url("dagster"), headers={"cookie": f"{COOKIE}={bad}"})
            assert is_sent_to_the_login(page, proxy), bad


def test_a_page_of_another_origin_cannot_use_the_login(ada: httpx.Client) -> None:
    for name in UIS:
        for origin in ("https://evil.example.org", "https://ml.example.org", "null"):
            answer = ada.post(url(name, "/graphql"), headers={"origin": origin}, json={})
            assert answer.status_code == 403, (name, origin)
    own = {"origin": url("dagster", "")}
    assert ada.post(url("dagster", "/graphql"), headers=own, json={"query": "{ version }"}).json()


@contextmanager
def socket_to_dagster(
    proxy: Proxy, headers: dict[str, str], origin: str
) -> Iterator[ClientConnection]:
    # `ws`, since the socket that is handed over speaks TLS already.
    with (
        proxy.connected("dagster") as safe,
        connect(
            "ws://dagster.ml.example.org/graphql",
            sock=safe,
            subprotocols=[Subprotocol("graphql-ws")],
            additional_headers=headers,
            origin=Origin(origin),
            # Ten seconds by default, which a busy machine exceeds.
            open_timeout=60,
        ) as pages,
    ):
        yield pages


def test_dagsters_pages_follow_over_a_websocket(proxy: Proxy, ada: httpx.Client) -> None:
    here = url("dagster", "")
    with socket_to_dagster(proxy, session(ada), here) as pages:
        pages.send(json.dumps({"type": "connection_init"}))
        assert json.loads(pages.recv(60))["type"] == "connection_ack"
        query = 'subscription { pipelineRunLogs(runId: "none") { __typename } }'
        pages.send(json.dumps({"type": "start", "id": "1", "payload": {"query": query}}))
        reported = json.loads(pages.recv(60))["payload"]["data"]["pipelineRunLogs"]
        assert reported == {"__typename": "PipelineRunLogsSubscriptionFailure"}
    for headers, origin, status in (
        (FORGED, here, 401),
        ({"cookie": f"{COOKIE}=eve"}, here, 401),
        (session(ada), "https://evil.example.org", 403),
    ):
        with (
            pytest.raises(InvalidStatus) as refused,
            socket_to_dagster(proxy, headers, origin),
        ):
            pass
        assert refused.value.response.status_code == status


def test_mlflow_is_asked_and_given_large_artifacts(proxy: Proxy, ada: httpx.Client) -> None:
    path = "/ajax-api/2.0/mlflow/experiments/search"
    found = ada.post(url("mlflow", path), json={"max_results": 5})
    assert found.json()["experiments"][0]["name"] == "Default"
    artifacts = url("mlflow", "/api/2.0/mlflow-artifacts/artifacts")
    big = os.urandom(64 << 20)
    for name, sent, content in (
        ("big.bin", big, big),
        ("in_chunks.bin", (big[at : at + 65536] for at in range(0, len(big), 65536)), big),
        ("a%20b%25c%2Bd.txt", b"small", b"small"),
    ):
        assert ada.put(f"{artifacts}/{name}", content=sent).status_code == 200
        assert ada.get(f"{artifacts}/{name}").content == content
    # Gigabytes are handed on as they come, whatever is still to come.
    head = "PUT /api/2.0/mlflow-artifacts/artifacts/huge.bin HTTP/1.1\r\n"
    lines = {"host": "mlflow.ml.example.org", "content-length": str(3 << 30), **session(ada)}
    with proxy.connected("mlflow") as safe:
        text = head + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"
        safe.sendall(text.encode() + bytes(1 << 20))
        arrived = proxy.behind["mlflow"].of("/api/2.0/mlflow-artifacts/artifacts/huge.bin")
        assert arrived["content-length"] == str(3 << 30)


def test_what_a_caller_makes_up_never_arrives(proxy: Proxy, ada: httpx.Client) -> None:
    for name in UIS:
        ada.get(url(name, "/made-up"), headers=FORGED)
        arrived = proxy.behind[name].of("/made-up")
        said = {key for key in arrived if key.startswith(("x-", "oidc", "forwarded", "auth"))}
        allowed = {f"x-forwarded-{what}" for what in ("proto", "for", "host", "server")}
        assert said == (allowed | {"authorization"} if name in {"service", "pages"} else allowed)
        assert arrived["x-forwarded-for"] == "127.0.0.1"
        assert arrived["x-forwarded-host"] == arrived["host"] == f"{name}.ml.example.org"
        assert arrived["x-forwarded-proto"] == "https"
        assert "made" not in arrived.get("authorization", "")
        unheard = ada.get(url(name, "/unheard"), headers={"x-forwarded-prefix": "/evil"})
        assert unheard.status_code == 403
        # Nor does the session arrive, which opens the other hosts.
        assert COOKIE not in arrived.get("cookie", "")
        assert not any("/unheard" in head for head in proxy.behind[name].heads)


def test_the_service_distinguishes_people_by_their_token(proxy: Proxy, ada: httpx.Client) -> None:
    with proxy.logged_in("ben", url("dagster")) as (ben, _):
        asked = url("service", "/predict/trips")
        answers = [who.post(asked, json={"rows": []}, headers=FORGED) for who in (ada, ben)]
        # What Ben asks for is wrong, but his to ask.
        assert [answer.status_code for answer in answers] == [403, 400], answers
        assert ben.post(asked, content=bytes(9 << 20)).status_code == 413
        arrived = proxy.behind["service"].of("/predict/trips")["authorization"]
        claims = jwt.decode(arrived.removeprefix("Bearer "), options={"verify_signature": False})
        assert (claims["iss"], claims["aud"]) == (proxy.provider.url, "ml-platform")


@contextmanager
def short_tokens(proxy: Proxy) -> Iterator[None]:
    """Tokens end in less than the minute before which they are renewed."""
    proxy.provider.seconds = 50
    try:
        yield
    finally:
        proxy.provider.seconds = 3600


def test_tokens_are_renewed_before_they_end(proxy: Proxy) -> None:
    with short_tokens(proxy), proxy.logged_in("ada", url("dagster")) as (browser, _):
        tokens = []
        for number in range(3):
            path = f"/status/trips?renewed={number}"
            assert browser.get(url("service", path)).status_code == 200
            tokens.append(proxy.behind["service"].of(path)["authorization"])
        # So do the requests of one page, side by side.
        with ThreadPoolExecutor(8) as pool:
            pages = list(pool.map(browser.get, [url("service", "/status/trips")] * 40))
        assert {page.status_code for page in pages} == {200}
    assert len(set(tokens)) == 3


def test_who_is_taken_out_of_the_group_is_out_at_the_next_renewal(proxy: Proxy) -> None:
    person = proxy.provider.people["ben"]
    with short_tokens(proxy), proxy.logged_in("ben", url("dagster")) as (browser, page):
        assert page.status_code == 200
        before, person.groups = person.groups, ["sales"]
        try:
            assert browser.get(url("dagster")).status_code == 403
        finally:
            person.groups = before


def test_whose_renewal_the_provider_refuses_is_logged_out(proxy: Proxy) -> None:
    with short_tokens(proxy), proxy.logged_in("ben", url("dagster")) as (browser, _):
        cookie = session(browser)
        mine = {k: v for k, v in proxy.provider.renewable.items() if v.person.name == "ben"}
        for token in mine:
            del proxy.provider.renewable[token]
        assert browser.get(url("dagster")).headers["location"] == url("login")
        again = browser.get(url("dagster", "/graphql"), headers={**cookie, **PROGRAM})
        assert again.status_code == 401


def test_a_logout_ends_the_session_here_and_at_the_provider(proxy: Proxy) -> None:
    with proxy.logged_in("ben", url("dagster")) as (browser, _):
        cookie = session(browser)
        page = browser.get(url("login", "/logout"), follow_redirects=True)
        assert "You are logged out" in page.text
        assert str(page.url) == url("login")
        (asked,) = [
            step.url for step in page.history if str(step.url).startswith(proxy.provider.url)
        ]
        hint = jwt.decode(asked.params["id_token_hint"], options={"verify_signature": False})
        assert hint["sub"] == "ben"
        assert COOKIE not in browser.cookies
        # Who has kept the cookie has nothing, and the provider asks again.
        with proxy.browser() as thief:
            assert is_sent_to_the_login(thief.get(url("dagster"), headers=cookie), proxy)
        assert "Who are you?" in browser.get(url("dagster"), follow_redirects=True).text


def restart(proxy: Proxy) -> None:
    def starts() -> int:
        return (proxy.root / "error.log").read_text().count("resuming normal operations")

    before = starts()
    os.kill(int((proxy.root / "apache.pid").read_text()), signal.SIGHUP)
    until = time.monotonic() + 60
    while starts() == before:
        assert time.monotonic() < until, "Apache has not come back"
        time.sleep(0.1)


def test_a_restart_ends_no_session(proxy: Proxy, ada: httpx.Client) -> None:
    restart(proxy)
    assert ada.get(url("dagster")).status_code == 200


@contextmanager
def short_sessions(proxy: Proxy, **seconds: int) -> Iterator[None]:
    """Sessions end sooner than `openid.conf` says, by directive; never before the module allows."""
    configured = proxy.root / "proxy" / "openid.conf"
    usual = short = configured.read_text()
    for directive, many in seconds.items():
        short, found = re.subn(rf"^({directive} +)\d+$", rf"\g<1>{many}", short, flags=re.M)
        assert found == 1, directive
    try:
        configured.write_text(short)
        restart(proxy)
        yield
    finally:
        configured.write_text(usual)
        restart(proxy)


@pytest.mark.exhaustive
def test_a_session_ends_where_nothing_is_asked_and_at_last_whatever_is_asked(proxy: Proxy) -> None:
    idle, longest = 12, 36
    limits = {"OIDCSessionInactivityTimeout": idle, "OIDCSessionMaxDuration": longest}
    with (
        short_sessions(proxy, **limits),
        proxy.logged_in("ben", url("dagster")) as (silent, one),
        proxy.logged_in("ada", url("dagster")) as (busy, other),
    ):
        assert (one.status_code, other.status_code) == (200, 200)
        kept = {**session(silent), **PROGRAM}

        def ask_for(seconds: float) -> int:
            until = time.monotonic() + seconds
            while (answer := busy.get(url("dagster"))).status_code == 200:
                if time.monotonic() > until:
                    break
                time.sleep(1)
            return answer.status_code

        assert ask_for(idle + 3) == 200
        assert is_sent_to_the_login(silent.get(url("dagster")), proxy)
        assert silent.post(url("dagster", "/graphql"), headers=kept).status_code == 401
        assert busy.get(url("dagster")).status_code == 200
        kept = {**session(busy), **PROGRAM}
        assert ask_for(2 * longest) == 302
        assert is_sent_to_the_login(busy.get(url("dagster")), proxy)
        assert busy.post(url("dagster", "/graphql"), headers=kept).status_code == 401


@pytest.mark.parametrize(
    "there",
    [
        "https://evil.example.org/", "https://evilml.example.org/", "//evil.example.org/",
        "https://dagster.ml.example.org.evil.example/", "https:evil.example.org",
        "https://dagster.ml.example.org@evil.example.org/", "/\\evil.example.org",
        "http://dagster.ml.example.org/", "javascript:alert(1)",
    ],
)  # fmt: skip
def test_nobody_is_led_elsewhere(proxy: Proxy, ada: httpx.Client, there: str) -> None:
    issuer = quote(proxy.provider.url, safe="")
    for said in ("logout={}", f"iss={issuer}&target_link_uri={{}}", "refresh={}&access_token=x"):
        path = "/openid?" + said.format(quote(there, safe=""))
        with proxy.browser() as nobody:
            for browser in (nobody, ada):
                answer = browser.get(url("login", path))
                assert "location" not in answer.headers, (said, answer.headers)
    assert ada.get(url("dagster")).status_code == 200


def test_the_login_shows_nothing_else(proxy: Proxy, ada: httpx.Client) -> None:
    assert "logged out" in ada.get(url("login")).text
    for path in ("/x", "/logged_out.html", "/secrets.conf", "/openid.conf"):
        assert ada.get(url("login", path)).status_code == 403
    # Names nobody knows end there, whoever asks.
    with proxy.connected("login") as safe:
        safe.sendall(b"GET /runs HTTP/1.0\r\nHost: evil.example.org\r\n\r\n")
        assert safe.recv(100).startswith(b"HTTP/1.1 403")


def logged(proxy: Proxy, path: str) -> str:
    """The one line about a path; it is written a moment after the answer."""
    until = time.monotonic() + 60
    while not (found := [line for line in proxy.log if path in line]):
        assert time.monotonic() < until, proxy.log
        time.sleep(0.05)
    (line,) = found
    return line


@pytest.mark.exhaustive
def test_the_proxys_log_says_who_asked_for_what(proxy: Proxy, ada: httpx.Client) -> None:
    ada.get(url("dagster", "/runs?who"), headers=FORGED)
    with proxy.browser() as nobody:
        nobody.get(url("dagster", "/runs?nobody"), headers=FORGED)
    known = logged(proxy, "/runs?who")
    assert '"ada" "ada@example.org" dagster.ml.example.org "GET /runs?who" 200' in known
    unknown = logged(proxy, "/runs?nobody")
    assert '"-" "-" dagster.ml.example.org "GET /runs?nobody" 302' in unknown
    assert not any("code=" in line for line in proxy.log)


@pytest.mark.exhaustive
@needs_chromium
def test_a_browser_logs_in_and_shows_dagster(proxy: Proxy, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    here = f"MAP *.ml.example.org:443 127.0.0.1:{proxy.port}, MAP *.ml.example.org 127.0.0.1"
    with opened_browser(f"--host-resolver-rules={here}") as browser:
        window = browser.new_context(
            ignore_https_errors=True, viewport={"width": 1400, "height": 900}
        )
        page = window.new_page()
        page.goto(url("dagster", "/runs"), timeout=120_000)
        page.fill("input[name=name]", "ada")
        page.fill("input[name=password]", "ada")
        page.click("button")
        page.wait_for_url("https://dagster.ml.example.org*/runs**", timeout=120_000)
        expect(page.get_by_text("Deployment").first).to_be_visible(timeout=120_000)
        page.screenshot(path=tmp_path / "dagster.png")
        asked = "fetch('/graphql', {method: 'POST', body: '{}'}).then(a => a.status)"
        assert page.evaluate(asked) != 401
        # The session is over: the page's requests get an error, and are not sent to another page.
        window.clear_cookies(name=COOKIE)
        for seen in (asked, "fetch('/server_info').then(a => a.status)"):
            assert page.evaluate(seen) == 401
