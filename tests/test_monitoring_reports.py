import threading
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest

from ml_platform.monitoring import report_drift, report_path
from ml_platform.scoring import score
from ml_platform.serving import reports
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
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
        patch.setattr(reports, "Registry", lambda _settings: registry)
        server = reports.make_server(settings(root), 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield SimpleNamespace(
        url=f"http://127.0.0.1:{server.server_port}", lake=lake, use_case=use_case
    )
    server.shutdown()
    thread.join()
    server.server_close()
    lake.close()


def get(site, path, method="GET"):
    try:
        request = urllib.request.Request(site.url + path, method=method)
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


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
