"""KServe: the two objects by their schemas, agreement with the service, and KServe's own programs against it.

The storage initializer and the client are the published packages `kserve-storage` and `kserve`, in the environment of
`make deploy-tools`. KServe's CRDs are checked where the variable KSERVE_CRDS names a folder that has them.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from service.app import create_app
from service.http_server.server import Drain
from service.settings import Settings
from tests.deploy.test_chart import strictly
from tests.service.conftest import image
from tests.support.kubernetes_tools import ROOT, python_of_tools
from tests.support.model_files.tiny_model import tiny_model
from tests.support.servers.running_service import running_service

FILES = ROOT / "deploy" / "kserve"
pytestmark = pytest.mark.timeout(600)
CRDS = {"runtime.yaml": "clusterservingruntimes", "inferenceservice.yaml": "inferenceservices"}


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FILES / name).read_text())
    return found


def container() -> dict[str, Any]:
    (found,) = read("runtime.yaml")["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def arguments(**changes: str) -> list[str]:
    """The arguments of the runtime, with some of their values replaced."""
    pairs = [argument.removeprefix("--").split("=", 1) for argument in container()["args"]]
    return [f"--{name}={changes.get(name.replace('-', '_'), value)}" for name, value in pairs]


def settings() -> Settings:
    pairs = [argument.removeprefix("--").split("=", 1) for argument in container()["args"]]
    return Settings(**{name.replace("-", "_"): value for name, value in pairs})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CRDS)
def test_an_object_fits_the_models_of_the_published_package(name: str) -> None:
    assert strictly((FILES / name).read_text()) == ["1 objects"]


@pytest.mark.parametrize("name", CRDS)
def test_a_misspelt_field_is_found(name: str) -> None:
    text = (FILES / name).read_text()
    wrong = text.replace("supportedModelFormats", "modelFormats").replace("storageUri", "storageURI")
    assert strictly(wrong)[0].startswith(read(name)["kind"])


@pytest.mark.parametrize("name", CRDS)
def test_an_object_fits_the_schema_of_kserve_s_crd(name: str) -> None:
    folder = os.environ.get("KSERVE_CRDS")
    if folder is None:
        pytest.skip("KSERVE_CRDS names no folder of KServe's config/crd/full")
    crd = yaml.load((Path(folder) / f"serving.kserve.io_{CRDS[name]}.yaml").read_text(), yaml.CSafeLoader)
    found = read(name)
    version = found["apiVersion"].partition("/")[2]
    (schema,) = [one["schema"]["openAPIV3Schema"] for one in crd["spec"]["versions"] if one["name"] == version]
    jsonschema.validate(found, closed(schema))


def closed(schema: Any) -> Any:
    """Return a schema that refuses unknown fields, which an API server would drop or refuse."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(value) for name, value in schema.items()}
    if isinstance(inner.get("properties"), dict) and "additionalProperties" not in inner and inner.get("type"):
        is_metadata = set(schema["properties"]) == set()
        inner["additionalProperties"] = is_metadata or bool(inner.get("x-kubernetes-preserve-unknown-fields"))
    return inner


def test_the_service_accepts_each_argument_of_the_runtime() -> None:
    assert (settings().port, settings().host) == (8080, "0.0.0.0")  # noqa: S104
    assert settings().model_name == "{{.Name}}"


def test_ports_and_probes_are_those_of_the_service() -> None:
    assert container()["ports"][0]["containerPort"] == settings().port
    assert read("runtime.yaml")["spec"]["annotations"]["prometheus.kserve.io/port"] == str(settings().admin_port)
    routes = {getattr(route, "path", "") for route in create_app(settings()).routes}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container()[probe]["httpGet"]["port"] == settings().port
        assert container()[probe]["httpGet"]["path"] in routes


def test_a_pod_is_killed_only_after_the_service_would_have_ended() -> None:
    grace_s = read("inferenceservice.yaml")["spec"]["predictor"]["terminationGracePeriodSeconds"]
    assert Drain(settings().drain_delay_s, settings().drain_timeout_s).longest_s < grace_s


def test_the_inference_service_names_the_runtime_and_a_format_that_it_has() -> None:
    model, runtime = read("inferenceservice.yaml")["spec"]["predictor"]["model"], read("runtime.yaml")
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    formats = {(one["name"], one["version"]) for one in runtime["spec"]["supportedModelFormats"]}
    assert (model["modelFormat"]["name"], model["modelFormat"]["version"]) in formats


DOWNLOAD = "import sys; from kserve_storage import Storage; print(Storage.download(sys.argv[1], sys.argv[2]))"
UPLOAD = """
import sys, boto3
from pathlib import Path
client, root = boto3.client("s3", endpoint_url=sys.argv[1]), Path(sys.argv[2])
client.create_bucket(Bucket="models")
for path in root.rglob("*.onnx"):
    client.upload_file(str(path), "models", str(path.relative_to(root)))
"""
ASK = """
import asyncio, json, sys
from pathlib import Path
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

async def main(url, image):
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60))
    seen = {"live": await client.is_server_live(url), "ready": await client.is_server_ready(url)}
    seen["model"] = await client.is_model_ready(url, "flowers")
    given = InferInput("images", [1], "BYTES")
    given.set_data_from_numpy(np.array([Path(image).read_bytes()], dtype=object), binary_data=True)
    answer = await client.infer(url, InferRequest("flowers", [given]), model_name="flowers")
    seen |= {"name": answer.model_name, "outputs": {one.name: list(one.shape) for one in answer.outputs}}
    await client.close()
    print(json.dumps(seen))

asyncio.run(main(*sys.argv[1:]))
"""
S3 = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}


def in_tools(script: str, *words: str, **variables: str) -> str:
    command = [python_of_tools(), "-c", script, *words]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def s3_server() -> Iterator[str]:
    """A local S3, moto's; the value is its address."""
    script = (
        "import sys, threading\nfrom moto.server import ThreadedMotoServer\n"
        "server = ThreadedMotoServer(ip_address='127.0.0.1', port=0)\nserver.start()\n"
        "print('address', *server.get_host_and_port(), flush=True)\nsys.stdin.read()\nserver.stop()\n"
    )
    command = [python_of_tools(), "-c", script]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        host, port = next(line.split()[1:] for line in process.stdout if line.startswith("address "))
        try:
            yield f"http://{host}:{port}"
        finally:
            process.stdin.close()
            process.wait(60)


def stored(folder: Path, layout: str) -> Path:
    """A model as a user stores it: the file, or folders of versions."""
    path = folder / "flowers" / layout
    path.parent.mkdir(parents=True)
    path.write_bytes(tiny_model())
    return folder


def assert_served(mounted: Path, photo: Path) -> None:
    """Start the service with the runtime's arguments on this folder, and ask it with KServe's client."""
    given = arguments(models=str(mounted), model_name="flowers", host="127.0.0.1", port="0", drain_delay_s="0")
    ours = [one for one in given if not one.startswith(("--models", "--admin", "--port", "--log"))]
    with running_service(mounted, *ours) as address:
        seen = json.loads(in_tools(ASK, address, str(photo)))
    assert (seen["live"], seen["ready"], seen["model"], seen["name"]) == (True, True, True, "flowers")
    assert seen["outputs"]


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("layout", ["model.onnx", "1/model.onnx"])
def test_kserve_s_client_is_answered_from_the_folder_that_kserve_s_initializer_makes(
    layout: str, tmp_path: Path
) -> None:
    bucket, mounted, photo = stored(tmp_path / "bucket", layout), tmp_path / "mounted", tmp_path / "red.jpg"
    photo.write_bytes(image((255, 0, 0)))
    mounted.mkdir()
    with s3_server() as address:
        in_tools(UPLOAD, address, str(bucket), **S3)
        in_tools(DOWNLOAD, "s3://models/flowers", str(mounted), AWS_ENDPOINT_URL=address, S3_USE_HTTPS="0", **S3)
    assert (mounted / layout).is_file()
    assert_served(mounted, photo)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_links_out_of_the_folder_which_the_initializer_makes_of_file_addresses_are_refused(tmp_path: Path) -> None:
    bucket, mounted = stored(tmp_path / "bucket", "model.onnx"), tmp_path / "mounted"
    mounted.mkdir()
    in_tools(DOWNLOAD, f"file://{bucket / 'flowers'}", str(mounted))
    assert (mounted / "model.onnx").is_symlink()
    with pytest.raises(AssertionError, match="link out of the folder of models"), running_service(mounted):
        pass


def test_the_examples_are_in_the_documents() -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    assert all(f"deploy/kserve/{name}" in text for name in CRDS)
