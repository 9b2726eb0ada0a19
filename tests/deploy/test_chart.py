"""The Helm chart: what helm and Kubernetes' schemas accept, and agreement of its values with the service."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.app import create_app
from service.http_server.server import Drain
from service.settings import ENVIRONMENT_PREFIX, Settings
from tests.support.kubernetes_tools import CHART, ROOT, one, program, python_of_tools, rendered, run

pytestmark = pytest.mark.timeout(600)

VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
OPTIONS: list[tuple[str, ...]] = [(), *(("--values", str(path)) for path in VALUES)]
MONITORING = ROOT / "deploy" / "monitoring"
COPIES = {
    "rules.yml": MONITORING / "rules.yml",
    "resnet-service.json": MONITORING / "grafana" / "dashboards" / "resnet-service.json",
}


def name_of(options: tuple[str, ...]) -> str:
    return Path(options[-1]).stem if options else "defaults"


def container_of(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (container,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def environment_of(objects: list[dict[str, Any]]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container_of(objects)["env"]}


def settings_of(environment: dict[str, str]) -> Settings:
    """The settings that the service reads from these variables. Raises for a value that it would refuse."""
    ours = {name.removeprefix(ENVIRONMENT_PREFIX): value for name, value in environment.items() if "RESNET_" in name}
    return Settings(**{name.lower(): value for name, value in ours.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_helm_finds_nothing_to_complain_about(options: tuple[str, ...]) -> None:
    done = run([program("helm"), "lint", "--strict", str(CHART), *options])
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


def test_each_object_of_each_set_of_values_fits_the_strict_schema_of_its_kind() -> None:
    objects = [found for options in OPTIONS for found in rendered(*options)]
    kinds = {"Deployment", "HorizontalPodAutoscaler", "ScaledObject", "PodMonitor", "PrometheusRule", "NetworkPolicy"}
    assert kinds <= {found["kind"] for found in objects}
    assert strictly(yaml.safe_dump_all(objects)) == [f"{len(objects)} objects"]


def strictly(text: str) -> list[str]:
    done = run([python_of_tools(), str(ROOT / "tests" / "support" / "strict_schemas.py")], text)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


MISSPELT = [
    ("Deployment", "livenessProbe", "livenessProbes"),
    ("PodMonitor", "podMetricsEndpoints", "podMetricEndpoints"),
    ("PrometheusRule", "expr:", "expression:"),
    ("ScaledObject", "minReplicaCount", "minReplicasCount"),
]


def test_a_misspelt_field_or_value_is_found() -> None:
    objects = rendered("--values", str(CHART / "ci" / "keda-values.yaml"))
    wrong = []
    for kind, right, misspelt in MISSPELT:
        text = yaml.safe_dump(one(objects, kind))
        assert right in text
        wrong.append(text.replace(right, misspelt, 1))
    *found, count = strictly("---\n".join(wrong))
    assert count == f"{len(MISSPELT)} objects"
    assert {line.partition(":")[0].partition(".")[0] for line in found} == {kind for kind, *_ in MISSPELT}


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_kubectl_reads_what_helm_writes(options: tuple[str, ...], tmp_path: Path) -> None:
    objects = rendered(*options)
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(objects))
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["all.yaml"]}))
    done = run([program("kubectl"), "kustomize", str(tmp_path)])
    assert done.returncode == 0, done.stderr
    assert len(list(yaml.safe_load_all(done.stdout))) == len(objects)


@pytest.mark.parametrize(
    "wrong",
    [
        "autoscaling.kind=cpu",
        "autoscaling.targetLoad=70",
        "settings.max_queues=1",
        "settings.drain_delay_s=1",  # has a value of its own
        "replica=3",
        "drain.timeoutSeconds=0",
        "image.digest=latest",
        "connections.maxAgeSeconds=0.5",
    ],
)
def test_a_wrong_value_is_refused_by_the_schema_of_the_values(wrong: str) -> None:
    done = run([program("helm"), "template", "demo", str(CHART), "--set", wrong])
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr


@pytest.mark.parametrize("source", ["pvc", "initContainer", "imageVolume"])
def test_models_from_elsewhere_need_a_place(source: str) -> None:
    done = run([program("helm"), "template", "demo", str(CHART), "--set", f"models.source={source}"])
    assert done.returncode != 0
    assert f"models.{source}." in done.stderr


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_the_service_accepts_each_variable_of_the_container(options: tuple[str, ...]) -> None:
    environment = environment_of(rendered(*options))
    known = {f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert {name for name in environment if name.startswith(ENVIRONMENT_PREFIX)} <= known
    assert {name for name in environment if not name.startswith(ENVIRONMENT_PREFIX)} <= {"OTEL_EXPORTER_OTLP_ENDPOINT"}
    settings_of(environment)


def test_the_values_reach_the_settings() -> None:
    settings = settings_of(environment_of(rendered("--values", str(CHART / "ci" / "hpa-values.yaml"))))
    assert (settings.max_queue, settings.max_queue_age_s, settings.max_upload_bytes) == (512, 2.5, 1024**3)
    assert (settings.drain_delay_s, settings.drain_timeout_s, settings.max_connection_age_s) == (10.0, 30, 45.0)
    assert (settings.model_name, str(settings.api_keys_file)) == ("flowers", "/keys/api")


def test_each_setting_is_a_value_of_the_chart() -> None:
    properties = json.loads((CHART / "values.schema.json").read_text())["properties"]
    environment = (CHART / "templates" / "_environment.tpl").read_text()
    own = {name.lower() for name in re.findall(r"RESNET_([A-Z_]+),", environment)}
    assert own | set(properties["settings"]["properties"]) == set(Settings.model_fields)
    assert own & set(properties["settings"]["properties"]) == set()


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_a_pod_is_killed_only_after_the_service_would_have_ended_by_itself(options: tuple[str, ...]) -> None:
    objects = rendered(*options)
    settings = settings_of(environment_of(objects))
    grace_s = one(objects, "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    longest_s = Drain(settings.drain_delay_s, settings.drain_timeout_s).longest_s
    assert math.ceil(longest_s) < grace_s <= longest_s + 5


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_a_pod_leaves_its_endpoints_before_the_service_stops_accepting(options: tuple[str, ...]) -> None:
    objects = rendered(*options)
    probe = container_of(objects)["readinessProbe"]
    noticed_s = probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]
    assert noticed_s <= settings_of(environment_of(objects)).drain_delay_s


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_probes_and_ports_are_those_of_the_service(options: tuple[str, ...]) -> None:
    objects = rendered(*options)
    container, settings = container_of(objects), settings_of(environment_of(objects))
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports.pop("http") == settings.port
    assert ports in ({}, {"admin": settings.admin_port})
    assert bool(ports) == (settings.admin_host == "0.0.0.0")  # noqa: S104
    routes = {
        getattr(route, "path", "") for route in create_app(settings.model_copy(update={"api_keys_file": None})).routes
    }
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == "http"
        assert container[probe]["httpGet"]["path"] in routes
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_a_pod_runs_with_nothing_that_it_can_change_but_its_own_folders(options: tuple[str, ...]) -> None:
    pod = one(rendered(*options), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for container in (*pod["containers"], *pod.get("initContainers", [])):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    for mount in pod["containers"][0]["volumeMounts"]:
        assert mount.get("readOnly") or "emptyDir" in volumes[mount["name"]]


@pytest.mark.parametrize("kind", ["hpa", "keda"])
def test_helm_leaves_the_number_of_replicas_to_the_autoscaler(kind: str) -> None:
    assert "replicas" in one(rendered(), "Deployment")["spec"]
    assert "replicas" not in one(rendered("--set", f"autoscaling.kind={kind}"), "Deployment")["spec"]


def test_the_policy_opens_the_admin_port_to_the_monitoring_only() -> None:
    (clients,) = one(rendered(), "NetworkPolicy")["spec"]["ingress"]
    assert clients == {"ports": [{"port": "http", "protocol": "TCP"}]}
    policy = one(rendered("--set", "monitoring.enabled=true"), "NetworkPolicy")["spec"]
    assert [rule["ports"][0]["port"] for rule in policy["ingress"]] == ["http", "admin"]
    assert policy["ingress"][1]["from"]
    assert policy["egress"] == []


def test_a_gpu_is_requested_and_never_by_two_pods_at_once() -> None:
    deployment = one(rendered("--set", "gpu.enabled=true,startup.seconds=900"), "Deployment")["spec"]
    (container,) = deployment["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"] == 900


def test_the_chart_has_the_rules_and_the_dashboard_of_the_monitoring_folder() -> None:
    if not MONITORING.exists():
        pytest.skip("there is no deploy/monitoring")
    for name, source in COPIES.items():
        assert (CHART / "files" / name).read_bytes() == source.read_bytes(), "run make chart-files"


def test_the_scaler_asks_for_a_series_that_the_rules_record() -> None:
    rules = yaml.safe_load((CHART / "files" / "rules.yml").read_text())
    recorded = {rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule}
    trigger = one(rendered("--values", str(CHART / "ci" / "keda-values.yaml")), "ScaledObject")["spec"]["triggers"][0]
    assert set(re.findall(r"resnet:[\w:]+", trigger["metadata"]["query"])) <= recorded
    assert 'namespace="vision",pod=~"demo-resnet-service-.+"' in trigger["metadata"]["query"]


def test_the_version_of_the_chart_is_that_of_the_package() -> None:
    import tomllib

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["appVersion"] == chart["version"] == project["version"]
