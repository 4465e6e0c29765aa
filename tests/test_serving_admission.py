"""Who is let in, by what a request says of its caller, and how often each may ask."""

import asyncio
import json
import time
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, cast

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm

from ml_platform.access import Caller, Grant, KeyRing
from ml_platform.errors import AccessError, RateExceeded, RequestRefused, Unauthenticated
from ml_platform.serving import admission
from ml_platform.serving.admission import (
    NOBODY,
    UNASKED,
    Admission,
    Rates,
    check_exposure,
    with_address,
)
from ml_platform.settings import ServingSettings

ADA = Caller("ada", frozenset({Grant("operator", "trips")}))
SIGNER = ec.generate_private_key(ec.SECP256R1())


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Ring:
    """A key ring that knows one key."""

    def __init__(self) -> None:
        self.asked: list[datetime] = []

    def caller(self, text: str, now: datetime) -> Caller:
        self.asked.append(now)
        if text != "mlp_1_secret":
            raise Unauthenticated("the key is not known here")
        return ADA


def made(**settings: Any) -> Admission:
    declared = {"authentication": True, **settings}
    return Admission(cast(KeyRing, Ring()), ServingSettings(**declared))


def admit(to: Admission, authorization: str | None = None, api_key: str | None = None) -> Caller:
    return asyncio.run(to.admit(authorization, api_key))


@pytest.fixture
def oidc(tmp_path: Path) -> dict[str, Any]:
    """Settings of an issuer whose keys are in a file."""
    keys = [{**ECAlgorithm.to_jwk(SIGNER.public_key(), as_dict=True), "kid": "one"}]
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": keys}))
    return {
        "oidc_issuer": "https://login", "oidc_audience": "predictions",
        "oidc_keys": str(tmp_path / "jwks.json"),
    }  # fmt: skip


def token(**changes: Any) -> str:
    claims = {
        "iss": "https://login", "aud": "predictions", "sub": "bob", "exp": time.time() + 600,
        "roles": ["reader@trips"], **changes,
    }  # fmt: skip
    return jwt.encode(claims, SIGNER, "ES256", headers={"kid": "one"})


def taken(rates: Rates, clock: Clock, name: str = "ada") -> int:
    """How many requests are taken at once."""
    for count in range(10_000):
        if rates.wait_seconds(name):
            return count
    raise AssertionError("no limit was met")


def test_whoever_was_idle_has_the_burst_and_no_more() -> None:
    clock = Clock()
    rates = Rates(1.0, 5, clock)
    assert taken(rates, clock) == 5
    clock.now = 3.0
    assert taken(rates, clock) == 3
    clock.now = 3600.0
    assert taken(rates, clock) == 5


@given(
    st.floats(0.5, 100), st.integers(1, 20),
    st.lists(st.floats(0, 5), min_size=1, max_size=60), st.integers(0, 59),
)  # fmt: skip
def test_in_no_range_of_time_is_more_taken_than_burst_and_rate(
    per_second: float, burst: int, pauses: list[float], first: int
) -> None:
    clock, begun, counted = Clock(), 0.0, 0
    rates = Rates(per_second, burst, clock)
    for number, pause in enumerate(pauses):
        clock.now += pause
        if number == first:
            begun, counted = clock.now, 0
        counted += taken(rates, clock)
    assert counted <= burst + per_second * (clock.now - begun) + 1e-3


@given(st.floats(0.01, 1000), st.integers(1, 20), st.floats(0, 1e5))
def test_who_waits_as_long_as_asked_is_let_in(per_second: float, burst: int, start: float) -> None:
    clock = Clock()
    clock.now = start
    rates = Rates(per_second, burst, clock)
    for _ in range(burst):
        assert rates.wait_seconds("ada") == 0
    wait = rates.wait_seconds("ada")
    assert wait - 1.001 <= 1 / per_second <= wait + 0.001
    clock.now += wait
    assert rates.wait_seconds("ada") == 0


@pytest.mark.parametrize(
    ("per_second", "wait", "said"),
    [
        (2.0, 1, "ada asks more often than 2 times a second"),
        (0.3, 4, "ada asks more often than 0.3 times a second"),
    ],
)
def test_who_asks_too_often_learns_when_to_come_again(
    per_second: float, wait: int, said: str
) -> None:
    clock = Clock()
    rates = Rates(per_second, 1, clock)
    rates.take("ada")
    with pytest.raises(RateExceeded) as refused:
        rates.take("ada")
    assert (str(refused.value), refused.value.retry_after_seconds) == (said, wait)
    # What is refused is not counted, and not on the account of others.
    clock.now = 1 / per_second
    rates.take("ada")
    rates.take("bob")


def test_requests_that_come_exactly_when_they_may_are_all_let_in() -> None:
    clock = Clock()
    rates = Rates(10.0, 1, clock)
    for number in range(1000):
        clock.now = number * 0.1
        rates.take("ada")
    clock.now += 0.099
    with pytest.raises(RateExceeded):
        rates.take("ada")


def test_time_passes_by_itself() -> None:
    rates = Rates(0.001, 1)
    rates.take("ada")
    assert 990 < rates.wait_seconds("ada") <= 1000


def test_without_a_limit_everybody_may() -> None:
    rates = Rates(None, 1, Clock())
    assert [rates.wait_seconds("ada") for _ in range(100)] == [0] * 100


def test_those_who_asked_longest_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MOST_NAMES", 2)
    clock = Clock()
    rates = Rates(1.0, 2, clock)
    for name in ("ada", "bob", "ada", "cyd"):
        rates.take(name)
    # Bob was forgotten, ada was not: she asked after him.
    assert [taken(rates, clock, name) for name in ("ada", "cyd", "bob")] == [0, 1, 2]


def test_without_authentication_everybody_is_the_same_nobody() -> None:
    alone = made(authentication=False, requests_per_second=0.01, burst=2)
    assert not alone.on
    assert admit(alone, "Bearer mlp_1_secret") is admit(alone, None, None) is NOBODY
    with pytest.raises(RateExceeded, match=r"^anonymous asks more often than 0\.01 times"):
        admit(alone)


def test_whoever_is_asked_nothing_may_nothing_and_nobody_may_all() -> None:
    assert (NOBODY.name, NOBODY.is_proved, NOBODY.may("approve", "*")) == ("anonymous", False, True)
    assert (UNASKED.name, UNASKED.is_proved, UNASKED.grants) == ("anonymous", False, frozenset())


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        ("Bearer mlp_1_secret", None),
        ("bEARER   mlp_1_secret  ", None),
        (None, " mlp_1_secret "),
        ("Bearer mlp_1_secret", "mlp_1_wrong"),
    ],
)
def test_a_key_is_read_from_either_header(authorization: str | None, api_key: str | None) -> None:
    to = made()
    before = datetime.now(UTC)
    assert admit(to, authorization, api_key) is ADA
    (asked,) = cast(Ring, to.ring).asked
    assert before <= asked <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("authorization", "api_key", "said"),
    [
        ("Bearer mlp_1_other", None, "the key is not known here"),
        ("Bearer mlp_1_other", "mlp_1_secret", "the key is not known here"),
        (None, "other", "the key is not known here"),
        (
            "Basic mlp_1_secret", "mlp_1_secret",
            "the Authorization header should be `Bearer` and a key",
        ),
        ("", None, "the Authorization header should be `Bearer` and a key"),
        (
            None, None,
            "say who you are: send `Authorization: Bearer <key>`, or the key as `X-API-Key`",
        ),
    ],
)  # fmt: skip
def test_who_has_no_key_learns_what_to_send(
    authorization: str | None, api_key: str | None, said: str
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        admit(made(), authorization, api_key)
    assert str(refused.value) == said


def test_each_caller_has_an_allowance_of_their_own(oidc: dict[str, Any]) -> None:
    to = made(requests_per_second=0.01, burst=2, **oidc)
    for _ in range(2):
        admit(to, "Bearer mlp_1_secret")
        admit(to, f"Bearer {token()}")
    for text in ("mlp_1_secret", token()):
        with pytest.raises(RateExceeded):
            admit(to, f"Bearer {text}")


def test_a_token_is_asked_of_the_issuer_and_a_key_of_the_ring(oidc: dict[str, Any]) -> None:
    to = made(**oidc)
    bob = admit(to, f"Bearer {token()}")
    assert (bob.name, bob.grants) == ("bob", frozenset({Grant("reader", "trips")}))
    assert cast(Ring, to.ring).asked == []
    assert admit(to, "Bearer mlp_1_secret") is ADA
    with pytest.raises(Unauthenticated, match="the key is not known here"):
        admit(to, "Bearer mlp_2_secret")
    with pytest.raises(Unauthenticated, match="neither a key nor a token"):
        admit(to, "Bearer mlp")


@pytest.mark.parametrize(
    "changes", [{"iss": "https://other"}, {"aud": "others"}, {"exp": time.time() - 3600}]
)
def test_a_token_of_others_is_not_taken(oidc: dict[str, Any], changes: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated, match="the token is not taken"):
        admit(made(**oidc), f"Bearer {token(**changes)}")


def test_claims_grants_and_leeway_are_those_of_the_settings(oidc: dict[str, Any]) -> None:
    grants = {"staff": ("approver@trips",)}
    to = made(**oidc, oidc_claim="groups", oidc_grants=grants, oidc_leeway_seconds=200)
    late = token(groups=["staff"], roles=["admin@*"], exp=time.time() - 100)
    assert admit(to, f"Bearer {late}").grants == {Grant("approver", "trips")}


@pytest.mark.parametrize("given", [each for each in product([0, 1], repeat=3) if 0 < sum(each) < 3])
def test_half_an_issuer_is_refused(oidc: dict[str, Any], given: tuple[int, ...]) -> None:
    some = {name: value for (name, value), kept in zip(oidc.items(), given, strict=True) if kept}
    with pytest.raises(AccessError) as refused:
        made(**some)
    assert str(refused.value) == (
        "tokens are checked by issuer, audience and keys: set ML_PLATFORM_SERVING_OIDC_ISSUER, "
        "_OIDC_AUDIENCE and _OIDC_KEYS, or none of them"
    )


def test_a_service_that_others_reach_needs_authentication() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        check_exposure(ServingSettings(host=host))
    check_exposure(ServingSettings(host="0.0.0.0", authentication=True))
    with pytest.raises(AccessError) as refused:
        made(host="0.0.0.0", authentication=False)
    assert str(refused.value) == (
        "ML_PLATFORM_SERVING_HOST=0.0.0.0 can be reached by others, and authentication is off: "
        "set ML_PLATFORM_SERVING_AUTHENTICATION=true and give each caller a key "
        "(`ml-platform keys create`), or listen on 127.0.0.1"
    )


WRONG = Unauthenticated("the key is not known here")


def test_failed_logins_are_counted_and_other_errors_are_not() -> None:
    to = made(failures_per_second=0.01, failures_burst=2)
    other = RequestRefused("no such column")
    assert [to.refused(other, "10.0.0.1") for _ in range(5)] == [other] * 5
    assert [to.refused(WRONG, "10.0.0.1") for _ in range(2)] == [WRONG] * 2
    reported = to.refused(WRONG, "10.0.0.1")
    assert isinstance(reported, RateExceeded)
    assert str(reported) == "too many failed logins from your address"
    assert 98 <= reported.retry_after_seconds <= 100
    # Who has a key is let in all the same.
    assert admit(to, "Bearer mlp_1_secret") is ADA
    assert to.refused(WRONG, "10.0.0.2") is WRONG


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("2001:db8::1", "2001:db8:0:0:ffff::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("testclient", "testclient", True),
        ("testclient", "other", False),
        (None, "", True),
        (None, "10.0.0.1", False),
    ],
)
def test_failures_are_counted_by_address_and_of_ipv6_by_customer(
    one: str | None, other: str | None, same: bool
) -> None:
    to = made(failures_per_second=0.01, failures_burst=1)
    assert to.refused(WRONG, one) is WRONG
    assert (to.refused(WRONG, other) is not WRONG) is same


def test_a_caller_whom_nobody_knows_is_named_by_an_address_of_bounded_length() -> None:
    assert with_address(ADA, "10.0.0.1") is ADA
    assert with_address(NOBODY, None) is with_address(NOBODY, "") is NOBODY
    named = with_address(NOBODY, "x" * 61)
    assert (named.name, named.grants) == (f"anonymous@{'x' * 60}", NOBODY.grants)
