import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from ml_platform.errors import SpecError, SpecErrors
from ml_platform.spec.loading import load_use_case, load_use_cases, require_use_case
from ml_platform.spec.use_case import UseCase

SPEC = """\
description: Will the parcel arrive late?
owners: [team:logistics]
partitions: {cadence: daily, start: 2024-01-01, timezone: Europe/Berlin}
sources:
  orders:
    files: "orders/*.csv"
    event_time: ordered_at
    key: [order_id]
    columns:
      order_id: VARCHAR
      ordered_at: TIMESTAMPTZ
      carrier: VARCHAR
      weight: DOUBLE
    rules:
      - weight > 0
  deliveries:
    files: "deliveries/*.csv"
    event_time: delivered_at
    known_at: delivered_at + interval 1 hour
    key: [order_id]
    columns:
      order_id: VARCHAR
      ordered_at: TIMESTAMPTZ
      delivered_at: TIMESTAMPTZ
      carrier: VARCHAR
features:
  carrier:
    entity: [carrier]
    lookback: 7d
    ttl: 7d
examples:
  source: orders
  entity: [order_id]
  columns:
    - weight
    - carrier
label: {sql: labels.sql, task: binary, horizon: 3d}
model:
  metric: roc_auc
  window: 60d
  holdout: 7d
  schedule: 0 5 1 * *
  features: [carrier]
monitoring:
  window: 28d
retrain:
  sustained: 3 of 5
"""
CARRIER = """\

-- How slow the carrier was of late.
WITH known AS (
    SELECT carrier, known_at, known_at - ordered_at AS took
    FROM deliveries
)

SELECT
    carrier,
    known_at AS event_time,
    epoch(avg(took)) AS seconds
FROM known
GROUP BY ALL;
"""
LABELS = """\
SELECT
    order_id,
    ordered_at AS event_time,
    known_at > ordered_at + INTERVAL 2 DAYS AS label,
    known_at
FROM deliveries
"""
MODEL = """\
from sklearn.linear_model import LogisticRegression


def build():
    return LogisticRegression()
"""
ROW = "(SELECT 'a' AS order_id, now() AS ordered_at, now() AS known_at)"
FILES = {
    "use_case.yaml": SPEC,
    "features/carrier.sql": CARRIER,
    "labels.sql": LABELS,
    "model.py": MODEL,
}

AS_FILES = '    files: "orders/*.csv"\n'
AS_TABLE = "    table: erp.public.orders\n    high_water: ordered_at\n"

# fmt: off
LAKE_MISTAKES = [
    ("    delta: orders\n",
     "6 sources.orders.delta: 'orders' should be <database>.<table>, or the path of the table's "
     "folder"),
    ("    iceberg: erp.orders\n",
     "6 sources.orders.iceberg: 'erp.orders' should be <database>.<namespace>.<table>, or the path "
     "of the table's folder"),
    ("    delta: epr.orders\n",
     "6 sources.orders.delta: the setting databases, ML_PLATFORM_DATABASES='{\"epr\": "
     "\"sqlite:<file>\"}' (or postgres:<connection>, mysql:<connection>, delta:<folder>, …), has "
     "no database 'epr'. Did you mean 'erp'?"),
    ("    delta: s3://lakes/orders\n",
     "6 sources.orders.delta: is a URL; name its lake in the setting databases, and write "
     "<database>.<table>"),
    ("    delta: erp.orders\n    iceberg: erp.shop.orders\n",
     "7 sources.orders.iceberg: a source has one origin, not `delta:` and `iceberg:`; remove one"),
    ("    delta: erp.orders\n    high_water: ordered_at\n",
     "7 sources.orders.high_water: is about a `table:` of a database, which alone has one; remove "
     "it"),
    ("    delta: erp.orders\n    late: replace\n",
     "7 sources.orders.late: 'replace' is about files; a table always holds what is true now; "
     "remove it"),
    ("    iceberg: erp.shop.orders\n    csv: {separator: \";\"}\n",
     "7 sources.orders.csv: is about CSV files, and this source has an iceberg table; remove it"),
    (AS_TABLE + "    when_gone: keep\n",
     "8 sources.orders.when_gone: is about files, and a table has none; remove it"),
]
TABLE_MISTAKES = [
    *LAKE_MISTAKES,
    (AS_FILES + AS_TABLE,
     "7 sources.orders.table: a source has one origin, not `files:` and `table:`; remove one"),
    ("    table: erp.public.orders\n",
     "6 sources.orders.table: needs a column that grows with every change; add `high_water: "
     "updated_at`"),
    (AS_TABLE.replace("ordered", "orderd"),
     "7 sources.orders.high_water: no column 'orderd_at'. Did you mean 'ordered_at'?"),
    (AS_TABLE.replace("erp.public.", ""),
     "6 sources.orders.table: 'orders' should be <database>.<schema>.<table>, such as "
     "erp.public.orders"),
    (AS_TABLE.replace("erp", "epr"),
     "6 sources.orders.table: the setting databases, ML_PLATFORM_DATABASES='{\"epr\": "
     "\"sqlite:<file>\"}' (or postgres:<connection>, mysql:<connection>, delta:<folder>, …), has "
     "no database 'epr'. Did you mean 'erp'?"),
    (AS_FILES + "    high_water: ordered_at\n",
     "7 sources.orders.high_water: is about a `table:` of a database, which alone has one; "
     "remove it"),
    (AS_TABLE + "    late: replace\n",
     "8 sources.orders.late: 'replace' is about files; a table always holds what is true now; "
     "remove it"),
    (AS_TABLE + "    format: csv\n",
     "8 sources.orders.format: is about files, and a table has none; remove it"),
    (AS_FILES + "    corrected_at: orderd_at\n",
     "7 sources.orders.corrected_at: no column 'orderd_at'. Did you mean 'ordered_at'?"),
    (AS_FILES + "    corrected_at: order_id\n",
     "7 sources.orders.corrected_at: 'order_id' is VARCHAR; it should be a time, such as "
     "TIMESTAMPTZ"),
]
YAML_MISTAKES = [
    ("description: Will the parcel arrive late?\n",
     "description: x\nscorer: {url: 'http://ada:hush@models', protocol: oip}\n",
     "parcels/use_case.yaml:2 scorer.url: should have no user, password or query; headers such as "
     "Authorization are the setting ML_PLATFORM_ENDPOINTS"),
    ("description: Will the parcel arrive late?\n",
     "description: x\nscorer: {url: models}\n",
     "parcels/use_case.yaml:2 scorer.url: should be an address, such as http://models:8080"),
    ("description: Will the parcel arrive late?\n",
     "description: x\nscorer: {url: 'grpc://models:8081', protocol: mlflow}\n",
     "parcels/use_case.yaml:2 scorer: protocol 'mlflow' does not speak grpc"),
    ("description: Will the parcel arrive late?\n",
     "description: x\nscorer: {url: 'http://models', batch_row: 10}\n",
     "parcels/use_case.yaml:2 scorer.batch_row: unknown key. Did you mean 'batch_rows'?"),
    ("description: Will the parcel arrive late?\n", "",
     "parcels/use_case.yaml:1 description: is missing; add `description: …`"),
    ("description: Will", "descripton: Will",
     "parcels/use_case.yaml:1 descripton: unknown key. Did you mean 'description'?"),
    ("Will the parcel arrive late?", "''",
     "parcels/use_case.yaml:1 description: should not be empty"),
    ("description: Will the parcel arrive late?", "name: Parcel delays\ndescription: x",
     "parcels/use_case.yaml:1 name: 'Parcel delays' should be lower case letters, "
     "digits and underscores, such as 'parcel_delays'"),
    ("description: Will the parcel arrive late?", "name: main\ndescription: x",
     "parcels/use_case.yaml:1 name: 'main' is a schema of DuckDB; give it another name"),
    ("description: Will the parcel arrive late?", "name: platform\ndescription: x",
     "parcels/use_case.yaml:1 name: 'platform' is the schema of the platform's own tables; give "
     "it another name"),
    ("owners: [team:logistics]", "owners: [logistics]",
     "parcels/use_case.yaml:2 owners: 'logistics' is neither an e-mail address nor a "
     "team such as 'team:logistics'"),
    ("owners: [team:logistics]", "owners: ['team:']",
     "parcels/use_case.yaml:2 owners: 'team:' is neither an e-mail address nor a team "
     "such as 'team:operations'"),
    ("owners: [team:logistics]", "owners: team:logistics",
     "parcels/use_case.yaml:2 owners: 'team:logistics' should be a list, such as "
     "[team:logistics]"),
    ("owners: [team:logistics]", "owner: [team:logistics]",
     "parcels/use_case.yaml:2 owner: unknown key. Did you mean 'owners'?"),
    ("cadence: daily", "cadence: dayly",
     "parcels/use_case.yaml:3 partitions.cadence: 'dayly' should be one of hourly, "
     "daily, weekly, monthly. Did you mean 'daily'?"),
    ("cadence: daily", "cadence: yearly",
     "parcels/use_case.yaml:3 partitions.cadence: 'yearly' should be one of hourly, "
     "daily, weekly, monthly"),
    ("cadence: daily, ", "",
     "parcels/use_case.yaml:3 partitions.cadence: is missing; add `cadence: …`"),
    ("start: 2024-01-01", "start: 2024-02-30",
     "parcels/use_case.yaml:3 partitions.start: '2024-02-30' is not a valid date; "
     "write 2013-01-31"),
    ("start: 2024-01-01", "start: 5",
     "parcels/use_case.yaml:3 partitions.start: '5' is not a valid date; write 2013-01-31"),
    ("Europe/Berlin", "Europe/Berln",
     "parcels/use_case.yaml:3 partitions.timezone: no time zone 'Europe/Berln'. Did "
     "you mean 'Europe/Berlin'?"),
    ("Europe/Berlin", "CEST",
     "parcels/use_case.yaml:3 partitions.timezone: no time zone 'CEST'; they look "
     "like 'Europe/Berlin'"),
    ("cadence: daily, start: 2024-01-01, timezone: Europe/Berlin",
     "cadence: hourly, start: 2024-01-01, timezone: Australia/Lord_Howe",
     "parcels/use_case.yaml:3 partitions.timezone: the clocks of "
     "'Australia/Lord_Howe' change by less than an hourly window; use UTC"),
    ("  orders:\n", "  Orders:\n",
     "parcels/use_case.yaml:5 sources.Orders: 'Orders' should be lower case letters, "
     "digits and underscores, such as 'orders'"),
    ("orders", "predictions",
     "parcels/use_case.yaml:5 sources.predictions: 'predictions' is a table of the "
     "platform; rename it, such as 'predictions_source'"),
    ("orders", "carrier_features",
     "parcels/use_case.yaml:5 sources.carrier_features: 'carrier_features' is a table "
     "of the platform; rename it, such as 'carrier_features_source'"),
    ("    files: \"orders/*.csv\"\n", "",
     "parcels/use_case.yaml:5 sources.orders: lands from nowhere; add `files: …`, or `table: …`"),
    ("    files: \"orders/*.csv\"\n", "    file: \"orders/*.csv\"\n",
     "parcels/use_case.yaml:6 sources.orders.file: unknown key. Did you mean 'files'?"),
    ("    files: \"orders/*.csv\"\n", "    files: [a.csv, b.csv]\n",
     "parcels/use_case.yaml:6 sources.orders.files: this should be text"),
    ("    files: \"orders/*.csv\"\n", "\tfiles: \"orders/*.csv\"\n",
     "parcels/use_case.yaml:6: not YAML: a tab; indent with spaces"),
    ("    files: \"orders/*.csv\"\n", "    files: \"orders/*.csv\"\n    files: x\n",
     "parcels/use_case.yaml:7: not YAML: key 'files' is there twice, first in line 6; "
     "keep one"),
    ("    files: \"orders/*.csv\"\n", "    files: \"orders/*.csv\"\n    format: xlsx\n",
     "parcels/use_case.yaml:7 sources.orders.format: 'xlsx' should be one of csv, "
     "parquet, jsonl"),
    ("    files: \"orders/*.csv\"\n", "    files: \"orders/*.csv\n",
     "parcels/use_case.yaml:17: not YAML: expected <block end>, but found '<scalar>' "
     "while parsing a block mapping that begins in line 6; look for a bracket, quote "
     "or indent"),
    ("    files: \"orders/*.csv\"\n", "    files: \"orders/*.csv\"\n    null_values: [-1]\n",
     "parcels/use_case.yaml:7 sources.orders.null_values: '-1' should be text; quote "
     "it: '-1'"),
    ("    files: \"orders/*.csv\"\n",
     "    files: \"orders/*.csv\"\n    csv: {separator: \";;\"}\n",
     "parcels/use_case.yaml:7 sources.orders.csv.separator: ';;' should be one character, "
     "such as ';' or a tab, \"\\t\""),
    ("    files: \"orders/*.csv\"\n",
     "    files: \"orders/*.csv\"\n    csv: {times: \"%H:%M\"}\n",
     "parcels/use_case.yaml:7 sources.orders.csv.times: '%H:%M' does not say the year; "
     "'%d.%m.%Y %H:%M' reads 31.01.2024 15:00"),
    ("    files: \"orders/*.csv\"\n",
     "    files: \"orders/*.parquet\"\n    csv: {decimal: \",\"}\n",
     "parcels/use_case.yaml:7 sources.orders.csv: is about CSV files, and this source has "
     "parquet files; remove it"),
    ("    files: \"orders/*.csv\"\n", "    files: \"orders/*.csv\"\n    required: [wait]\n",
     "parcels/use_case.yaml:7 sources.orders.required: no column 'wait'. Did you mean "
     "'weight'?"),
    ("    event_time: ordered_at\n", "    event_time: order_at\n",
     "parcels/use_case.yaml:7 sources.orders.event_time: no column 'order_at'. Did "
     "you mean 'ordered_at'?"),
    ("    event_time: ordered_at\n", "    event_time: weight\n",
     "parcels/use_case.yaml:7 sources.orders.event_time: 'weight' is DOUBLE; it "
     "should be a time, such as TIMESTAMPTZ"),
    ("    event_time: ordered_at\n    key: [order_id]\n",
     "    event_time: ordered_at\n    key: [orderid]\n",
     "parcels/use_case.yaml:8 sources.orders.key: no column 'orderid'. Did you mean "
     "'order_id'?"),
    ("    event_time: ordered_at\n    key: [order_id]\n",
     "    event_time: ordered_at\n    key: order_id\n",
     "parcels/use_case.yaml:8 sources.orders.key: 'order_id' should be a list, such "
     "as [order_id]"),
    ("    event_time: ordered_at\n    key: [order_id]\n",
     "    event_time: ordered_at\n    key: []\n",
     "parcels/use_case.yaml:8 sources.orders.key: should not be empty"),
    ("weight: DOUBLE", "weight: DUBLE",
     "parcels/use_case.yaml:13 sources.orders.columns.weight: no type 'DUBLE'. Did "
     "you mean 'DOUBLE'?"),
    ("weight: DOUBLE", "weight: DOUBLE PRECISE",
     "parcels/use_case.yaml:13 sources.orders.columns.weight: 'DOUBLE PRECISE' is not "
     "SQL: syntax error at or near \"PRECISE\""),
    ("weight: DOUBLE", "weight:",
     "parcels/use_case.yaml:13 sources.orders.columns.weight: nothing is here; this "
     "should be text"),
    ("weight: DOUBLE", "weight: DOUBLE\n      _row: BIGINT",
     "parcels/use_case.yaml:14 sources.orders.columns._row: '_row' is a column of the "
     "platform; rename it in the files"),
    ("weight: DOUBLE", "weight: DOUBLE\n      known_at: TIMESTAMPTZ",
     "parcels/use_case.yaml:5 sources.orders.known_at: is about a column of that "
     "name; write `known_at: known_at`"),
    ("- weight > 0", "- weigth > 0",
     "parcels/use_case.yaml:15 sources.orders.rules: no column 'weigth'. Did you mean "
     "'weight'?"),
    ("- weight > 0", "- weight",
     "parcels/use_case.yaml:15 sources.orders.rules: 'weight' is DOUBLE; a rule is "
     "true or false, such as 'weight > 0'"),
    ("- weight > 0", "- weight >",
     "parcels/use_case.yaml:15 sources.orders.rules: 'weight >' is not SQL: syntax "
     "error at its end"),
    ("- weight > 0", "- weight >> > 0",
     "parcels/use_case.yaml:15 sources.orders.rules: operator '>>' has no value on its right"),
    ("- weight > 0", "- weight ! 3",
     "parcels/use_case.yaml:15 sources.orders.rules: no operator '!'"),
    ("- weight > 0", "- sum(weight) > 0",
     "parcels/use_case.yaml:15 sources.orders.rules: sees one row at a time; no "
     "aggregates, windows or subqueries"),
    ("    rules:\n      - weight > 0", "    rules: weight > 0",
     "parcels/use_case.yaml:14 sources.orders.rules: 'weight > 0' should be a list, "
     "such as [weight > 0]"),
    ("known_at: delivered_at +", "known_at: deliverd_at +",
     "parcels/use_case.yaml:19 sources.deliveries.known_at: no column 'deliverd_at'. "
     "Did you mean 'delivered_at'?"),
    ("known_at: delivered_at + interval 1 hour", "known_at: interval 1 hour",
     "parcels/use_case.yaml:19 sources.deliveries.known_at: interval 1 hour is "
     "INTERVAL; it should be a time, such as TIMESTAMPTZ"),
    ("known_at: delivered_at + interval 1 hour", "known_at: max(delivered_at)",
     "parcels/use_case.yaml:19 sources.deliveries.known_at: sees one row at a time; "
     "no aggregates, windows or subqueries"),
    ("known_at: delivered_at + interval 1 hour",
     "known_at: delivered_at + interval 1 fortnight",
     "parcels/use_case.yaml:19 sources.deliveries.known_at: 'delivered_at + interval "
     "1 fortnight' is not SQL: syntax error at or near \"fortnight\""),
    ("features:\n  carrier:", "features:\n  carriers:",
     "parcels/use_case.yaml:43 model.features: no feature view 'carrier'. Did you "
     "mean 'carriers'?"),
    ("features:\n  carrier:", "feature:\n  carrier:",
     "parcels/use_case.yaml:26 feature: unknown key. Did you mean 'features'?"),
    ("features:\n  carrier:\n    entity: [carrier]\n    lookback: 7d\n    ttl: 7d\n",
     "features: [carrier]\n",
     "parcels/use_case.yaml:26 features: this should be a mapping: names, each with "
     "keys of its own"),
    ("    entity: [carrier]\n    lookback: 7d\n    ttl: 7d\n", "",
     "parcels/use_case.yaml:27 features.carrier: nothing is here; this should be a "
     "mapping with keys such as entity, lookback, ttl, sql"),
    ("entity: [carrier]", "entity: [carier]",
     "parcels/use_case.yaml:28 features.carrier.entity: examples have no column "
     "'carier'. Did you mean 'carrier'?"),
    ("entity: [carrier]", "entity: carrier",
     "parcels/use_case.yaml:28 features.carrier.entity: 'carrier' should be a list, "
     "such as [carrier]"),
    ("entity: [carrier]", "entity: [carrier, carrier]",
     "parcels/use_case.yaml:28 features.carrier.entity: 'carrier' is there twice; "
     "once is enough"),
    ("entity: [carrier]", "entity: [delivered_at]",
     "parcels/use_case.yaml:28 features.carrier.entity: examples have no column "
     "'delivered_at'. Did you mean 'ordered_at'?"),
    ("lookback: 7d", "lookback: 7",
     "parcels/use_case.yaml:29 features.carrier.lookback: '7' is not a valid duration; write "
     "90m, 3h, 7d, 2w or 1mo"),
    ("lookback: 7d", "lookback: a week",
     "parcels/use_case.yaml:29 features.carrier.lookback: 'a week' is not a valid duration; "
     "write 90m, 3h, 7d, 2w or 1mo"),
    ("lookback: 7d", "lookback: 99999999mo",
     "parcels/use_case.yaml:29 features.carrier.lookback: '99999999mo' is longer than "
     "a century"),
    ("    lookback: 7d\n", "",
     "parcels/use_case.yaml:27 features.carrier.lookback: is missing; add `lookback: …`"),
    ("    ttl: 7d\n", "    ttl: 7d\n    query: SELECT 1\n",
     "parcels/use_case.yaml:31 features.carrier.query: unknown key. There are: "
     "entity, lookback, ttl, sql, description"),
    ("source: orders", "source: order",
     "parcels/use_case.yaml:32 examples.source: no source 'order'. Did you mean 'orders'?"),
    ("  entity: [order_id]", "  entity: [order]",
     "parcels/use_case.yaml:33 examples.entity: no column 'order'. Did you mean "
     "'order_id'?"),
    ("    - weight\n", "    - wieght\n",
     "parcels/use_case.yaml:35 examples.columns: no column 'wieght'. Did you mean "
     "'weight'?"),
    ("    - weight\n", "    - hours(ordered_at) AS hour\n",
     "parcels/use_case.yaml:35 examples.columns: no function 'hours'. Did you mean 'hour'?"),
    ("    - weight\n", "    - weight AS carrier\n",
     "parcels/use_case.yaml:36 examples.columns: 'carrier' is taken; name it "
     "otherwise, such as 'carrier_input'"),
    ("    - weight\n", "    - order_id\n",
     "parcels/use_case.yaml:35 examples.columns: 'order_id' is taken; name it "
     "otherwise, such as 'order_id_input'"),
    ("    - weight\n", "    - weight AS label\n",
     "parcels/use_case.yaml:35 examples.columns: 'label' is taken; name it otherwise, "
     "such as 'label_input'"),
    ("    - weight\n", "    - 5\n",
     "parcels/use_case.yaml:35 examples.columns: '5' should be text; quote it: '5'"),
    ("    - weight\n", "    - count(*)\n",
     "parcels/use_case.yaml:35 examples.columns: sees one row at a time; no "
     "aggregates, windows or subqueries"),
    ("    - weight\n", "    - lag(weight) over () AS x\n",
     "parcels/use_case.yaml:35 examples.columns: sees one row at a time; no "
     "aggregates, windows or subqueries"),
    ("- weight > 0", "- lag(weight) over () > 0",
     "parcels/use_case.yaml:15 sources.orders.rules: sees one row at a time; no "
     "aggregates, windows or subqueries"),
    ("label: {sql: labels.sql, task: binary", "label: {sql: label.sql, task: binary",
     "parcels/use_case.yaml:37 label.sql: there is no file 'label.sql' in parcels. "
     "Did you mean 'labels.sql'?"),
    ("task: binary", "task: classification",
     "parcels/use_case.yaml:37 label.task: 'classification' should be one of binary, "
     "multiclass, regression"),
    ("task: binary, ", "",
     "parcels/use_case.yaml:37 label.task: is missing; add `task: …`"),
    ("task: binary", "task: regression",
     "parcels/use_case.yaml:39 model.metric: 'roc_auc' does not measure a regression "
     "label. There are: mae, rmse, r2, bias"),
    ("horizon: 3d", "horizon: -3d",
     "parcels/use_case.yaml:37 label.horizon: '-3d' is not a valid duration; write 90m, 3h, "
     "7d, 2w or 1mo"),
    ("metric: roc_auc", "metric: rocauc",
     "parcels/use_case.yaml:39 model.metric: 'rocauc' should be one of roc_auc, "
     "average_precision, log_loss, brier, calibration_error, mae, rmse, r2, bias, "
     "accuracy, macro_f1. Did you mean 'roc_auc'?"),
    ("metric: roc_auc", "metric: mae",
     "parcels/use_case.yaml:39 model.metric: 'mae' does not measure a binary label. "
     "There are: roc_auc, average_precision, log_loss, brier, calibration_error"),
    ("  metric: roc_auc\n", "",
     "parcels/use_case.yaml:38 model.metric: is missing; add `metric: …`"),
    ("  metric: roc_auc\n", "  metric: roc_auc\n  build: build\n",
     "parcels/use_case.yaml:40 model.build: 'build' should read like 'model:build': a "
     "file and a function in it"),
    ("  metric: roc_auc\n", "  metric: roc_auc\n  build: model:bild\n",
     "parcels/use_case.yaml:40 model.build: model.py has no function 'bild'. Did you "
     "mean 'build'?"),
    ("  metric: roc_auc\n", "  metric: roc_auc\n  build: models:build\n",
     "parcels/use_case.yaml:40 model.build: there is no file 'models.py' in parcels. "
     "Did you mean 'model.py'?"),
    ("  metric: roc_auc\n", "  metric: roc_auc\n  fit: fit\n",
     "parcels/use_case.yaml:40 model.fit: 'fit' should read like 'model:fit': a file and a "
     "function in it"),
    ("  metric: roc_auc\n", "  metric: roc_auc\n  fit: model:fit\n",
     "parcels/use_case.yaml:40 model.fit: model.py has no function 'fit'. There is: build"),
    ("  metric: roc_auc\n", "  metric: roc_auc\n  fit: fitting:fit\n",
     "parcels/use_case.yaml:40 model.fit: 'fitting:fit' should be in model.py, beside `build`: "
     "one file says how the model is made"),
    ("  metric: roc_auc\n", "  metric: roc_auc\n  validation: 7d\n",
     "parcels/use_case.yaml:40 model.validation: nothing looks at it without `fit: model:fit`, "
     "a function that is given it"),
    ("  metric: roc_auc\n", "  metric: roc_auc\n  fit: model:build\n  validation: 3d\n",
     "parcels/use_case.yaml:41 model.validation: '3d' ends before its labels are there: labels "
     "are known '3d' after a window's end; take more than '3d'"),
    ("  window: 60d\n  holdout: 7d\n", "  fit: model:build\n  window: 17d\n  holdout: 7d\n",
     "parcels/use_case.yaml:41 model.window: '17d' leaves no row to fit on whose label is known "
     "before the validation of '7d' and the holdout of '7d'; lengthen it, or shorten "
     "model.validation"),
    ("  metric: roc_auc\n", "  metric: roc_auc\n  min_rows: many\n",
     "parcels/use_case.yaml:40 model.min_rows: 'many' should be a whole number"),
    ("  metric: roc_auc\n", "  metric: roc_auc\n  min_rows: 1\n",
     "parcels/use_case.yaml:40 model.min_rows: '1' should be at least 2"),
    ("monitoring:\n", "gate: {min_improvement: .nan}\nmonitoring:\n",
     "parcels/use_case.yaml:44 gate.min_improvement: 'nan' should be a number"),
    ("monitoring:\n", "gate: {confidence: 95}\nmonitoring:\n",
     "parcels/use_case.yaml:44 gate.confidence: '95' should be less than 1"),
    ("monitoring:\n", "gate: {confidence: 0.05}\nmonitoring:\n",
     "parcels/use_case.yaml:44 gate.confidence: '0.05' should be at least 0.5"),
    ("monitoring:\n", "gate: {guards: {mae: 1}}\nmonitoring:\n",
     "parcels/use_case.yaml:44 gate.guards.mae: 'mae' does not measure a binary label. "
     "There are: roc_auc, average_precision, log_loss, brier, calibration_error"),
    ("monitoring:\n", "gate: {guards: {logloss: 1}}\nmonitoring:\n",
     "parcels/use_case.yaml:44 gate.guards.logloss: 'logloss' should be one of roc_auc, "
     "average_precision, log_loss, brier, calibration_error, mae, rmse, r2, bias, accuracy, "
     "macro_f1. Did you mean 'log_loss'?"),
    ("monitoring:\n", "gate: {guards: {brier: -1}}\nmonitoring:\n",
     "parcels/use_case.yaml:44 gate.guards.brier: '-1' should be at least 0"),
    ("monitoring:\n", "gate: {guards: {roc_auc: 0.1}}\nmonitoring:\n",
     "parcels/use_case.yaml:44 gate.guards.roc_auc: 'roc_auc' is what the gate compares "
     "anyway; use min_improvement"),
    ("monitoring:\n",
     "gate: {segments: [carier], segment_tolerance: 0.1}\nmonitoring:\n",
     "parcels/use_case.yaml:44 gate.segments: no model column 'carier'. Did you mean "
     "'carrier'?"),
    ("monitoring:\n", "gate: {segments: [carrier]}\nmonitoring:\n",
     "parcels/use_case.yaml:44 gate.segments: need `segment_tolerance: …`, how much worse "
     "roc_auc may be in one"),
    ("  window: 60d\n", "  window: 5d\n",
     "parcels/use_case.yaml:41 model.holdout: '7d' leaves nothing to train on of a "
     "window of '5d'; shorten it"),
    ("horizon: 3d", "horizon: 7d",
     "parcels/use_case.yaml:41 model.holdout: '7d' ends before its labels are there: labels "
     "are known '7d' after a window's end; take more than '7d'"),
    ("  window: 60d\n", "  window: 10d\n",
     "parcels/use_case.yaml:40 model.window: '10d' leaves no row to train on before the "
     "holdout of '7d' whose label is known: labels are known '3d' after a window's end; "
     "lengthen it"),
    ("retrain:\n", "retrain:\n  window: 9d\n",
     "parcels/use_case.yaml:47 retrain.window: '9d' leaves no row to train on before the "
     "holdout of '7d' whose label is known: labels are known '3d' after a window's end; "
     "lengthen it"),
    ("retrain:\n", "retrain:\n  on: [performance]\n",
     "parcels/use_case.yaml:47 retrain.on: 'performance' can never fail: no metric has a "
     "bound; set `monitoring.performance: {min: …}`"),
    ("  window: 60d\n", "  window: 0d\n",
     "parcels/use_case.yaml:40 model.window: '0d' should be longer than nothing, such "
     "as 7d"),
    ("schedule: 0 5 1 * *", "schedule: monthly",
     "parcels/use_case.yaml:42 model.schedule: 'monthly' is not a valid cron expression (not "
     "five fields); '0 5 1 * *' is 5:00 on the first of each month"),
    ("schedule: 0 5 1 * *", "schedule: 0 25 1 * *",
     "parcels/use_case.yaml:42 model.schedule: '0 25 1 * *' is not a valid cron expression "
     "(Bad hour); '0 5 1 * *' is 5:00 on the first of each month"),
    ("features: [carrier]\n", "features: [carier]\n",
     "parcels/use_case.yaml:43 model.features: no feature view 'carier'. Did you mean "
     "'carrier'?"),
    ("features: [carrier]\n", "features: carrier\n",
     "parcels/use_case.yaml:43 model.features: 'carrier' should be a list, such as "
     "[carrier]"),
    ("features: [carrier]\n", "featurs: [carrier]\n",
     "parcels/use_case.yaml:43 model.featurs: unknown key. Did you mean 'features'?"),
    ("  window: 28d\n", "  window: 28d\n  drift: {method: kl}\n",
     "parcels/use_case.yaml:46 monitoring.drift.method: 'kl' should be one of "
     "wasserstein, psi, jensenshannon, ks"),
    ("  window: 28d\n", "  window: 28d\n  drift: {share: 30}\n",
     "parcels/use_case.yaml:46 monitoring.drift.share: '30' should be at most 1"),
    ("  window: 28d\n", "  window: 28d\n  drift: {threshold: low}\n",
     "parcels/use_case.yaml:46 monitoring.drift.threshold: 'low' should be a number"),
    ("  window: 28d\n", "  window: 28d\n  performance: 0.65\n",
     "parcels/use_case.yaml:46 monitoring.performance: '0.65' should be a mapping "
     "with keys such as min, max, bounds, min_rows"),
    ("  window: 28d\n", "  window: 28d\n  performance: {bounds: {mae: {max: 3}}}\n",
     "parcels/use_case.yaml:46 monitoring.performance.bounds.mae: 'mae' does not measure "
     "a binary label. There are: roc_auc, average_precision, log_loss, brier, "
     "calibration_error"),
    ("  window: 28d\n", "  window: 28d\n  performance: {bounds: {brier: {}}}\n",
     "parcels/use_case.yaml:46 monitoring.performance.bounds.brier: bounds nothing; give "
     "it `min: …` or `max: …`"),
    ("  window: 28d\n",
     "  window: 28d\n  performance: {min: 0.6, bounds: {roc_auc: {min: 0.7}}}\n",
     "parcels/use_case.yaml:46 monitoring.performance.bounds.roc_auc: 'roc_auc' is the "
     "model's metric, which `min` and `max` bound already; keep one of both"),
    ("  window: 28d\n", "  window: 28d\n  drift: {thresholds: {price: 0.5}}\n",
     "parcels/use_case.yaml:46 monitoring.drift.thresholds.price: no column 'price'. There "
     "are: weight, carrier, carrier__seconds, probability, label"),
    ("  window: 28d\n", "  window: 28d\n  drift: {thresholds: {weight: 0}}\n",
     "parcels/use_case.yaml:46 monitoring.drift.thresholds.weight: '0' should be more "
     "than 0"),
    ("  sustained: 3 of 5", "  columns: [probabilty]",
     "parcels/use_case.yaml:47 retrain.columns: no column 'probabilty'. Did you mean "
     "'probability'?"),
    ("  sustained: 3 of 5", "  metrics: [brier]",
     "parcels/use_case.yaml:47 retrain.metrics: 'brier' has no bounds in "
     "monitoring.performance"),
    ("  sustained: 3 of 5", "  window: 7d",
     "parcels/use_case.yaml:47 retrain.window: '7d' is no longer than the holdout of "
     "'7d', so that nothing is left to train on"),
    ("3 of 5", "3/5",
     "parcels/use_case.yaml:47 retrain.sustained: '3/5' should read like '3 of 5'"),
    ("3 of 5", "6 of 5",
     "parcels/use_case.yaml:47 retrain.sustained: '6 of 5' can never be; the first "
     "number is from 1 to the second"),
    ("  sustained: 3 of 5", "  on: [dirft]",
     "parcels/use_case.yaml:47 retrain.on: 'dirft' should be one of drift, "
     "performance, schedule. Did you mean 'drift'?"),
    ("  sustained: 3 of 5", "  approval: yes",
     "parcels/use_case.yaml:47 retrain.approval: 'yes' should be one of none, required"),
    ("retrain:\n  sustained: 3 of 5\n", "retrain:\n",
     "parcels/use_case.yaml:46 retrain: nothing is here; this should be a mapping "
     "with keys such as on, sustained, cooldown, columns"),
    ("retrain:\n  sustained: 3 of 5\n", "retrain: &again\n  on: *again\n",
     "parcels/use_case.yaml:46: not YAML: it contains itself"),
    ("retrain:\n  sustained: 3 of 5\n", "retain: {}\n",
     "parcels/use_case.yaml:46 retain: unknown key. Did you mean 'retrain'?"),
    ("timezone: Europe/Berlin", "timezone: localtime",
     "parcels/use_case.yaml:3 partitions.timezone: DuckDB has no zone 'localtime'; "
     "take one such as 'Europe/Berlin'"),
    ("start: 2024-01-01", "start: 2024-01-01, end: 2023-01-01",
     "parcels/use_case.yaml:3 partitions.end: '2023-01-01' leaves not one window "
     "after '2024-01-01'; take a later one, or none"),
    ("weight: DOUBLE", "Weight: DOUBLE\n      weight: DOUBLE",
     "parcels/use_case.yaml:13 sources.orders.columns.Weight: 'Weight' is there in "
     "another spelling too; DuckDB ignores case"),
    ("- weight > 0", "- (SELECT max(weight) FROM orders) > 0",
     "parcels/use_case.yaml:15 sources.orders.rules: sees one row at a time; no "
     "aggregates, windows or subqueries"),
    ("- weight > 0", "- weight > 0 -- of course",
     "parcels/use_case.yaml:15 sources.orders.rules: 'weight > 0 -- of course' is not "
     "SQL: syntax error at end of input"),
    ("known_at: delivered_at + interval 1 hour", "known_at: now()",
     "parcels/use_case.yaml:19 sources.deliveries.known_at: \"now\" is another value "
     "each time; take it from a column"),
    ("    event_time: ordered_at\n    key: [order_id]\n    columns:",
     "    event_time: ordered_at\n    known_at: ordered_at + interval 1 hour\n"
     "    key: [order_id]\n    columns:",
     "parcels/use_case.yaml:8 sources.orders.known_at: 'ordered_at + interval 1 hour' is after "
     "the event time (2024-01-01 02:00:00+01 for 2024-01-01 01:00:00+01), and examples are "
     "predicted at their event time; correct it, or take as `event_time` a column that says when "
     "a row of 'orders' is known"),
    ("    event_time: ordered_at\n    key: [order_id]\n    columns:",
     "    event_time: ordered_at\n    known_at: date_trunc('month', ordered_at + interval 1 day)\n"
     "    key: [order_id]\n    columns:",
     "parcels/use_case.yaml:8 sources.orders.known_at: 'date_trunc('month', ordered_at + interval "
     "1 day)' is after the event time (2024-03-01 00:00:00+01 for 2024-02-29 10:00:00+01), and "
     "examples are predicted at their event time; correct it, or take as `event_time` a column "
     "that says when a row of 'orders' is known"),
    ("    - weight\n", "    - '*'\n",
     "parcels/use_case.yaml:35 examples.columns: 'order_id' is taken; name it "
     "otherwise, such as 'order_id_input'"),
    ("sql: labels.sql", "sql: /etc/hostname",
     "parcels/use_case.yaml:37 label.sql: '/etc/hostname' is not in the folder of the "
     "use case; move it there"),
    ("schedule: 0 5 1 * *", "schedule: '@daily'",
     "parcels/use_case.yaml:42 model.schedule: '@daily' is not a valid cron expression (not "
     "five fields); '0 5 1 * *' is 5:00 on the first of each month"),
]

FILE_MISTAKES = [
    ("use_case.yaml", None, None,
     "parcels/use_case.yaml: there is no such file"),
    ("use_case.yaml", None, "",
     "parcels/use_case.yaml:1: is empty; it should have keys such as description, "
     "partitions, sources"),
    ("use_case.yaml", None, "# soon\n",
     "parcels/use_case.yaml:1: is empty; it should have keys such as description, "
     "partitions, sources"),
    ("use_case.yaml", None, "- a\n",
     "parcels/use_case.yaml:1: is not a mapping; it should have keys such as "
     "description, partitions, sources"),
    ("use_case.yaml", None, b'\xff\xfe',
     "parcels/use_case.yaml: not a text of YAML: 'utf-8' codec can't decode byte 0xff "
     "in position 0: invalid start byte"),
    ("features/carrier.sql", None, None,
     "parcels/use_case.yaml:27 features.carrier: there is no file "
     "'features/carrier.sql' in parcels; write it"),
    ("features/carrier.sql", None, "",
     "parcels/features/carrier.sql:1: the file is empty; write a SELECT"),
    ("features/carrier.sql", None, "-- later\n",
     "parcels/features/carrier.sql:1: the file is empty; write a SELECT"),
    ("features/carrier.sql", "FROM deliveries", "FROM delivery",
     "parcels/features/carrier.sql:5: no source 'delivery'. Did you mean 'deliveries'?"),
    ("features/carrier.sql", "FROM known", "FORM known",
     "parcels/features/carrier.sql:12: syntax error at or near \"FORM\""),
    ("features/carrier.sql", "    carrier,\n    known", "    carrier\n    known",
     "parcels/features/carrier.sql:10: syntax error at or near \"AS\""),
    ("features/carrier.sql", "avg(took)", "avg(tok)",
     "parcels/features/carrier.sql:11: no column 'tok'. Did you mean 'took'?"),
    ("features/carrier.sql", "avg(took)", "avrg(took)",
     "parcels/features/carrier.sql:11: no function 'avrg'. Did you mean 'avg'?"),
    ("features/carrier.sql", "epoch(avg(took))", "epoch(carrier)",
     "parcels/features/carrier.sql:11: No function matches the given name and "
     "argument types 'epoch(VARCHAR)'. You might need to add explicit type casts."),
    ("features/carrier.sql", "    carrier,\n    known_at AS", "    known_at AS",
     "parcels/features/carrier.sql:8: the query yields no column 'carrier'. There "
     "are: event_time, seconds"),
    ("features/carrier.sql", "known_at AS event_time", "known_at",
     "parcels/features/carrier.sql:8: the query yields no column 'event_time'. There "
     "are: carrier, known_at, seconds"),
    ("features/carrier.sql", "known_at AS event_time", "CAST(known_at AS DATE) AS event_time",
     "parcels/features/carrier.sql:8: 'event_time' is DATE; write CAST(… AS "
     "TIMESTAMPTZ) AS event_time"),
    ("features/carrier.sql", ",\n    epoch(avg(took)) AS seconds", "",
     "parcels/features/carrier.sql:8: the query yields no feature beside entity and "
     "event_time"),
    ("features/carrier.sql", "AS seconds", "AS carrier",
     "parcels/features/carrier.sql:8: the query yields two columns called 'carrier'"),
    ("features/carrier.sql", "AS seconds", "AS snapshot",
     "parcels/features/carrier.sql:8: 'snapshot' is a column of the platform; name it "
     "otherwise"),
    ("features/carrier.sql", "GROUP BY ALL;", "GROUP BY ALL; SELECT 1;",
     "parcels/features/carrier.sql:8: 2 statements; there should be one SELECT"),
    ("features/carrier.sql", "GROUP BY ALL;", "GROUP BY carrier;",
     "parcels/features/carrier.sql:10: column \"known_at\" must appear in the GROUP BY "
     "clause or must be part of an aggregate function. Either add it to the GROUP BY "
     "list, or use \"ANY_VALUE(known_at)\" if the exact value of \"known_at\" is not "
     "important."),
    ("features/carrier.sql", "SELECT\n    carrier,", "INSERT INTO orders SELECT\n    carrier,",
     "parcels/features/carrier.sql:8: this is INSERT; there should be one SELECT"),
    ("features/carrier.sql", "FROM deliveries", "FROM 'deliveries/*.csv'",
     "parcels/features/carrier.sql:5: a query reads sources only; declare the file as one"),
    ("features/carrier.sql", None,
     "SELECT 'dhl' AS carrier, '2024-01-01'::TIMESTAMPTZ AS event_time, 1 AS one",
     "parcels/features/carrier.sql:1: it reads none of the sources: orders, deliveries"),
    ("labels.sql", ",\n    known_at\nFROM", "\nFROM",
     "parcels/labels.sql:1: the query yields no column 'known_at'; add the time from "
     "which on the label is known"),
    ("labels.sql", "AS label", "AS lable",
     "parcels/labels.sql:1: the query yields no column 'label'. Did you mean 'lable'?"),
    ("labels.sql", "known_at > ordered_at + INTERVAL 2 DAYS", "carrier",
     "parcels/labels.sql:1: 'label' is VARCHAR; a binary one is BOOLEAN, such as "
     "status = 'late'"),
    ("labels.sql", "    order_id,\n", "",
     "parcels/labels.sql:1: the query yields no column 'order_id'. There are: "
     "event_time, label, known_at"),
    ("labels.sql", "INTERVAL 2 DAYS", "INTERVAL 2 DAYZ",
     "parcels/labels.sql:4: syntax error at or near \"AS\""),
    ("model.py", None, None,
     "parcels/use_case.yaml:38 model.build: there is no file 'model.py' in parcels"),
    ("model.py", "def build():", "def build(:",
     "parcels/model.py:4: not Python: invalid syntax"),
    ("model.py", "def build", "def make",
     "parcels/use_case.yaml:38 model.build: model.py has no function 'build'. There "
     "is: make"),
    ("model.py", None, "\u0000",
     "parcels/model.py: not Python: source code string cannot contain null bytes"),
    ("labels.sql", "    known_at\nFROM", "    current_timestamp AS known_at\nFROM",
     "parcels/labels.sql:5: \"current_timestamp\" is another value each time; take it "
     "from a column"),
]
# fmt: on


def write(folder: Path, files: dict[str, str | bytes | None]) -> Path:
    for name, content in files.items():
        if content is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def said_of(folder: Path) -> str:
    with pytest.raises(SpecErrors) as caught:
        load_use_case(folder)
    return str(caught.value).replace(f"{folder.parent}/", "")


@pytest.mark.parametrize(
    "known_at",
    [
        "ordered_at - interval 1 day",
        "date_trunc('day', ordered_at)",
        "least(ordered_at, ordered_at + interval 1 hour)",
        # What other columns hold only rows show.
        "ordered_at + to_hours(CAST(weight AS INTEGER))",
    ],
)
def test_examples_may_be_known_before_their_event(tmp_path: Path, known_at: str):
    line = "    event_time: ordered_at\n    key: [order_id]\n    columns:"
    known = line.replace("    key:", f'    known_at: "{known_at}"\n    key:')
    files = {**FILES, "use_case.yaml": SPEC.replace(line, known, 1)}
    assert load_use_case(write(tmp_path / "parcels", files)).sources["orders"].known_at == known_at


def test_the_use_case_that_the_mistakes_are_made_in_is_sound(tmp_path: Path):
    use_case = load_use_case(write(tmp_path / "parcels", FILES))

    assert use_case.model_columns == {
        "weight": "DOUBLE", "carrier": "VARCHAR", "carrier__seconds": "DOUBLE",
    }  # fmt: skip
    assert use_case.features["carrier"].reads == ("deliveries",)


@pytest.mark.parametrize(("right", "wrong", "said"), YAML_MISTAKES)
def test_a_mistake_in_the_yaml_is_one_error_with_its_line(
    tmp_path: Path, right: str, wrong: str, said: str
):
    assert right in SPEC
    folder = write(tmp_path / "parcels", {**FILES, "use_case.yaml": SPEC.replace(right, wrong)})

    assert said_of(folder) == said


@pytest.mark.parametrize(("name", "right", "wrong", "said"), FILE_MISTAKES)
def test_a_mistake_in_another_file_is_one_error_with_its_line(
    tmp_path: Path, name: str, right: str | None, wrong: str | bytes | None, said: str
):
    content = wrong
    if right is not None:
        assert isinstance(wrong, str)
        assert right in FILES[name]
        content = FILES[name].replace(right, wrong, 1)
    folder = write(tmp_path / "parcels", {**FILES, name: content})

    assert said_of(folder) == said


def test_every_mistake_is_found_not_only_the_first(tmp_path: Path):
    spec = SPEC.replace("weight: DOUBLE", "weight: DUBLE").replace("- weight > 0", "- wait > 0")
    folder = write(tmp_path / "parcels", {**FILES, "use_case.yaml": spec.replace("1 hour", "1 hr")})

    assert said_of(folder).splitlines() == [
        "parcels/use_case.yaml:13 sources.orders.columns.weight: "
        "no type 'DUBLE'. Did you mean 'DOUBLE'?",
        "parcels/use_case.yaml:19 sources.deliveries.known_at: "
        "'delivered_at + interval 1 hr' is not SQL: syntax error at or near \"hr\"",
    ]


def test_a_broken_use_case_never_takes_the_others_down(tmp_path: Path):
    write(tmp_path / "sound", FILES)
    write(tmp_path / "broken", {**FILES, "use_case.yaml": "description: ["})
    write(tmp_path / "misnamed", {"use_case.yml": SPEC})
    (tmp_path / "__pycache__").mkdir()

    loaded = load_use_cases(tmp_path)

    assert list(loaded.use_cases) == ["sound"]
    assert [str(e).replace(f"{tmp_path}/", "") for e in loaded.broken.values()] == [
        "broken/use_case.yaml:1: not YAML: expected the node content, but found '<stream end>' "
        "while parsing a flow node that begins in line 1; look for a bracket, quote or indent",
        "misnamed/use_case.yaml: there is no such file; rename use_case.yml",
    ]


def test_of_two_use_cases_of_one_name_the_copy_is_refused(tmp_path: Path):
    write(tmp_path / "a_copy", {**FILES, "use_case.yaml": f"{SPEC}name: parcels\n"})
    write(tmp_path / "parcels", FILES)

    loaded = load_use_cases(tmp_path)

    assert loaded.use_cases["parcels"].folder == tmp_path / "parcels"
    assert str(loaded.broken["a_copy"]).replace(f"{tmp_path}/", "") == (
        "a_copy/use_case.yaml:48 name: 'parcels' is the name of parcels already; "
        "give one of them another"
    )


def test_a_use_case_that_is_asked_for_by_a_wrong_name_is_suggested(tmp_path: Path):
    write(tmp_path / "parcels", FILES)
    write(tmp_path / "broken", {**FILES, "model.py": None})
    loaded = load_use_cases(tmp_path)

    assert loaded.require("parcels").name == "parcels"
    with pytest.raises(SpecError, match=r"no use case 'parcel'\. Did you mean 'parcels'\?"):
        loaded.require("parcel")
    with pytest.raises(SpecErrors, match=r"there is no file 'model\.py'"):
        loaded.require("broken")


def test_the_model_is_given_the_chosen_views_only(tmp_path: Path):
    spec = SPEC.replace("  features: [carrier]\n", "  features: []\n")
    use_case = load_use_case(write(tmp_path / "parcels", {**FILES, "use_case.yaml": spec}))

    assert list(use_case.features) == ["carrier"]
    assert list(use_case.model_columns) == ["weight", "carrier"]


def test_a_query_may_end_in_a_comment(tmp_path: Path):
    files = {**FILES, "labels.sql": f"{LABELS}; -- that is all"}

    query = load_use_case(write(tmp_path / "parcels", files)).label.query

    assert duckdb.sql(f"SELECT * FROM (WITH deliveries AS (FROM {ROW}) {query})").fetchall()


@pytest.mark.parametrize(("origin", "expected"), TABLE_MISTAKES)
def test_mistakes_about_tables_of_databases(tmp_path: Path, origin: str, expected: str) -> None:
    spec = SPEC.replace(AS_FILES, origin)
    folder = write(tmp_path / "parcels", {**FILES, "use_case.yaml": spec})
    with pytest.raises(SpecErrors) as caught:
        load_use_case(folder, ["erp"])
    (error,) = caught.value.errors
    assert str(error).endswith(f"parcels/use_case.yaml:{expected}")


@pytest.mark.slow
def test_use_cases_are_loaded_without_pandas(tmp_path: Path):
    write(tmp_path / "parcels", FILES)
    code = (
        "import sys; from pathlib import Path; from ml_platform.spec.loading import load_use_cases;"
        "print(*load_use_cases(Path(sys.argv[1])).use_cases, 'pandas' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, tmp_path], check=True, capture_output=True, text=True
    )
    assert said.stdout.split() == ["parcels", "False"]


def test_a_select_item_of_a_comment_alone_is_refused(tmp_path: Path):
    spec = SPEC.replace("    - carrier\nlabel", '    - "-- carrier\\n"\nlabel')
    said = said_of(write(tmp_path / "parcels", {**FILES, "use_case.yaml": spec}))
    assert "use_case.yaml:36 examples.columns: '-- carrier" in said


@pytest.mark.parametrize(
    "name", ["parcels", "freight", "letters", "broken", "parcel", "_hidden", ""]
)
def test_one_use_case_is_found_as_among_all(tmp_path: Path, name: str):
    write(tmp_path / "parcels", FILES)
    # Named like another folder, named otherwise, no use case at all, and left out.
    write(tmp_path / "copy", {**FILES, "use_case.yaml": f"name: parcels\n{SPEC}"})
    write(tmp_path / "other", {**FILES, "use_case.yaml": f"name: freight\n{SPEC}"})
    write(tmp_path / "letters", {**FILES, "use_case.yaml": f"name: stamps\n{SPEC}"})
    write(tmp_path / "broken", {"use_case.yaml": "name: broken"})
    write(tmp_path / "_hidden", {**FILES, "use_case.yaml": f"name: hidden\n{SPEC}"})

    def found(read: Callable[[], UseCase]) -> object:
        try:
            return read()
        except (SpecError, SpecErrors) as error:
            return str(error)

    assert found(lambda: require_use_case(tmp_path, name)) == found(
        lambda: load_use_cases(tmp_path).require(name)
    )
