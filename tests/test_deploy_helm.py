"""The Helm chart: what it refuses, and what it makes of its values, against Kubernetes' schemas."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config_schema
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import construct_dagster_k8s_job
from kubernetes.client import ApiClient

from ml_platform.serving.metrics import Metrics
from ml_platform.settings import ServingSettings, Settings
from tests.charts import RELEASE, ROOT, SETS, find, instance, needs_helm, pods, rendered, template

pytestmark = [needs_helm, pytest.mark.slow]

VERSION = kubernetes_validate.latest_version()
COMPONENT, OF_RELEASE = "app.kubernetes.io/component", "app.kubernetes.io/instance"
SERVING = "ML_PLATFORM_SERVING_"


KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
users: [{name: none, user: {token: none}}]
current-context: none
"""
"""Of a cluster that is not there: nothing asks it."""


def run_job(values: str, location: str, folder: Path) -> dict[str, Any]:
    """The job that Dagster's launcher makes for a run of a code location."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG)
    config = {
        **instance(values)["run_launcher"]["config"],
        "load_incluster_config": False,
        "kubeconfig_file": str(kubeconfig),
    }
    processed = process_config(K8sRunLauncher.config_type(), config)
    assert processed.success, processed.errors
    launcher = K8sRunLauncher(**processed.value)
    (container,) = pods(values)[f"Deployment/{RELEASE}-code-{location}"]["spec"]["containers"]
    env = {each["name"]: each["value"] for each in container["env"]}
    # As the launcher merges them, which reads the second from the code server.
    context = K8sContainerContext.create_for_run(
        dg.DagsterRun(job_name="one"), launcher, include_run_tags=True
    ).merge(K8sContainerContext.create_from_config(json.loads(env["DAGSTER_CONTAINER_CONTEXT"])))
    job = construct_dagster_k8s_job(
        context.get_k8s_job_config(env["DAGSTER_CURRENT_IMAGE"], launcher),
        ["dagster", "api", "execute_run"], "dagster-run-1", context.run_k8s_config,
        component="run_worker",
    )  # fmt: skip
    return dict(ApiClient().sanitize_for_serialization(job))


@pytest.mark.parametrize("values", SETS)
def test_each_manifest_is_as_kubernetes_wants_it(values: str) -> None:
    for document in rendered(values):
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_a_planted_fault_is_refused() -> None:
    broken = json.loads(json.dumps(find("StatefulSet", "predictions")))
    broken["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(broken, VERSION, strict=True)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("executor=cellery", "'processes', 'kubernetes', 'celery'"),
        ("images.tagg=2", "'tagg' not allowed"),
        ("settings.ml_platform_data=x", "invalid propertyName 'ml_platform_data'"),
        ("services.predictions.drainSeconds=1", "minimum: got 1, want 3"),
        ("pages.enabled=true", "/pages/sidecars"),
        ("services.predictions.autoscaling.rowsWaiting=0,services.predictions.autoscaling.cpu=0",
         "/services/predictions/autoscaling"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_by_name(wrong: str, said: str) -> None:
    done = template("--set", wrong)
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize("values", SETS)
def test_pods_have_no_rights_and_ask_for_what_they_need(values: str) -> None:
    for name, pod in pods(values).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        # The image says which user; OpenShift takes another.
        assert "runAsUser" not in spec["securityContext"], name
        assert ("fsGroup" in spec["securityContext"]) == (values != "openshift"), name
        for container in spec["containers"]:
            restricted(container)
            assert name.startswith("Job") or container["name"] == "login" or container["resources"]
        asks_cluster = spec["automountServiceAccountToken"]
        assert asks_cluster == (spec["serviceAccountName"] == f"{RELEASE}-dagster"), name


def restricted(container: dict[str, Any]) -> None:
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize(("values", "location"), [("", RELEASE), ("teams", "pricing")])
def test_a_run_gets_a_pod_of_its_team(values: str, location: str, tmp_path: Path) -> None:
    job = run_job(values, location, tmp_path)
    kubernetes_validate.validate(job, VERSION, strict=True)
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    restricted(container)
    assert spec["securityContext"]["runAsNonRoot"]
    # Only where steps have pods of their own does the run's ask the cluster for them.
    assert spec["automountServiceAccountToken"] == (values == "teams")
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert (labels[COMPONENT], labels[OF_RELEASE]) == ("run", RELEASE)
    settings = [each["configMapRef"]["name"] for each in container["envFrom"]
                if "configMapRef" in each]  # fmt: skip
    assert settings == [f"{RELEASE}-settings", f"{RELEASE}-code-{location}"]
    if values == "teams":
        assert container["image"] == "registry.example.org/pricing/code_location:7"
        assert container["resources"]["requests"] == {"cpu": "500m", "memory": "1Gi"}
        secrets = [each["secretRef"]["name"] for each in container["envFrom"]
                   if "secretRef" in each]  # fmt: skip
        assert secrets == [RELEASE, "pricing"]


@pytest.mark.parametrize("values", SETS)
def test_dagster_takes_its_instance_and_its_locations(
    values: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES", "postgresql+psycopg2://dagster:secret@postgres/dagster")
    config = instance(values)
    checked = process_config(dagster_instance_config_schema(), config)
    assert checked.success, checked.errors
    data = find("ConfigMap", "dagster", values)["data"]
    for entry in yaml.safe_load(data["workspace.yaml"])["load_from"]:
        host = entry["grpc_server"]["host"].removeprefix(f"{RELEASE}-")
        (port,) = find("Service", host, values)["spec"]["ports"]
        assert port["port"] == entry["grpc_server"]["port"]


@pytest.mark.parametrize("values", SETS)
def test_settings_are_those_that_there_are(values: str) -> None:
    for document in rendered(values):
        if document["kind"] != "ConfigMap" or document["metadata"]["name"].endswith("-dagster"):
            continue
        data: dict[str, str] = document["data"]
        own = {name.removeprefix("ML_PLATFORM_").lower(): value for name, value in data.items()
               if not name.startswith(SERVING)}  # fmt: skip
        for name in ("kubernetes_steps",):
            if name in own:
                own[name] = json.loads(own[name])
        if own.get("executor") == "celery":
            own["celery_broker"] = "redis://redis:6379/1"
        Settings.model_validate(own)
        ServingSettings.model_validate(
            {name.removeprefix(SERVING).lower(): value for name, value in data.items()
             if name.startswith(SERVING)}
        )  # fmt: skip


@pytest.mark.parametrize("values", SETS)
def test_what_selects_pods_selects_some(values: str) -> None:
    labels = [pod["metadata"]["labels"] for pod in pods(values).values()]
    names = {document["metadata"]["name"] for document in rendered(values)}
    for document in rendered(values):
        spec = document.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector") or {}
        wanted = selector.get("matchLabels", selector if document["kind"] == "Service" else {})
        if wanted:
            assert any(wanted.items() <= each.items() for each in labels), document["metadata"]
        if document["kind"] == "HorizontalPodAutoscaler":
            assert spec["scaleTargetRef"]["name"] in names


def test_pods_reach_each_other_only_as_they_need() -> None:
    allowed = {
        document["spec"]["podSelector"]["matchLabels"][COMPONENT]: {
            name
            for rule in document["spec"]["ingress"]
            for peer in rule["from"]
            for name in peer.get("podSelector", {}).get("matchExpressions", [{"values": []}])[0][
                "values"
            ]
        }
        for document in rendered()
        if document["kind"] == "NetworkPolicy" and document["spec"].get("ingress")
    }
    assert allowed == {
        "code-location": {"webserver", "daemon"},
        "webserver": {"code-location", "predictions", "pages", "run", "celery"},
        "mlflow": {"code-location", "predictions", "pages", "run", "celery"},
        "predictions": set(),
    }
    # All others take no connection at all.
    everything = find("NetworkPolicy", "")["spec"]
    assert "ingress" not in everything
    assert everything["policyTypes"] == ["Ingress", "Egress"]


def test_services_scale_by_rows_that_wait_as_the_service_says_and_the_adapter_asks() -> None:
    metric = find("HorizontalPodAutoscaler", "predictions")["spec"]["metrics"][0]["pods"]["metric"]
    adapter = yaml.safe_load((ROOT / "deploy" / "prometheus" / "adapter.yaml").read_text())
    (rule,) = adapter["rules"]["custom"]
    assert rule["name"]["as"] == metric["name"]
    assert rule["seriesQuery"].startswith(metric["name"] + "{")
    assert f"# TYPE {metric['name']} gauge" in Metrics().page().decode()
