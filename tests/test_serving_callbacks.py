"""Who is notified that a run has ended: permitted addresses, signatures, repeats, restarts."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ml_platform.access import Audit
from ml_platform.errors import NotKept, OrchestratorUnavailable, ParameterNotAllowed
from ml_platform.serving.callbacks import Callbacks, Receivers, open_callbacks
from ml_platform.serving.callbacks import callbacks as module
from ml_platform.serving.callbacks.post import Post, key_of
from ml_platform.serving.callbacks.store import CallbackStore, FileDatabase
from ml_platform.settings import ServingSettings, Settings
from ml_platform.storage import Lake
from tests.trips_use_case import settings

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef").decode()
RUN = "3f0c1b52-6d0e-4a53-9d8b-0a4c5f0f7a11"


@dataclass
class Receiver:
    """A server that answers what it is set to, and notes what it is sent."""

    statuses: list[int] = field(default_factory=list)
    """Of the next answers; 204 once there are none left."""
    calls: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            state.calls.append((self.path, headers, body))
            self.send_response(state.statuses.pop(0) if state.statuses else 204)
            self.send_header("Location", f"{state.url}/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    ).start()
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    lake = Lake(settings(tmp_path_factory.mktemp("callbacks")))
    yield lake
    lake.close()


@dataclass
class Runs:
    """What Dagster says of a run."""

    status: str = "running"
    failures: tuple[str, ...] = ()
    is_unavailable: bool = False

    def look(self, run: str, use_case: str) -> dict[str, Any]:
        if self.is_unavailable:
            raise OrchestratorUnavailable("http://dagster", "refused")
        over = self.status in {"succeeded", "failed", "ended"}
        reported = {"id": run, "use_case": use_case, "status": self.status, "is_over": over}
        return {"run": {**reported, "failures": list(self.failures)}, "links": {"self": f"/{run}"}}


def opened(
    lake: Lake, receiver: Receiver, runs: Runs, store: CallbackStore, **more: Any
) -> Callbacks:
    named = {"orchestrator": {"url": f"{receiver.url}/runs", "secret": SECRET,
                              "headers": {"Authorization": "Bearer hush"}}}  # fmt: skip
    serving = ServingSettings(
        callbacks=named, callback_uris=(f"{receiver.url}/workflows/",), **more
    )
    return Callbacks(lake, store, Receivers(serving), Post(serving), runs.look)


@pytest.fixture
def store(tmp_path: Path) -> CallbackStore:
    return CallbackStore(FileDatabase(tmp_path / "control" / "callbacks.sqlite"))


def due_now(store: CallbackStore) -> None:
    """As if time had passed."""
    store.database.execute("UPDATE ml_platform_callbacks SET next_at = 0")


KINDS = ("https://*.datafactory.azure.com/", "https://hooks.example.org:8443/runs")


@pytest.mark.parametrize(
    "uri",
    [
        "https://westeurope.svc.datafactory.azure.com/dataplane/callback/x?callbackUrl=token",
        "https://a.DataFactory.azure.com:443/",
        "https://hooks.example.org:8443/runs",
        "https://hooks.example.org:8443/runs/7",
    ],
)
def test_addresses_of_permitted_kinds_are_taken(uri: str) -> None:
    receivers = Receivers(ServingSettings(callback_uris=KINDS))
    (found,) = receivers.addressed([], uri)
    assert (found.url, found.is_registered) == (uri, False)


@pytest.mark.parametrize(
    "uri",
    [
        "http://a.datafactory.azure.com/",
        "https://datafactory.azure.com/",
        "https://a.datafactory.azure.com.evil.net/",
        "https://evil.net/a.datafactory.azure.com/",
        "https://evil.net#a.datafactory.azure.com/",
        "https://evil.net\\@a.datafactory.azure.com/",
        "https://a.datafactory.azure.com@evil.net/",
        "https://user:pw@a.datafactory.azure.com/",
        "https://a.datafactory.azure.com:22/",
        "https://hooks.example.org/runs",
        "https://hooks.example.org:8443/runs2",
        "https://hooks.example.org:8443/runs/../admin",
        "https://hooks.example.org:8443/runs/%2e%2e/admin",
        "https://hooks.example.org:8443/runs%2f..%2fadmin",
        "https://hooks.example.org:8443/",
        "https://hooks.example.org:99999/runs",
        "https://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "//hooks.example.org:8443/runs",
        "https://a.datafactory.azure.com/\r\nX-Injected: 1",
        "https://а.datafactory.azure.com/",  # noqa: RUF001
        "https://[::1]/",
        "https://",
        "runs",
    ],
)
def test_addresses_of_other_kinds_are_refused(uri: str) -> None:
    with pytest.raises(ParameterNotAllowed, match="is of no permitted kind"):
        Receivers(ServingSettings(callback_uris=KINDS)).addressed([], uri)


def test_without_a_setting_no_address_of_a_request_is_called() -> None:
    receivers = Receivers(ServingSettings())
    with pytest.raises(ParameterNotAllowed, match="calls no address of a request"):
        receivers.addressed([], "https://a.datafactory.azure.com/")
    with pytest.raises(ParameterNotAllowed, match="has no receiver 'orchestrator'"):
        receivers.addressed(["orchestrator"], None)
    assert receivers.addressed([], None) == ()


@pytest.mark.parametrize(
    "odd",
    [
        {"callback_uris": "https://*/"},
        {"callback_uris": "*"},
        {"callback_uris": "https://example.org"},
        {"callbacks": {"a": {"url": "ftp://example.org/", "secret": SECRET}}},
        {"callbacks": {"a": {"url": "https://example.org/", "secret": "short"}}},
        {"callbacks": {"a": {"url": "https://example.org/"}}},
        {"callbacks": {"a": {"url": "https://example.org/", "secret": "whsec_no base64 it is"}}},
    ],
)
def test_settings_that_would_permit_anything_are_refused(odd: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ServingSettings(**odd)


def test_a_receiver_is_notified_once_when_the_run_has_ended_and_knows_who_sent_it(
    lake: Lake, receiver: Receiver, store: CallbackStore
) -> None:
    runs = Runs()
    callbacks = opened(lake, receiver, runs, store)
    assert callbacks.turn() == 0
    callbacks.add(RUN, "trips", "ada", callbacks.addressed(["orchestrator"], None))
    callbacks.add(RUN, "trips", "ada", callbacks.addressed(["orchestrator"], None))
    assert (callbacks.turn(), receiver.calls) == (1, [])
    (reported,) = callbacks.states(RUN)
    assert (reported["to"], reported["status"], reported["attempts"]) == (
        "orchestrator",
        "waiting",
        0,
    )
    runs.status = "succeeded"
    due_now(store)
    assert callbacks.turn() == 1
    due_now(store)
    assert callbacks.turn() == 0
    ((path, headers, body),) = receiver.calls
    assert (path, headers["authorization"]) == ("/runs", "Bearer hush")
    assert json.loads(body)["type"] == "run.ended"
    assert json.loads(body)["run"]["status"] == "succeeded"
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = hmac.new(b"0123456789abcdef", signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(mac).decode()}"
    assert abs(time.time() - int(headers["webhook-timestamp"])) < 60
    (reported,) = callbacks.states(RUN)
    assert (reported["status"], reported["attempts"], reported["said"]) == (
        "delivered",
        1,
        "HTTP 204",
    )
    action = Audit(lake).rows(what="call back")[-1].action
    assert (action.object, action.details["outcome"]) == ("orchestrator", "delivered")
    assert (action.details["run"], action.details["for"]) == (RUN, "ada")


@pytest.mark.parametrize(
    ("status", "failures", "said"),
    [
        ("succeeded", (), {"StatusCode": "200"}),
        ("failed", ("trips/model: too little",), {
            "StatusCode": "500",
            "Error": {"ErrorCode": "failed", "Message": "trips/model: too little"},
        }),
        ("ended", (), {
            "StatusCode": "500", "Error": {"ErrorCode": "ended", "Message": "the run ended"},
        }),
    ],
)  # fmt: skip
def test_an_activity_of_data_factory_gets_the_form_that_it_takes(
    lake: Lake, receiver: Receiver, store: CallbackStore, status: str, failures: Any, said: Any
) -> None:
    callbacks = opened(lake, receiver, Runs(status, failures), store)
    uri = f"{receiver.url}/workflows/7?token=hush"
    callbacks.add(RUN, "trips", "ada", callbacks.addressed([], uri))
    callbacks.turn()
    ((path, headers, body),) = receiver.calls
    assert path == "/workflows/7?token=hush"
    answer = json.loads(body)
    assert answer.pop("Output")["run"]["id"] == RUN
    assert answer == said
    assert headers["content-type"] == "application/json"
    # The address opens something: it is shown nowhere, and kept no longer than needed.
    shown = json.dumps([callbacks.states(RUN), [str(r.action) for r in Audit(lake).rows()]])
    assert "hush" not in shown
    assert [each.url for each in store.of_run(RUN)] == [""]


def test_a_receiver_that_fails_is_called_again_less_and_less_often(
    lake: Lake, receiver: Receiver, store: CallbackStore
) -> None:
    receiver.statuses = [503, 500, 302, 404, 204]
    callbacks = opened(lake, receiver, Runs("succeeded"), store)
    callbacks.add(RUN, "trips", "ada", callbacks.addressed(["orchestrator"], None))
    waits, said = [], []
    for _ in range(4):
        before = time.time()
        callbacks.turn()
        (reported,) = store.of_run(RUN)
        waits.append(reported.next_at - before)
        said.append(reported.said)
        due_now(store)
    assert said == ["HTTP 503", "HTTP 500", "HTTP 302", "HTTP 404"]
    assert all(later > 1.3 * earlier for earlier, later in pairwise(waits))
    callbacks.turn()
    (reported,) = callbacks.states(RUN)
    assert (reported["status"], reported["attempts"]) == ("delivered", 5)
    # Not even a redirect is followed.
    assert {path for path, _, _ in receiver.calls} == {"/runs"}
    assert len({headers["webhook-id"] for _, headers, _ in receiver.calls}) == 1


def test_nobody_is_called_for_good(lake: Lake, receiver: Receiver, store: CallbackStore) -> None:
    receiver.statuses = [410]
    callbacks = opened(lake, receiver, Runs("succeeded"), store, callback_hours=1)
    callbacks.add("gone", "trips", "ada", callbacks.addressed(["orchestrator"], None))
    callbacks.turn()
    (reported,) = callbacks.states("gone")
    assert (reported["status"], reported["said"]) == ("given up", "HTTP 410")
    receiver.statuses = [503, 503]
    callbacks.add("late", "trips", "ada", callbacks.addressed(["orchestrator"], None))
    callbacks.turn()
    store.database.execute("UPDATE ml_platform_callbacks SET over_at = over_at - 3601")
    due_now(store)
    callbacks.turn()
    (reported,) = callbacks.states("late")
    assert (reported["status"], reported["attempts"]) == ("given up", 2)
    action = Audit(lake).rows(what="call back")[-1].action
    assert (action.details["outcome"], action.details["said"]) == ("given up", "HTTP 503")


def test_nothing_is_said_of_a_run_while_dagster_is_unavailable(
    lake: Lake, receiver: Receiver, store: CallbackStore
) -> None:
    runs = Runs("succeeded", is_unavailable=True)
    callbacks = opened(lake, receiver, runs, store)
    callbacks.add(RUN, "trips", "ada", callbacks.addressed(["orchestrator"], None))
    callbacks.turn()
    assert receiver.calls == []
    runs.is_unavailable = False
    due_now(store)
    callbacks.turn()
    assert len(receiver.calls) == 1


def test_a_receiver_that_is_taken_from_the_settings_is_called_no_more(
    lake: Lake, receiver: Receiver, store: CallbackStore
) -> None:
    callbacks = opened(lake, receiver, Runs("succeeded"), store)
    uri = f"{receiver.url}/workflows/7"
    callbacks.add(RUN, "trips", "ada", callbacks.addressed(["orchestrator"], uri))
    bare = ServingSettings()
    later = Callbacks(lake, store, Receivers(bare), Post(bare), Runs("succeeded").look)
    later.turn()
    assert receiver.calls == []
    assert [each["status"] for each in later.states(RUN)] == ["given up", "given up"]


def test_workers_that_look_at_once_call_once(
    lake: Lake, receiver: Receiver, store: CallbackStore
) -> None:
    workers = [opened(lake, receiver, Runs("succeeded"), store) for _ in range(4)]
    receivers = workers[0].addressed(["orchestrator"], None)
    for number in range(12):
        workers[0].add(f"run-{number}", "trips", "ada", receivers)
    with ThreadPoolExecutor(4) as threads:
        looked = list(threads.map(lambda each: each.turn(), workers))
    assert sum(looked) == 12
    reported = sorted(json.loads(body)["run"]["id"] for _, _, body in receiver.calls)
    assert reported == sorted(f"run-{number}" for number in range(12))


def test_what_a_worker_took_and_did_not_live_to_send_is_sent_by_the_next_one(
    lake: Lake, receiver: Receiver, store: CallbackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    callbacks = opened(lake, receiver, Runs("succeeded"), store)
    callbacks.add(RUN, "trips", "ada", callbacks.addressed(["orchestrator"], None))
    taken = store.take(time.time())
    assert taken is not None
    assert store.take(time.time()) is None
    # A process of its own would find the file as this one does.
    again = opened(lake, receiver, Runs("succeeded"), CallbackStore(store.database))
    monkeypatch.setattr(module.time, "time", lambda: taken.next_at + 121)
    assert again.turn() == 1
    assert len(receiver.calls) == 1


def test_a_callback_that_cannot_be_kept_is_not_promised(
    lake: Lake, receiver: Receiver, tmp_path: Path
) -> None:
    (tmp_path / "control").write_text("a file where a folder should be")
    store = CallbackStore(FileDatabase(tmp_path / "control" / "callbacks.sqlite"))
    callbacks = opened(lake, receiver, Runs(), store)
    with pytest.raises(NotKept, match="cannot be kept"):
        callbacks.add(RUN, "trips", "ada", callbacks.addressed(["orchestrator"], None))


def test_the_embedded_default_keeps_them_beside_the_answers(lake: Lake) -> None:
    database = open_callbacks(lake).database
    assert isinstance(database, FileDatabase)
    assert database.file == lake.settings.root / "control" / "callbacks.sqlite"


def test_a_secret_is_bytes_in_base64_or_text() -> None:
    assert key_of(SECRET) == b"0123456789abcdef"
    assert key_of("a secret of words") == b"a secret of words"


def test_on_either_catalog_each_run_is_reported_by_one_worker(
    either_catalog: Settings, receiver: Receiver
) -> None:
    lakes = [Lake(either_catalog) for _ in range(2)]
    workers = [opened(each, receiver, Runs("succeeded"), open_callbacks(each)) for each in lakes]
    assert workers[0].turn() == 0
    uri = f'{receiver.url}/workflows/it\'s?a="b"'.replace('"', "%22")
    for number in range(6):
        receivers = workers[0].addressed(["orchestrator"], uri)
        workers[number % 2].add(f"run-{number}", "trips", "o'brien", receivers)
    with ThreadPoolExecutor(2) as threads:
        assert sum(threads.map(lambda each: each.turn(), workers)) == 12
    assert sorted(path for path, _, _ in receiver.calls) == [
        *["/runs"] * 6, *[uri.removeprefix(receiver.url)] * 6
    ]  # fmt: skip
    reported = [workers[1].states(f"run-{number}") for number in range(6)]
    assert {each["status"] for run in reported for each in run} == {"delivered"}
    assert len(Audit(lakes[0]).rows(what="call back")) == 12
    for each in lakes:
        each.close()
