"""KubeRay's objects of `deploy/ray`: their schemas, and agreement with the programs that they run.

The pod templates are checked by the schema of Kubernetes, in the environment of `make deploy-tools`. KubeRay's CRDs are
checked where the variable KUBERAY_CRDS names a folder that has them.
"""

import ast
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.deploy.test_chart import strictly
from tests.deploy.test_kserve import closed
from tests.support.kubernetes_tools import ROOT

FILES = ROOT / "deploy" / "ray"
CRDS = {"rayservice.yaml": "rayservices", "rayjob.yaml": "rayjobs"}


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FILES / name).read_text())
    return found


def groups(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The head and the groups of workers."""
    cluster = found["spec"].get("rayClusterConfig") or found["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def problems(found: dict[str, Any], name: str) -> list[str]:
    """What the schema of KubeRay's CRD says against an object."""
    folder = os.environ.get("KUBERAY_CRDS")
    if folder is None:
        pytest.skip("KUBERAY_CRDS names no folder of KubeRay's ray-operator/config/crd/bases")
    crd = yaml.load((Path(folder) / f"ray.io_{CRDS[name]}.yaml").read_text(), yaml.CSafeLoader)
    version = found["apiVersion"].partition("/")[2]
    (schema,) = [one["schema"]["openAPIV3Schema"] for one in crd["spec"]["versions"] if one["name"] == version]
    return [error.message for error in jsonschema.Draft202012Validator(closed(schema)).iter_errors(found)]


@pytest.mark.parametrize("name", CRDS)
def test_an_object_fits_the_schema_of_kuberay_s_crd(name: str) -> None:
    assert problems(read(name), name) == []


@pytest.mark.parametrize("name", CRDS)
def test_a_misspelt_field_is_found(name: str) -> None:
    found = read(name)
    groups(found)[1]["replica"] = groups(found)[1].pop("replicas")
    assert any("'replica' was unexpected" in problem for problem in problems(found, name))


@pytest.mark.parametrize("name", CRDS)
def test_each_pod_template_fits_the_strict_schema_of_kubernetes(name: str) -> None:
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group["template"]}
        for group in groups(read(name))
    ]
    assert strictly(yaml.safe_dump_all(pods)) == [f"{len(pods)} objects"]


@pytest.mark.parametrize("name", CRDS)
def test_the_version_of_ray_is_that_of_the_extra_and_of_the_image(name: str) -> None:
    found = read(name)["spec"]
    version = (found.get("rayClusterConfig") or found["rayClusterSpec"])["rayVersion"]
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["ray"]
    assert f"ray[data,serve]~={version}" in extra
    assert f"FROM rayproject/ray:{version}-py311" in (FILES / "Dockerfile").read_text()


@pytest.mark.parametrize("name", CRDS)
def test_a_worker_has_a_cpu_more_than_an_actor_or_replica_and_the_head_runs_none(name: str) -> None:
    found = read(name)
    head, worker = groups(found)
    (container,) = worker["template"]["spec"]["containers"]
    needed = re.search(
        r"num_cpus: (\d+)|--cpus (\d+)", found["spec"].get("serveConfigV2") or found["spec"]["entrypoint"]
    )
    assert needed is not None
    assert int(container["resources"]["limits"]["cpu"]) == int(needed[1] or needed[2]) + 1
    assert head["rayStartParams"] == {"num-cpus": "0"}


def test_the_job_has_each_option_that_its_entrypoint_names() -> None:
    entrypoint = read("rayjob.yaml")["spec"]["entrypoint"]
    main = next(
        node
        for node in ast.walk(ast.parse((FILES / "classify_images.py").read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == "main"
    )
    parameters = {argument.arg.replace("_", "-") for argument in main.args.args}
    assert set(re.findall(r"--([\w-]+)", entrypoint)) <= parameters
    assert "/home/ray/app/classify_images.py" in entrypoint


def test_the_files_are_in_the_documents() -> None:
    text = (ROOT / "docs" / "ray.md").read_text()
    assert all(f"deploy/ray/{path.name}" in text for path in FILES.iterdir() if path.is_file())
