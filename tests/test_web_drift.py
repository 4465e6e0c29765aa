import sys
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from ml_platform.monitoring import report_drift, report_path
from ml_platform.scoring import score
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.web import build_app, drift
from tests.kept_models import KeptModels, promote
from tests.trips_use_case import COMMIT, at, days, land, settings, trips, write_folder


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("reports")
    use_case = write_folder(root, "binary")
    (root / "broken").mkdir()
    (root / "broken" / "use_case.yaml").write_text("description: <b>nothing else</b>\n")
    lake, registry = Lake(settings(root)), KeptModels()
    land(lake, use_case, trips(11, 24), days(11, 24))
    promote(lake, use_case, registry.train(lake, use_case, days(11, 21)), at(22))
    score(lake, registry, use_case, days(22, 24), COMMIT)
    report_drift(lake, registry, use_case, days(22, 24), COMMIT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drift, "Registry", lambda _settings: registry)
        app = build_app(settings(root))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield SimpleNamespace(client=client, lake=lake, use_case=use_case)
    lake.close()


def get(site, path, method="GET"):
    answer = site.client.request(method, path)
    return answer.status_code, answer.text


def test_the_front_page_lists_use_cases_and_what_is_broken(site):
    status, page = get(site, "/")
    assert status == 200
    assert '<a href="/trips/">' in page
    assert 'href="/trips/drift/2024-03-24.html"' in page
    assert "broken is broken" in page
    assert "<b>" not in page


def test_a_use_cases_page_lists_its_windows(site):
    status, page = get(site, "/trips/")
    assert status == 200
    assert all(f"/trips/drift/2024-03-{day}.html" in page for day in (22, 23, 24))


def test_a_page_is_drawn_when_it_is_asked_for(site):
    path = report_path(site.lake.settings, site.use_case, Window(at(23), at(24)))
    assert not path.exists()
    status, page = get(site, "/trips/drift/2024-03-23.html")
    assert (status, page) == (200, path.read_text())
    assert "trips, drift of 2024-03-23" in page


def test_a_window_without_report_says_what_to_do(site):
    status, page = get(site, "/trips/drift/2024-03-12.html")
    assert status == 404
    assert "materialise trips/drift_report" in page


def test_a_broken_use_case_shows_its_mistakes(site):
    status, page = get(site, "/broken/")
    assert status == 500
    assert "use_case.yaml" in page


@pytest.mark.parametrize(
    "path",
    [
        "/nothing/",
        "/trips/drift/2024-13-99.html",
        "/trips/drift/..%2f..%2f..%2fuse_case.yaml",
        "/trips/drift/..%2f2024-03-23.html",
        "/trips/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/trips/drift/2024-03-23",
        "/trips/drift/%00.html",
        "/trips/drift/<script>.html",
    ],
)
def test_other_addresses_are_not_found(site, path):
    status, page = get(site, path)
    assert status == 404
    assert "<script" not in page


def test_head_sends_no_body(site):
    assert get(site, "/trips/", method="HEAD") == (200, "")


def test_a_page_runs_no_script_and_fetches_nothing(site):
    policy = site.client.get("/").headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_a_page_that_needs_what_is_not_installed_says_what(site, monkeypatch):
    monkeypatch.setitem(sys.modules, "evidently", None)
    status, page = get(site, "/trips/drift/2024-03-22.html")
    assert status == 501
    assert "pip install &#39;ml-platform[monitoring]&#39;" in page
