import csv
import html
import io
import re
import sys
import time
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from ml_platform.access import Action, Audit
from ml_platform.errors import PlatformError
from ml_platform.monitoring import report_drift, report_path, report_performance
from ml_platform.monitoring.series import drift_by_column, drift_windows, performance_windows
from ml_platform.registry import Promotion, Rollout, decide_rollout, record
from ml_platform.scoring import score
from ml_platform.spec.windows import Window
from ml_platform.status import read_costs, summed
from ml_platform.storage import Commit, Lake
from ml_platform.web import Pages, build_app, observer, partitions
from ml_platform.web import site as sites
from ml_platform.web.rendering import render_in_parts
from tests.kept_models import KeptModels, promote
from tests.trips_use_case import COMMIT, at, days, land_file, settings, trips, write_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")
    use_case = write_folder(root, "binary")
    write_folder(root, "regression", name="untouched")
    (root / "broken").mkdir()
    (root / "broken" / "use_case.yaml").write_text("description: <b>nothing else</b>\n")
    lake, registry = Lake(settings(root)), KeptModels()
    land_file(lake, use_case, trips(11, 24), days(11, 24))
    promote(lake, use_case, registry.train(lake, use_case, days(11, 21)), at(22))
    score(lake, registry, use_case, days(22, 24), COMMIT)
    report_drift(lake, registry, use_case, days(22, 24), COMMIT)
    report_performance(lake, use_case, days(22, 24), COMMIT, now=at(30))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sites, "Registry", lambda _settings: registry)
        pages = Pages(settings(root))
        app = build_app(pages)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield SimpleNamespace(client=client, lake=lake, use_case=use_case, pages=pages)
    lake.close()


def get(site, path, method="GET"):
    answer = site.client.request(method, path)
    return answer.status_code, answer.text


def observed(site):
    """The first page once every use case has been read."""
    while "is being read" in (page := get(site, "/")[1]):
        time.sleep(0.1)
    return page


def test_the_first_page_lists_use_cases_and_what_is_broken(site):
    page = observed(site)
    assert '<a href="/trips/">trips</a>' in page
    assert "version 1</a>" in page
    assert "broken is broken" in page
    assert "<b>" not in page


def test_a_first_page_that_lacks_use_cases_is_loaded_again_soon(site):
    assert "Refresh" not in (observed(site) and site.client.get("/").headers)
    pages = Pages(site.lake.settings)
    unread = TestClient(build_app(pages), base_url="http://127.0.0.1").get("/")
    pages.site.close()
    assert "is being read" in unread.text
    assert unread.headers["Refresh"] == "5"


def test_what_goes_wrong_while_reading_is_said_and_the_next_try_counts(site, monkeypatch):
    def fails(*_arguments):
        raise RuntimeError("the disk is on fire")

    observed(site)
    with monkeypatch.context() as patch:
        patch.setattr(observer, "ask_dagster", fails)
        record(site.lake, site.use_case, Promotion(9, at(24), at(25), "ada", "refused", ""), COMMIT)
        while "the disk is on fire" not in (page := get(site, "/")[1]):
            time.sleep(0.1)
        assert '<a href="/trips/">trips</a>' in page
    while "the disk is on fire" in get(site, "/")[1]:
        time.sleep(0.1)


def test_what_needs_somebody_stands_first(site):
    page = observed(site)
    assert page.index("Needs somebody") < page.index("<h2>Use cases</h2>")
    assert re.search(r'class="kind">Late</span>', page)


def test_a_use_case_shows_what_its_reports_say(site):
    status, page = get(site, "/trips/")
    assert status == 200
    for day in (22, 23, 24):
        assert f'href="/trips/performance/2024-03-{day}"' in page
        assert f'href="/trips/drift/2024-03-{day}"' in page
    reports = performance_windows(site.lake, site.use_case)
    assert [each.labelled for each in reports] == [40, 40, 40]
    for each in reports:
        value = f"{each.current[site.use_case.model.metric]:.4g}"
        assert f"{site.use_case.calendar.key(each.window)}: roc_auc {value}" in page
    for each in drift_windows(site.lake, site.use_case):
        key = site.use_case.calendar.key(each.window)
        assert f"{key}: {each.drifted} of {each.judged} columns drifted" in page


@pytest.mark.parametrize(
    "page", ["", "drift/", "predictions", "impact", "costs", "rollouts", "drift.csv"]
)
def test_of_a_use_case_without_any_data_nothing_is_shown(site, page):
    status, said = get(site, f"/untouched/{page}")
    assert status == 200
    assert "nan" not in said.lower()


def test_a_use_case_shows_its_predictions_delays_and_what_sources_promise(site):
    page = get(site, "/trips/")[1]
    assert 'aria-label="predictions by partition"' in page
    assert re.search(r"2024-03-23: median 0\.\d+, half within", page)
    assert "How late labels come, in " in page
    for name, source in site.use_case.sources.items():
        assert f"<summary>{name}" in page
        assert all(html.escape(rule) in page for rule in source.rules)


def test_the_interval_of_a_metric_is_drawn(site):
    page = get(site, "/trips/")[1]
    assert '<polygon class="band"' in page
    (first, *_) = performance_windows(site.lake, site.use_case)
    assert f"± {first.errors['roc_auc']:.2g}, 40 labelled rows" in page


def test_a_page_is_as_new_as_the_lake(site):
    before = get(site, "/trips/")[1]
    assert "/trips/versions/12" not in before
    record(site.lake, site.use_case, Promotion(12, at(24), at(26), "ada", "refused", ""), COMMIT)
    assert "/trips/versions/12" in get(site, "/trips/")[1]


def test_earlier_partitions_are_another_page(site):
    page = get(site, "/trips/?before=2024-03-23")[1]
    assert "/trips/drift/2024-03-22" in page
    assert "/trips/drift/2024-03-23" not in page


def test_the_heat_map_holds_the_worst_of_the_partitions_of_a_cell(site):
    windows = [each.window for each in drift_windows(site.lake, site.use_case)]
    single = drift_by_column(site.lake, site.use_case, windows, cells=3)
    together = drift_by_column(site.lake, site.use_case, windows, cells=1)
    assert [row.column for row in single] == [row.column for row in together]
    for alone, row in zip(single, together, strict=True):
        known = [c.severity for c in alone.cells.values() if c.severity is not None]
        (cell,) = row.cells.values()
        assert cell.severity == max(known, default=None)
        assert cell.drifted == any(c.drifted for c in alone.cells.values())
        if cell.severity is not None:
            worst = [c for c in alone.cells.values() if c.severity == cell.severity]
            assert cell.window in [c.window for c in worst]


def test_all_drift_reports_are_listed(site):
    status, page = get(site, "/trips/drift/")
    assert status == 200
    assert all(f'"/trips/drift/2024-03-{day}"' in page for day in (22, 23, 24))


def test_a_drift_report_draws_both_sides_of_its_columns(site):
    status, page = get(site, "/trips/drift/2024-03-23")
    assert status == 200
    assert re.search(r"of the training data, \d+\.\d% now", page)
    assert 'rel="prev" href="/trips/drift/2024-03-22"' in page
    assert 'rel="next" href="/trips/drift/2024-03-24"' in page
    assert "passes" in page or "fails" in page


def test_a_performance_report_draws_its_curves(site):
    status, page = get(site, "/trips/performance/2024-03-23")
    assert status == 200
    for title in ("ROC curve", "Precision and recall", "Calibration", "Predictions"):
        assert f"<figcaption>{title}</figcaption>" in page
    assert "40 of 40 predictions have a label" in page


def test_a_prediction_is_asked_for_by_its_key(site):
    assert 'name="trip"' in get(site, "/trips/predictions")[1]


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("trip=nobody", 404, "has no prediction"),
        ("trip=1&at=yesterday", 404, "is neither a time nor a partition"),
    ],
)
def test_a_prediction_that_is_not_there_is_said(site, query, status, said):
    found, page = get(site, f"/trips/predictions?{query}")
    assert found == status
    assert said in page


def test_what_something_touched_is_asked_for_by_file_row_or_version(site):
    assert 'name="file"' in get(site, "/trips/impact")[1]
    assert 'name="key.trip"' in get(site, "/trips/impact?source=trips")[1]


def test_the_page_of_a_row_names_the_partitions_that_may_have_read_it(site):
    query = "source=trips&key.trip=110005"
    status, page = get(site, f"/trips/impact?{query}")
    assert status == 200
    assert "What row trip=110005 of trips touched" in page
    found = site.client.get(f"/trips/impact.json?{query}").json()
    assert found["tables"]["pace_features"]["may_have_read"] == ["2024-03-11", "2024-03-12"]
    assert found["tables"]["pace_features"]["dependent_rows"] is None
    assert [each["version"] for each in found["trained_versions"]] == [1]
    assert found["by_these_versions"]["predictions"] == [f"2024-03-{day}" for day in (22, 23, 24)]
    for table in ("drift", "performance"):
        assert f'href="/trips/{table}/2024-03-23"' in page
    assert "partition=2024-03-12" in page
    assert 'href="/trips/impact?source=trips&amp;key.trip=110005&amp;rows=yes"' in page


def test_the_page_of_a_version_shows_where_it_served(site):
    status, page = get(site, "/trips/impact?version=1")
    assert status == 200
    assert "What version 1 touched" in page
    assert "<td>120</td>" in page
    assert "2024-03-22 00:00 to now" in page


def test_a_prediction_links_to_what_its_rows_touched(site):
    page = get(site, "/trips/predictions?trip=110485")[1]
    assert "source=trips" in page
    assert "key.trip=110485" in page


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("file=trip.csv", "no landed file &#39;trip.csv&#39;. Did you mean &#39;trips.csv&#39;?"),
        ("source=trip&key.trip=1", "no source &#39;trip&#39;. Did you mean &#39;trips&#39;?"),
        ("source=trips&key.trip=1", "there is no row trip=1 of trips"),
        ("source=trips&key.trip=one", "Could not convert string &#39;one&#39; to INT64"),
        ("source=trips&key.city=Rome", "a row of trips is named by trip=…"),
        ("source=trips&key.trip=110005&as_of=noon", "neither a time nor a partition"),
        ("version=first", "version should be a whole number"),
        ("version=77", "has no version 77"),
    ],
)
def test_what_cannot_have_touched_anything_is_said(site, query, said):
    status, page = get(site, f"/trips/impact?{query}")
    assert status == 404
    assert said in page


def test_what_waits_is_shown_with_what_it_passed(site):
    assert "Nothing waits" in get(site, "/approvals")[1]
    asked = Promotion(7, at(24), at(25), "promotion gate", "waiting", "better by 0.1", {"rows": 40})
    record(site.lake, site.use_case, asked, COMMIT)
    status, page = get(site, "/approvals")
    assert status == 200
    assert "better by 0.1" in page
    assert 'action="/trips/versions/7/answer"' in page


def test_runs_of_a_dagster_that_does_not_answer_are_not_taken_for_none(site):
    status, page = get(site, "/runs")
    assert status == 200
    assert "Dagster does not answer" in page
    assert "None." not in page


def test_rollouts_are_shown_as_they_were_decided(site):
    assert "No version is tried" in get(site, "/trips/rollouts")[1]
    decide_rollout(
        site.lake, site.use_case, Rollout(5, "canary", 0.1, "ada", "looks good", at(25)), COMMIT
    )
    page = get(site, "/trips/rollouts")[1]
    assert "Version 5 is tried as canary on 10 % of the entities" in page
    assert "looks good" in page


def test_costs_are_those_of_the_tables(site):
    assert "Nothing was computed" in get(site, "/trips/costs")[1]
    refused = Promotion(8, at(24), at(25), "promotion gate", "refused", "not better")
    commit = Commit("run", "0", "trips/promotions", began=time.monotonic())
    record(site.lake, site.use_case, refused, commit)
    (cost,) = summed(read_costs(site.lake, site.use_case, at(1)))
    status, page = get(site, "/trips/costs")
    assert status == 200
    row = page[page.index('<th scope="row">promotions</th>') :]
    assert f"<td>{cost.runs}</td><td>{cost.seconds:,.1f}</td><td>{cost.rows}</td>" in row


def test_the_audit_is_filtered_by_what_is_asked(site):
    audit = Audit(site.lake)
    for who, what in (("ada", "train"), ("bob", "approve")):
        audit.record(Action(who, "cli", what, "trips", "version 1", {"note": "<i>"}), COMMIT)
    assert all(f"<td>{who}</td>" in get(site, "/audit")[1] for who in ("ada", "bob"))
    page = get(site, "/audit?who=ada&use_case=trips")[1]
    assert "<td>ada</td>" in page
    assert "<td>bob</td>" not in page
    assert "note: &lt;i&gt;" in page
    assert "0 rows" in get(site, "/audit?since=2999-01-01")[1]


def test_a_drift_report_is_shown_before_its_distributions_are_read(site, monkeypatch):
    read = []
    monkeypatch.setattr(partitions, "compared_rows", lambda *_all: read.append(1) or refuse())
    known = partitions.drift_partition(site.pages.site, "trips", "2024-03-23")
    case, stored = known["case"], known["stored"]
    parts = render_in_parts(
        "drift.html", known, lambda: partitions.drift_columns(site.pages.site, case, stored)
    )
    first = next(parts)
    assert "columns drifted" in first
    assert not read
    assert "Distributions cannot be drawn: not now" in "".join(parts)
    # Nothing between the page and the browser keeps the first part back.
    answer = site.client.get("/trips/drift/2024-03-23", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "identity"


def test_what_is_wrong_with_the_rest_of_a_page_is_said_in_it(site):
    known = {"case": site.use_case, "policy": site.use_case.retrain}
    page = "".join(render_in_parts("retraining.html", known, refuse))
    assert "The policy" in page
    assert "The rest cannot be shown: not now" in page
    assert page.rstrip().endswith("</html>")


def refuse():
    raise PlatformError("not now")


@pytest.mark.parametrize("table", ["drift", "performance"])
def test_rows_are_served_as_they_are_stored(site, table):
    rows = site.client.get(f"/trips/{table}.json").json()
    with site.lake.cursor() as cursor:
        count = cursor.execute(f"SELECT count(*) FROM lake.trips.{table}_report").fetchone()[0]
    assert len(rows) == count
    assert {row["partition"] for row in rows} == {f"2024-03-{day}" for day in (22, 23, 24)}
    answer = site.client.get(f"/trips/{table}/2024-03-23.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    of_day = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(of_day) == count / 3
    assert {row["partition"] for row in of_day} == {"2024-03-23"}


def test_evidentlys_page_is_drawn_when_it_is_asked_for(site):
    path = report_path(site.lake.settings, site.use_case, Window(at(23), at(24)))
    assert not path.exists()
    status, page = get(site, "/trips/drift/2024-03-23.html")
    assert (status, page) == (200, path.read_text())
    assert "trips, drift of 2024-03-23" in page


@pytest.mark.parametrize("page", ["drift/2024-03-12", "drift/2024-03-12.html"])
def test_a_window_without_report_says_what_to_do(site, page):
    status, page = get(site, f"/trips/{page}")
    assert status == 404
    assert "materialise trips/drift_report" in page


def test_a_window_without_performance_says_what_to_do(site):
    status, page = get(site, "/trips/performance/2024-03-12")
    assert status == 404
    assert "materialise trips/performance_report" in page


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
        "/trips/drift/2024-03-99",
        "/trips/labels.csv",
        "/trips/impact.json",
        "/trips/impact.csv",
        "/trips/costs?days=never",
        "/trips/costs?days=0",
        "/audit?since=yesterday",
        "/trips/drift.xml",
        "/trips/versions/first",
        "/trips/?before=never",
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
    for path in (
        "/",
        "/trips/",
        "/trips/drift/2024-03-23",
        "/trips/predictions",
        "/trips/impact?version=1",
    ):
        check_policy(site.client.get(path))


def check_policy(answer):
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "<script" not in answer.text
    assert " style=" not in answer.text


def test_a_page_that_needs_what_is_not_installed_says_what(site, monkeypatch):
    monkeypatch.setitem(sys.modules, "evidently", None)
    status, page = get(site, "/trips/drift/2024-03-22.html")
    assert status == 501
    assert "pip install &#39;ml-platform[monitoring]&#39;" in page
