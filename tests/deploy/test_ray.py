"""Ray, where the extra `ray` is installed (`make test-ray`): the job and the application of `deploy/ray`.

The long tests run a cluster on this machine. A node is killed during the job, and later the job itself.
"""

import os
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("ray", reason="the extra `ray` is not installed; `make test-ray` installs it")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import httpx
import pyarrow.dataset
import pyarrow.parquet

from resnet_service import Client, Model, ResnetError
from service.cli.bulk_parquet import answers_schema
from tests.service.conftest import image
from tests.support.kubernetes_tools import ROOT
from tests.support.servers.served import free_port

with warnings.catch_warnings():  # those that Ray causes
    warnings.simplefilter("ignore")
    from ray.cluster_utils import Cluster
    from ray.serve.schema import ServeDeploySchema

    from deploy.ray import classify_images, serve_app

JOB = ROOT / "deploy" / "ray" / "classify_images.py"
MODEL = ROOT / "models" / "cifar10-resnet20"
IMAGES, BROKEN = 2000, {"text.jpg": "not_an_image", "empty.png": "no_file", "cut.jpg": "bad_image"}

# Ray leaves sockets and files open, and uses what is deprecated.
pytestmark = pytest.mark.filterwarnings(
    "default::ResourceWarning", "default::DeprecationWarning", "default::FutureWarning"
)


def write_images(folder: Path, count: int) -> list[str]:
    """Write small images in subfolders, and some broken files; return the ids."""
    for number in range(count):
        path = folder / f"{number % 7}" / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image((number % 256, number // 8, 99), "PNG", (40, 30)))
    (folder / "text.jpg").write_bytes(b"text")
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.jpg").write_bytes(image((1, 2, 3))[:300])
    (folder / ".hidden.png").write_bytes(image((1, 2, 3), "PNG"))
    (folder / "notes.txt").write_bytes(b"no image")
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("[!.]*.[pj]*"))


def test_ids_are_the_images_below_a_folder_by_file_ending(tmp_path: Path) -> None:
    ids = write_images(tmp_path, 10)
    assert classify_images._listed(tmp_path.as_uri()) == ids
    assert len(ids) == 13
    tasks = classify_images.ImageIds(ids, 5).get_read_tasks(100)
    assert [[name for table in task() for name in table["id"].to_pylist()] for task in tasks] == [
        ids[:5],
        ids[5:10],
        ids[10:],
    ]


def test_a_folder_without_images_ends_the_job_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, words in ((tmp_path, "has no JPEG"), (tmp_path / "none", "cannot be listed")):
        with pytest.raises(SystemExit):
            classify_images._listed(folder.as_uri())
        shown = capsys.readouterr().err
        assert words in shown
        assert shown.count("\n") == 1


def test_an_actor_answers_a_batch_with_a_row_for_each_id(tmp_path: Path) -> None:
    ids = [*write_images(tmp_path, 3), "gone.png"]
    actor = classify_images.Classifier(tmp_path.as_uri(), str(MODEL), 2, 1, 1000)
    (tmp_path / "text.jpg").write_bytes(bytes(1001))
    table = actor(pyarrow.table({"id": ids}))
    assert table.schema.equals(answers_schema())
    rows = {row["id"]: row for row in table.to_pylist()}
    problems = {name: row["problem"]["code"] for name, row in rows.items() if row["problem"]}
    assert problems == {**BROKEN, "text.jpg": "too_large", "gone.png": "no_file"}
    expected = Model.load(MODEL).classify(tmp_path / "0" / "0000.png", top_k=2)
    row = rows["0/0000.png"]
    assert [best["label"] for best in row["predictions"]] == [best.label for best in expected.predictions]
    assert (row["model"], row["confident"]) == ("cifar10-resnet20:1", expected.confident)


def test_a_storage_that_fails_ends_the_job_instead_of_becoming_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def open_input_stream(self, _: str) -> None:
            raise OSError("503 slow down")

    actor = classify_images.Classifier(tmp_path.as_uri(), str(MODEL), 2, 1, 1000)
    monkeypatch.setattr(actor, "_filesystem", Failing())
    with pytest.raises(OSError, match="slow down"):
        actor(pyarrow.table({"id": ["a.png"]}))


def test_rows_of_another_model_or_folder_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = partial(classify_images._check_record, (tmp_path / "out").as_uri())
    check("file:///images", str(MODEL), 5)
    check("file:///images", str(MODEL), 5)
    for arguments, words in (
        (("file:///other", str(MODEL), 5), "with images file:///images, not file:///other; write to another folder"),
        (("file:///images", str(MODEL.with_name("cifar10-resnet56")), 5), "with model cifar10-resnet20:1"),
        (("file:///images", str(MODEL), 3), "with top_k 5, not 3"),
        (("file:///images", str(tmp_path), 5), "there is no model"),
    ):
        with pytest.raises(SystemExit):
            check(*arguments)
        assert words in capsys.readouterr().err


@contextmanager
def cluster(cpus: int) -> Iterator[Cluster]:
    """A head node with so many logical CPUs, without a dashboard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_worker_register_timeout_seconds", "300")  # 60 s are too few on a busy machine
        found = Cluster()
        try:
            add_node(found, cpus)
            yield found
        finally:
            found.shutdown()


def add_node(found: Cluster, cpus: int) -> Any:
    return found.add_node(num_cpus=cpus, include_dashboard=False, object_store_memory=100 * 1024 * 1024)


def start_job(found: Cluster, images: Path, out: Path) -> "subprocess.Popen[str]":
    options = ["--model", str(MODEL), "--cpus", "2", "--images-per-file", "50", "--address", found.address]
    return subprocess.Popen(
        [sys.executable, str(JOB), str(images), str(out), *options], stderr=subprocess.PIPE, text=True
    )


def finish(job: "subprocess.Popen[str]") -> str:
    _, errors = job.communicate(timeout=900)
    assert job.returncode == 0, errors[-3000:]
    return errors.strip().splitlines()[-1]


def committed(out: Path) -> int:
    """The number of ids whose rows are recorded as written."""
    files = out.with_name(f"{out.name}.checkpoint").glob("*.parquet")
    return sum(pyarrow.parquet.read_metadata(file).num_rows for file in files if ".pending" not in file.name)


def wait_until(has_happened: Callable[[], bool], job: "subprocess.Popen[str]") -> None:
    for _ in range(3000):
        if has_happened():
            return
        if job.poll() is not None:
            _, errors = job.communicate()
            pytest.fail(f"the job has ended: {errors[-3000:]}")
        time.sleep(0.3)
    pytest.fail("it has not happened within 15 minutes")


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_each_id_has_one_row_after_the_loss_of_a_node_and_of_the_job(tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    ids = write_images(images, IMAGES)
    started_at = time.monotonic()
    with cluster(cpus=1) as found:  # an actor has 2 CPUs, so it is on the other node
        lost = add_node(found, cpus=2)
        job = start_job(found, images, out)
        wait_until(lambda: committed(out) >= 300, job)
        found.remove_node(lost, allow_graceful=False)
        at_loss = committed(out)
        add_node(found, cpus=2)
        wait_until(lambda: committed(out) >= at_loss + 300, job)
        job.kill()
        job.communicate()
        at_kill = committed(out)
        assert at_kill < len(ids)
        total = finish(start_job(found, images, out))
        assert finish(start_job(found, images, out)) == total, "a complete folder gets no more rows"
    rows = pyarrow.dataset.dataset(out, format="parquet", schema=answers_schema()).to_table().to_pylist()
    counts = Counter(row["id"] for row in rows)
    doubled, missing = [name for name, count in counts.items() if count > 1], set(ids) - set(counts)
    problems = {row["id"]: row["problem"]["code"] for row in rows if row["problem"]}
    seconds = time.monotonic() - started_at
    print(f"{len(ids)} images in {seconds:.0f} s, {at_loss} at the loss of the node, {at_kill} at that of the job")  # noqa: T201
    print(f"{len(missing)} lost, {len(doubled)} doubled")  # noqa: T201
    assert (missing, doubled, len(rows)) == (set(), [], len(ids))
    assert problems == BROKEN
    assert all(len(row["predictions"]) == 5 for row in rows if not row["problem"])


def serve_config(port: int) -> dict[str, Any]:
    """The configuration of rayservice.yaml, with another port and model, and with a queue of one."""
    found = yaml.safe_load((ROOT / "deploy" / "ray" / "rayservice.yaml").read_text())
    config: dict[str, Any] = yaml.safe_load(found["spec"]["serveConfigV2"])
    config |= {"proxy_location": "HeadOnly", "http_options": {"host": "127.0.0.1", "port": port}}
    (application,) = config["applications"]
    application |= {"import_path": "deploy.ray.serve_app:app", "args": {"model": str(MODEL)}}
    (deployment,) = application["deployments"]
    del deployment["autoscaling_config"]
    deployment |= {"num_replicas": 1, "max_ongoing_requests": 1, "max_queued_requests": 1}
    deployment["ray_actor_options"]["num_cpus"] = 1
    return config


@contextmanager
def serving(found: Cluster, config: dict[str, Any], folder: Path) -> Iterator[None]:
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "ray.serve.scripts", "run", str(path), "--address", found.address]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield
        finally:
            process.terminate()
            process.communicate(timeout=120)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_application_answers_as_the_service_and_refuses_when_it_is_full(tmp_path: Path) -> None:
    port = free_port()
    photo = image((200, 30, 30), "PNG", (1500, 1200))
    with cluster(cpus=3) as found, serving(found, serve_config(port), tmp_path):
        address = f"http://127.0.0.1:{port}"
        with Client(address, timeout_s=400, retries=400) as client:
            answer = client.classify(photo, top_k=2)
            with pytest.raises(ResnetError) as refused:
                client.classify(b"text")
        assert (refused.value.code, refused.value.status) == ("not_an_image", 415)
        expected = Model.load(MODEL).classify(photo, top_k=2)
        assert [best.label for best in answer.predictions] == [best.label for best in expected.predictions]
        with httpx.Client(timeout=300) as http, ThreadPoolExecutor(32) as threads:
            sent = [threads.submit(http.post, f"{address}/classify", content=photo) for _ in range(64)]
            responses = [one.result() for one in sent]
            get = http.get(f"{address}/classify")
    assert {response.status_code for response in responses} == {200, 503}
    full = [response for response in responses if response.status_code == 503]
    assert {response.headers.get("retry-after") for response in full} == {"1"}
    assert (get.status_code, get.headers["content-type"]) == (405, "application/problem+json")
    print(f"{len(full)} of {len(responses)} requests were refused")  # noqa: T201


def test_the_configuration_in_the_yaml_fits_ray_s_schema_and_names_the_deployment() -> None:
    found = yaml.safe_load((ROOT / "deploy" / "ray" / "rayservice.yaml").read_text())
    (application,) = ServeDeploySchema.model_validate(yaml.safe_load(found["spec"]["serveConfigV2"])).applications
    module, _, name = application.import_path.partition(":")
    assert (ROOT / "deploy" / "ray" / f"{module}.py").is_file()
    built = getattr(serve_app, name)(serve_app.Arguments.model_validate(application.args))
    assert [one.name for one in application.deployments] == [built._bound_deployment.name]
