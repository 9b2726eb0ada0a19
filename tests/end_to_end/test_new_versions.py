"""New versions while the server runs: a good one serves in every process, a bad one changes nothing."""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.model_files.checksum import append_checksum
from service.model_files.local_copies import find_copy
from service.system.cache import cache_root
from tests.support.model_files.tiny_model import LABELS, tiny_model, write_tiny_model
from tests.support.servers.served import ROOT, Served, serving, wait_until

CRASHES, HANGS = b"crashes the loader", b"hangs the loader"
# Two files that are refused before any checksum or parser.
CRUEL = f"""
import os, time
import service.model_updates.validation_process
load = service.model_updates.validation_process.load
def cruel(file, *, content, **options):
    if content == {CRASHES!r}:
        os.abort()
    while content == {HANGS!r}:
        time.sleep(1)
    return load(file, content=content, **options)
service.model_updates.validation_process.load = cruel
"""


@pytest.fixture(scope="module")
def other_model() -> bytes:
    """As the tiny model, with labels in capital letters."""
    return tiny_model(card={"labels": [label.upper() for label in LABELS]})


@pytest.fixture
def folder(tmp_path: Path, model_file: bytes) -> Path:
    write_tiny_model(tmp_path, content=model_file)
    return tmp_path


def reload(served: Served) -> None:
    """Send SIGHUP, and wait until something came of it."""
    before = served.sample("resnet_reloads_total")
    served.process.send_signal(signal.SIGHUP)
    wait_until(lambda: served.sample("resnet_reloads_total") > before)


def load(served: Served, name: str = "tiny") -> tuple[int, Any]:
    status, document = served.ask_admin("POST", f"/admin/models/{name}/load")
    return status, document


def answer(served: Served, image: bytes, query: str = "") -> tuple[str, str]:
    """Version and best label."""
    status, document = served.ask("POST", f"/classify{query}", image)
    assert status == 200, document
    return document["model"]["version"], document["predictions"][0]["label"]


def test_a_new_version_serves_after_a_signal_and_an_old_one_when_it_is_gone(
    folder: Path, red: bytes, other_model: bytes
) -> None:
    with serving(folder, "--processes", 2) as served:
        assert answer(served, red) == ("1", "red")
        write_tiny_model(folder, version="2", content=other_model)
        assert answer(served, red) == ("1", "red")  # nobody has said so
        reload(served)
        wait_until(lambda: states(served) == [("tiny", "2", "READY")])
        assert {answer(served, red) for _ in range(8)} == {("2", "RED")}
        assert served.ask("POST", "/classify?model=tiny:1", red)[0] == 404
        shutil.rmtree(folder / "tiny" / "2")
        reload(served)
        wait_until(lambda: states(served) == [("tiny", "1", "READY")])
        assert {answer(served, red) for _ in range(8)} == {("1", "red")}


def test_a_single_file_is_a_model_that_a_signal_reloads(
    tmp_path: Path, red: bytes, model_file: bytes, other_model: bytes
) -> None:
    path = tmp_path / "My Model.onnx"
    path.write_bytes(model_file)
    with serving(path, "--processes", 2) as served:
        assert answer(served, red, "?model=my-model:1") == ("1", "red")
        replacement = tmp_path / "new"
        replacement.write_bytes(other_model)
        replacement.rename(path)
        reload(served)
        assert {answer(served, red) for _ in range(8)} == {("1", "RED")}
        path.unlink()
        served.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("it still serves" in line for line in served.log))
        assert answer(served, red) == ("1", "RED")


def test_a_single_folder_of_versions_serves_the_highest_under_the_given_name(
    folder: Path, red: bytes, other_model: bytes
) -> None:
    with serving(folder / "tiny", "--model-name", "mine", "--processes", 1) as served:
        assert answer(served, red, "?model=mine") == ("1", "red")
        write_tiny_model(folder, version="2", content=other_model)
        assert load(served, "mine") == (200, {"versions": [version("mine", "2", "READY")]})
        assert answer(served, red, "?model=mine:2") == ("2", "RED")


def states(served: Served) -> list[tuple[str, str, str]]:
    index = served.ask("POST", "/v2/repository/index")[1]
    return [(version["name"], version["version"], version["state"]) for version in index]


def test_models_come_and_go_by_the_admin_port(folder: Path, red: bytes, other_model: bytes) -> None:
    with serving(folder, "--processes", 1) as served:
        assert load(served, "second")[0] == 404
        write_tiny_model(folder, "second", "7", other_model)
        assert load(served, "second") == (200, {"versions": [version("second", "7", "READY")]})
        assert answer(served, red, "?model=second") == ("7", "RED")
        assert answer(served, red) == ("1", "red")  # the default stays
        assert served.ask_admin("POST", "/admin/models/second/unload")[0] == 200
        assert served.ask("POST", "/classify?model=second", red)[0] == 404
        described = served.ask("GET", "/models/second/versions/7")[1]
        assert (described["state"], described["reason"]) == ("UNAVAILABLE", "unloaded")
        write_tiny_model(folder, version="2", content=other_model)
        reload(served)
        assert answer(served, red) == ("2", "RED")
        assert served.ask("POST", "/classify?model=second", red)[0] == 404  # until somebody loads it
        shutil.rmtree(folder / "second")
        shutil.rmtree(folder / "tiny")
        served.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("it still serves" in line for line in served.log))
        assert answer(served, red) == ("2", "RED")


def version(name: str, number: str, state: str, reason: str = "") -> dict[str, str]:
    return {"name": name, "version": number, "state": state, "reason": reason}


def truncated(model: bytes) -> bytes:
    return model[: len(model) // 2]


def bit_flipped(model: bytes) -> bytes:
    middle = len(model) // 2
    return model[:middle] + bytes([model[middle] ^ 1]) + model[middle + 1 :]


def changed(change: Callable[[onnx.ModelProto], None]) -> Callable[[bytes], bytes]:
    def make(model: bytes) -> bytes:
        document = onnx.load_model_from_string(model)
        del document.metadata_props[1:]  # the checksum
        change(document)
        return append_checksum(document.SerializeToString())

    return make


def with_another_answer(document: onnx.ModelProto) -> None:
    _change_weights(document, lambda weights: weights * np.float32(0.9))


def _change_weights(document: onnx.ModelProto, change: Callable[[Any], Any]) -> None:
    for tensor in document.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))


def with_external_data(document: onnx.ModelProto) -> None:
    tensor = document.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def with_an_unknown_operator(document: onnx.ModelProto) -> None:
    document.graph.node[0].domain = "com.example"
    document.opset_import.append(helper.make_opsetid("com.example", 1))


def with_another_input(document: onnx.ModelProto) -> None:
    document.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def with_nan_weights(document: onnx.ModelProto) -> None:
    _change_weights(document, lambda weights: np.full_like(weights, np.nan))


BAD = {
    "truncated": (truncated, "truncated"),
    "bit-flipped": (bit_flipped, "truncated or changed"),
    "wrong golden answer": (changed(with_another_answer), "golden example"),
    "external data": (changed(with_external_data), "outside its file"),
    "unknown operator": (changed(with_an_unknown_operator), "com.example"),
    "wrong input": (changed(with_another_input), "images"),
    "NaN weights": (changed(with_nan_weights), "golden example"),
    "crashes the loader": (lambda _: CRASHES, "SIGABRT"),
    "hangs the loader": (lambda _: HANGS, "--load-timeout-s"),
    "zero bytes": (lambda _: b"", "truncated"),
}


def test_bad_versions_of_ten_kinds_are_refused_and_the_old_one_answers(
    folder: Path, model_file: bytes, red: bytes
) -> None:
    path = write_tiny_model(folder, version="2", content=b"")
    path.unlink()
    with serving(folder, "--processes", 1, "--load-timeout-s", 4, patch=CRUEL) as served:
        for kind, (make, words) in BAD.items():
            path.write_bytes(make(model_file))
            status, document = load(served)
            assert (status, document["code"]) == (409, "model_refused"), kind
            assert words in document["detail"], kind
            described = served.ask("GET", "/models/tiny/versions/2")[1]
            assert described["state"] == "UNAVAILABLE"
            assert words in described["reason"], kind
            assert str(folder) not in str(described), kind
            assert answer(served, red) == ("1", "red"), kind
        assert served.sample("resnet_reloads_total") == len(BAD)
        assert served.sample("resnet_process_deaths_total") == 0


def test_a_file_that_was_overwritten_in_place_is_refused_and_what_was_loaded_answers(
    folder: Path, model_file: bytes, other_model: bytes, red: bytes
) -> None:
    path, digest = folder / "tiny" / "1" / "model.onnx", hashlib.sha256(model_file).hexdigest()
    with serving(folder, "--processes", 1) as served:
        wait_until(lambda: find_copy(cache_root(), digest) is not None)
        path.write_bytes(b"")
        assert load(served)[0] == 409
        described = served.ask("GET", "/models/tiny")[1]
        assert described["state"] == "READY"
        assert "was refused" in described["reason"]
        assert answer(served, red) == ("1", "red")
        (victim,) = served.workers()
        os.kill(victim, signal.SIGKILL)
        assert answer(served, red) == ("1", "red")  # from the copy that was kept of it
        path.write_bytes(other_model)
        assert load(served) == (200, {"versions": [version("tiny", "1", "READY")]})
        assert answer(served, red) == ("1", "RED")


def test_a_load_while_the_server_stops_is_refused_in_words(folder: Path, model_file: bytes) -> None:
    with serving(folder, "--processes", 1, "--drain-delay-s", 3, patch=CRUEL) as served:
        write_tiny_model(folder, version="2", content=HANGS)
        answers: list[tuple[int, Any]] = []
        loading = threading.Thread(target=lambda: answers.append(load(served)))
        loading.start()
        wait_until(lambda: served.ask("GET", "/models/tiny/versions/2")[0] == 200)  # it is being tried
        served.process.send_signal(signal.SIGTERM)
        wait_until(lambda: served.ask("GET", "/health/ready")[0] == 503)
        status, document = load(served)
        assert (status, document["code"]) == (503, "draining")
        loading.join()
        assert (answers[0][0], answers[0][1]["code"]) == (503, "draining")


def test_a_process_that_replaces_another_loads_what_serves_now(folder: Path, other_model: bytes, red: bytes) -> None:
    with serving(folder, "--processes", 2) as served:
        write_tiny_model(folder, version="2", content=other_model)
        write_tiny_model(folder, version="3", content=b"bad")
        assert load(served)[0] == 409  # of two versions one serves: the highest
        shutil.rmtree(folder / "tiny" / "3")
        assert load(served)[0] == 200
        write_tiny_model(folder, version="3", content=b"bad")
        for victim in served.workers():
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda victim=victim: victim not in served.workers())  # type: ignore[misc]
            wait_until(lambda: served.sample("resnet_processes") == 2)
        assert {answer(served, red) for _ in range(8)} == {("2", "RED")}


@pytest.mark.long
def test_whoever_asks_for_a_reload_while_one_runs_gets_another(folder: Path, other_model: bytes, red: bytes) -> None:
    with serving(folder, "--processes", 1) as served:
        for number in range(2, 6):
            write_tiny_model(folder, version=str(number), content=other_model)
            served.process.send_signal(signal.SIGHUP)
        wait_until(lambda: answer(served, red) == ("5", "RED"))


@pytest.mark.long
def test_many_changes_at_once_take_turns(folder: Path, red: bytes) -> None:
    statuses: list[int] = []
    with serving(folder, "--processes", 2) as served:
        threads = [threading.Thread(target=lambda: statuses.append(load(served)[0])) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 16
        assert answer(served, red) == ("1", "red")


class Judge:
    """Clients that ask as fast as they can, and hold each answer's labels to its digest."""

    def __init__(self, served: Served, body: bytes, clients: int) -> None:
        self.counts: Counter[str] = Counter()
        self.labels: dict[str, set[str]] = {}  # by digest
        self._served, self._body = served, body
        self._has_seen_enough = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        yield
        self._has_seen_enough.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self) -> None:
        while not self._has_seen_enough.is_set():
            try:
                status, document = self._served.ask("POST", "/classify", self._body)
            except OSError as error:
                self.counts[repr(error)] += 1
                continue
            self.counts[str(status)] += 1
            if status == 200:
                best = document["predictions"][0]["label"]
                self.labels.setdefault(document["model"]["sha256"], set()).add(best)


def reload_under_load(folder: Path, red: bytes, models: tuple[bytes, bytes], times: int) -> float:
    """Return by how many bytes the server grew, from before the first reload to after the last."""
    path = folder / "tiny" / "1" / "model.onnx"
    with serving(folder, "--processes", 2) as served:
        judge = Judge(served, red, clients=2)
        with judge.watching():
            wait_until(lambda: judge.counts["200"] > 500)  # what the load itself takes is there
            before = served.sample("process_resident_memory_bytes")
            for number in range(1, times + 1):
                path.write_bytes(models[number % 2])
                assert load(served)[0] == 200
        grown = served.sample("process_resident_memory_bytes") - before
        assert served.sample("resnet_reloads_total") == times
    assert set(judge.counts) == {"200"}, judge.counts
    assert sorted(judge.labels.values(), key=min) == [{"RED"}, {"red"}]  # each digest has labels of its own
    return grown


def test_reloads_under_load_lose_no_answer_and_mix_none(
    folder: Path, red: bytes, model_file: bytes, other_model: bytes
) -> None:
    reload_under_load(folder, red, (model_file, other_model), times=10)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_hundred_reloads_under_load_leave_no_memory_behind(
    folder: Path, red: bytes, model_file: bytes, other_model: bytes
) -> None:
    assert reload_under_load(folder, red, (model_file, other_model), times=200) <= 20e6


@pytest.mark.parametrize("kind", ["truncated", "external data", "crashes the loader", "hangs the loader", "zero bytes"])
def test_a_bad_version_in_the_folder_does_not_fail_the_start(
    folder: Path, model_file: bytes, other_model: bytes, red: bytes, kind: str
) -> None:
    make, words = BAD[kind]
    write_tiny_model(folder, "second", "2", other_model)
    for version in ("2", "3"):
        write_tiny_model(folder, version=version, content=make(model_file))
    with serving(folder, "--default-model", "tiny", "--load-timeout-s", 4, patch=CRUEL + CRUEL_AT_THE_START) as served:
        assert answer(served, red) == ("1", "red")
        assert answer(served, red, "?model=second") == ("2", "RED")
        for version in ("2", "3"):
            described = served.ask("GET", f"/models/tiny/versions/{version}")[1]
            assert described["state"] == "UNAVAILABLE"
            assert words in described["reason"]
            assert any(f"tiny:{version} was refused" in line and words in line for line in served.log)
        assert served.ask("GET", "/models/tiny/versions/1")[1]["state"] == "READY"
        assert served.sample("resnet_reloads_total") == 2
        write_tiny_model(folder, version="4", content=other_model)
        reload(served)
        wait_until(lambda: answer(served, red) == ("4", "RED"))


# The same two files where a worker loads them.
CRUEL_AT_THE_START = """
import service.lifespan
load_in_a_worker = service.lifespan.load
def cruel_in_a_worker(file, **options):
    return service.model_updates.validation_process.load(file, content=file.path.read_bytes(), **options)
service.lifespan.load = cruel_in_a_worker
"""


def test_a_model_with_no_good_version_fails_the_start_with_one_line(folder: Path, model_file: bytes) -> None:
    for version in ("1", "2"):
        write_tiny_model(folder, "second", version, b"bad")
    command = [sys.executable, "-m", "service", "--models", folder, "--port", 0, "--admin-port", 0]
    options = ["--default-model", "tiny", "--log", "text"]
    done = subprocess.run(
        [*map(str, command), *options], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert f"serve-resnet: {folder}/second/2/model.onnx: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("how", ["renamed", "replaced by a file", "a file that blocks whoever opens it"])
def test_a_process_is_replaced_from_the_kept_copy_while_the_folder_is_away(
    folder: Path, model_file: bytes, red: bytes, how: str
) -> None:
    models, away = folder / "models", folder / "away"
    path = write_tiny_model(models, "kept", content=model_file)
    with serving(models, "--processes", 1) as served:
        wait_until(lambda: find_copy(cache_root(), hashlib.sha256(model_file).hexdigest()) is not None)
        if how == "a file that blocks whoever opens it":
            path.unlink()
            os.mkfifo(path)
        else:
            models.rename(away)
            if how == "replaced by a file":
                models.touch()
        for _ in range(2):
            (victim,) = served.workers()
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda victim=victim: victim not in served.workers())  # type: ignore[misc]
            assert answer(served, red) == ("1", "red")
        assert served.sample("resnet_process_deaths_total") == 2


def test_all_processes_say_the_same_largest_batch_however_busy_they_were(folder: Path, other_model: bytes) -> None:
    noisy = """
import os
import service.inference.model_checks
measured = service.inference.model_checks.largest_batch_on_a_cpu
service.inference.model_checks.largest_batch_on_a_cpu = lambda single_image_s: 1 + os.getpid() % 1000
"""
    with serving(folder, "--processes", 3, patch=noisy) as served:
        for version in ("2", "3"):
            sizes = {served.ask("GET", "/models")[1]["models"][0]["max_batch"] for _ in range(24)}
            assert len(sizes) == 1, sizes
            write_tiny_model(folder, version=version, content=other_model)
            reload(served)
            wait_until(lambda version=version: states(served) == [("tiny", version, "READY")])  # type: ignore[misc]
        os.kill(served.workers()[0], signal.SIGKILL)
        wait_until(lambda: served.sample("resnet_process_deaths_total") >= 1 and served.sample("resnet_processes") == 3)
        assert len({served.ask("GET", "/models")[1]["models"][0]["max_batch"] for _ in range(24)}) == 1
