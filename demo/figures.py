"""Figures of the demo that docs quote, and whether they quote them right: `make figures`.

They are computed from the lake that `make demo` has left, by the functions that commands and pages
call. What a page quotes is in `demo/quoted.py`. What they were when somebody looked last is kept in
`demo/figures.json`, so that docs are compared with it also where there is no such lake.
"""

import io
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean, median
from typing import Any

import pandas as pd

from demo.quoted import OF_REPLAY, OF_THE_LAKE, REPLAY_ROWS, STATUS
from demo.quotes import Quote, differences, printed
from demo.ranges import recorded_range
from ml_platform.backfill import Standing, counts, judge
from ml_platform.cli.health_page import show_health
from ml_platform.impact import data_impact, landed_file
from ml_platform.registry import ModelVersion, Registry, history, predict, select_inputs
from ml_platform.replay import newest_document
from ml_platform.rollback import plan_rollback
from ml_platform.scoring.explain import SAMPLES
from ml_platform.serving.control.launches import window_ranges
from ml_platform.serving.http.samples import model_row
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.ranges import named_range
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.status import Dagster, Health, read_health
from ml_platform.storage import Lake

ROOT = Path(__file__).parents[1]
KEPT = Path(__file__).with_suffix(".json")
USE_CASE = "flight_delays"
CORRECTED = "outcomes/2013-07-10.csv"
"""The file that docs follow through the tables."""
ASKED = "B6-1503-JFK-20131231T0459Z"
"""The flight that docs ask the service about."""
RANGE = ("2013-03-01", "2013-12-31")
POLICIES = ("never", "every:30d", "schedule", "drift", "performance", "drift+performance")
"""Of the replay."""
NUMBERS = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve",
)  # fmt: skip

AGAIN = (
    "`make demo figures ML_PLATFORM_DATA=/tmp/demo DAGSTER_HOME=/tmp/demo/dagster` makes another"
)

Figures = dict[str, str]


class DemoNotMade(Exception):
    """The lake does not hold what `make demo` makes of the use case as it is declared today."""


def main() -> int:
    """Compare all that docs quote; the exit status is 1 where something differs."""
    settings = Settings()
    use_case = load_use_case(settings.use_cases / USE_CASE)
    with closing(Lake(settings)) as lake:
        try:
            quotes, figures = of_the_lake(lake, Registry(settings), use_case)
        except DemoNotMade as error:
            print(error, file=sys.stderr)
            return 1
    more, further = of_replay(kept_replay(settings) or replay(settings))
    keep([*quotes, *more], figures | further)
    found = list(differences(ROOT, *kept()))
    for difference in found:
        print(difference)
    print(f"{len(quotes) + len(more)} sentences and lines with figures, {len(found)} differences")
    return 1 if found else 0


def keep(quotes: Sequence[Quote], figures: Figures) -> None:
    """Note what docs should say."""
    said = [[quote.page, quote.sentence] for quote in quotes]
    text = json.dumps({"figures": figures, "quotes": said}, indent=1, ensure_ascii=False)
    KEPT.write_text(f"{text}\n", encoding="utf-8")


def kept() -> tuple[list[Quote], Figures]:
    """What docs should say, by what was noted last."""
    noted = json.loads(KEPT.read_text(encoding="utf-8"))
    return [Quote(*each) for each in noted["quotes"]], noted["figures"]


def of_the_lake(lake: Lake, registry: Registry, use_case: UseCase) -> tuple[list[Quote], Figures]:
    """What docs quote of lake and registry, and the figures that these hold.

    Raises DemoNotMade.
    """
    require_demo(lake, use_case)
    health = read_health(lake, use_case, datetime.now(UTC))
    assert health.champion
    assert health.performance
    champion = health.champion.version
    since = use_case.calendar.key(use_case.calendar.window_at(health.champion.effective_from))
    shown, lines = printed(STATUS, _status(health), "status")
    figures = {
        "champion": str(champion),
        "champion_since": since,
        "metric": health.performance.metric,
        "newest_value": f"{health.performance.value:.4f}",
        "newest_bounds": health.performance.bounds,
        **lines,
        **_rows(lake, use_case),
        **_model(use_case, registry.load(use_case, champion)),
        **_decisions(lake, use_case),
        **_reached(lake, registry, use_case),
        **_rolled_back(lake, registry, use_case),
        **_standings(lake, use_case),
    }
    return [*OF_THE_LAKE, *shown], figures


def require_demo(lake: Lake, use_case: UseCase) -> None:
    """Raises DemoNotMade where a lake has not what `make demo` makes of the use case, or more."""
    with lake.cursor() as cursor:
        if "alerts" in lake.tables(cursor, use_case.name):
            raise DemoNotMade(f"sensors have run on the lake since `make demo`; {AGAIN}")
    states = judge(lake, use_case, recorded_range(use_case))
    if not counts(states["predictions"].values())[Standing.fresh]:
        raise DemoNotMade("no year of flights is in the lake; `make demo` makes it")
    due = [table for table in states if any(s.is_due for s in states[table].values())]
    if due:
        raise DemoNotMade(f"{', '.join(due)} are not as the use case declares them today; {AGAIN}")


def _status(health: Health) -> str:
    """What `ml-platform status` prints where Dagster does not run, but for moments of the demo."""
    name, dagster = health.use_case.name, Dagster("http://127.0.0.1:3000", problem="not running")
    with redirect_stdout(io.StringIO()) as said:
        show_health([health], dagster, {}, [name])
    return re.sub(r", last .*", "", said.getvalue())


def _rows(lake: Lake, use_case: UseCase) -> Figures:
    with lake.cursor(use_case.timezone) as cursor:
        schedule = lake.relation(cursor, use_case.name, "schedule")
        predictions = lake.relation(cursor, use_case.name, "predictions")
        (counted,) = cursor.execute(
            f"SELECT count(*), count(DISTINCT destination) FROM {schedule}"
        ).fetchall()
        (asked,) = cursor.execute(
            f"SELECT model_version, probability FROM {predictions} WHERE flight_id = ?", [ASKED]
        ).fetchall()
    return {
        "flights": f"{counted[0]:,}",
        "destinations": str(counted[1]),
        "asked_version": str(asked[0]),
        "asked_probability": repr(asked[1]),
    }


def _model(use_case: UseCase, model: ModelVersion) -> Figures:
    """Of the champion, and what it says of the row that openapi.json asks about."""
    asked = pd.DataFrame([model_row(model)])
    (probability,) = predict(use_case, model, asked)["probability"]
    ((other, _),) = model.estimator.predict_proba(select_inputs(use_case, model, asked))
    columns = len(model.fitted_columns)
    return {
        "columns": str(columns),
        "samples": str(SAMPLES),
        # A sample of a row goes from the background to the row, one column after the other.
        "explained": f"{SAMPLES * (columns + 1):,}",
        "trees": str(model.estimator[-1].n_iter_),
        "example": repr(float(probability)),
        "example_not": repr(float(other)),
    }


def _decisions(lake: Lake, use_case: UseCase) -> Figures:
    """What the gate came to: weeks of rows, and how far its bounds are below improvements."""
    decisions = history(lake, use_case)
    compared = [each.figures for each in decisions if "improvement" in each.figures]
    margin = median(each["improvement"] - each["improvement_lower"] for each in compared)
    (refused,) = [each for each in decisions if each.version == 2]
    return {
        "gate_rows": f"{round(mean(each['rows'] for each in compared), -2):,.0f}",
        "gate_margin": f"{margin:.3f}",
        "refusal": refused.reason,
    }


def _reached(lake: Lake, registry: Registry, use_case: UseCase) -> Figures:
    """What one file of outcomes touched."""
    subject = landed_file(lake, use_case, CORRECTED)
    impact = data_impact(lake, registry, use_case, subject, recompute=False)
    windows = [window for table in impact.tables.values() for window in table.read]
    return {
        "reached": str(len(windows)),
        "reached_days": str(len(set(windows))),
        "reached_tables": NUMBERS[len(impact.tables)],
        "reached_versions": NUMBERS[len(impact.trained)],
        "reached_drift": str(len(impact.tables["drift_report"].read)),
    }


def _rolled_back(lake: Lake, registry: Registry, use_case: UseCase) -> Figures:
    """What a rollback would recompute."""
    plan = plan_rollback(lake, registry, use_case, decided_by="docs", reason="quoted by docs")
    tables = dict(plan.affected.tables)
    return {
        "before": str(plan.promotion.version),
        "rolled_back": str(sum(map(len, tables.values()))),
        "rolled_predictions": _ranges(use_case, tables["predictions"]),
        "rolled_drift": _ranges(use_case, tables["drift_report"]),
        "rolled_performance": _ranges(use_case, tables["performance_report"]),
    }


def _ranges(use_case: UseCase, windows: Sequence[Window]) -> str:
    return json.dumps(window_ranges(use_case, windows))


def _standings(lake: Lake, use_case: UseCase) -> Figures:
    """Where the partitions stand that docs ask for a backfill of."""
    days = named_range(use_case, "2013-12-29...2013-12-30", "docs")
    states = judge(lake, use_case, days, ["carrier_features"])["carrier_features"].values()
    return {
        **{standing.value: str(count) for standing, count in counts(states).items()},
        "due": str(sum(state.is_due for state in states)),
    }


def kept_replay(settings: Settings) -> dict[str, Any] | None:
    """The newest replay of the year under the policies of docs that is kept; None without one."""
    document = newest_document(settings.reports / USE_CASE)
    if document is None or tuple(p["policy"] for p in document["policies"]) != POLICIES:
        return None
    return document


def replay(settings: Settings) -> dict[str, Any]:
    """Run it as a person does, which takes minutes; what it comes to is kept beside the lake."""
    asked = [word for policy in POLICIES for word in ("--policy", policy)]
    command = ["replay", USE_CASE, "--from", RANGE[0], "--to", RANGE[1], *asked, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "ml_platform.cli", *command], check=True, stdout=subprocess.PIPE
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def of_replay(document: Mapping[str, Any]) -> tuple[list[Quote], Figures]:
    """What docs quote of a replay, and the figures of it."""
    rows = "\n".join(_row(standing) for standing in document["policies"])
    quotes, figures = printed(REPLAY_ROWS, rows, "replay")
    (drift,) = [each for each in document["policies"] if each["policy"] == "drift"]
    _, first, *_ = drift["decisions"]
    silent_until = datetime.fromisoformat(first["cutoff"]) - timedelta(days=1)
    figures["silent_until"] = f"{silent_until:%B}"
    return [*quotes, *OF_REPLAY], figures


def _row(standing: Mapping[str, Any]) -> str:
    bounds = "{:+.4f} to {:+.4f}".format(*standing["regret_95"]) if standing["regret"] else "best"
    regret = f"{standing['regret']:.4f}" if standing["regret"] else "0"
    counted = (standing[name] for name in ("trainings", "promoted", "refused"))
    return (
        f"| {standing['policy']} | {standing['value']:.4f} | {regret} | {bounds} | "
        f"{' | '.join(map(str, counted))} |"
    )


if __name__ == "__main__":
    sys.exit(main())
