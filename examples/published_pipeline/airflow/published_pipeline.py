"""A challenger each month, predictions each day: over HTTP, with nothing of the platform installed.

The connection `ml_platform` holds address and key. Parameters of a run can be changed when it is
triggered.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import DAG, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException


def is_taken(response):
    """Whether a run was started; what the service refuses is not tried again."""
    if response.status_code in {429, 503}:
        raise AirflowException(response.text)
    if response.status_code >= 400:
        raise AirflowFailException(response.json()["detail"])
    return True


def is_done(response):
    """Whether a run has succeeded; fails the task where the run has failed or was cancelled."""
    run = response.json()["run"]
    if run["status"] in {"failed", "ended"}:
        raise AirflowFailException(f"{run['status']}: {run['failures']}")
    return run["is_over"]


def pipeline(name, *chosen):
    """Two tasks: a pipeline is started, and watched until it is over.

    chosen: which parameters of the DAG are those of the pipeline.
    """
    parameters = ", ".join(f"'{each}': params['{each}']" for each in chosen)
    body = f"{{'parameters': {{{parameters}}}, 'reason': 'Airflow ' ~ run_id}}"
    started = HttpOperator(
        task_id=f"start_{name}",
        http_conn_id="ml_platform",
        endpoint=f"control/parcels/pipelines/{name}/runs",
        # A retry of the task is answered with the run that the first attempt started.
        headers={"Content-Type": "application/json", "Idempotency-Key": f"{name} {{{{ run_id }}}}"},
        data=f"{{{{ {body} | tojson }}}}",
        extra_options={"check_response": False},
        response_check=is_taken,
        response_filter=lambda response: response.json()["links"]["self"],
        retries=3,
        retry_delay=timedelta(seconds=30),
    )
    watched = HttpSensor(
        task_id=name,
        http_conn_id="ml_platform",
        endpoint=f"{{{{ ti.xcom_pull('start_{name}') }}}}",
        response_check=is_done,
        # Dagster may be unavailable for a while. By default 404 is waited for, which never ends.
        response_error_codes_allowlist=["503"],
        poke_interval=2,
        timeout=3600,
    )
    started >> watched
    return started, watched


with DAG(
    "published_pipeline",
    schedule=None,
    start_date=datetime(2024, 3, 1, tzinfo=UTC),
    catchup=False,
    params={
        "cutoff": Param("2024-03-24", type="string"),
        "window": Param("20d", type="string"),
        "sample": Param(0.5, type="number", minimum=0.2, maximum=1),
        "from": Param("2024-03-24", type="string"),
        "to": Param("2024-03-26", type="string"),
    },
):
    _, trained = pipeline("challenger", "cutoff", "window", "sample")
    scoring, _ = pipeline("scores", "from", "to")
    trained >> scoring
