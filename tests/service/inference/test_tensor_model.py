"""Models without a card: what loads, what is refused in one line, and what the rest of the server says of them."""

import asyncio
import math
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from service.app import create_app
from service.batching.batcher import Batcher
from service.batching.load_shedding import QueueLimits
from service.engine.engine import EngineError
from service.inference.model_checks import ModelCheckFailed
from service.inference.registry import ModelRepositoryError, load
from service.inference.tensor_model import TensorJob, TensorModel, load_graph_model
from service.model_files.repository import ModelFile
from service.settings import Settings
from tests.support.model_files.graph_files import graph_file, write_graph_file
from tests.support.servers.served import ROOT

pytestmark = pytest.mark.anyio


def loaded(content: bytes) -> TensorModel:
    return load_graph_model("minus", "1", content, providers="cpu", max_batch=8)


async def test_rows_that_wait_together_share_a_run() -> None:
    model, batcher = loaded(graph_file()), Batcher(QueueLimits(64, 60.0))
    rows = [np.full(3, number, np.float32) for number in range(8)]
    asked = [asyncio.create_task(batcher.submit(model, TensorJob({"x": row}, ("y",), 0.0))) for row in rows]
    await asyncio.sleep(0)  # all are in the queue, and no thread runs yet
    batcher.start()
    answers = await asyncio.gather(*asked)
    await batcher.stop(5)
    assert [answer.batch_size for answer in answers] == [8] * 8
    assert [answer.outputs["y"].tolist() for answer in answers] == [(-row).tolist() for row in rows]


def test_the_first_axis_is_a_batch_only_where_the_answers_have_it_too() -> None:
    assert loaded(graph_file()).is_batched
    assert not loaded(graph_file(shape=(1, 3))).is_batched
    assert not loaded(graph_file(shape=("N", "M"))).is_batched
    summed = helper.make_graph(
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)],
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M", 1])],
    )
    model = helper.make_model(summed, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    assert not loaded(model.SerializeToString()).is_batched


def test_weights_that_are_no_numbers_are_noticed_and_what_fails_on_zeros_only_is_not() -> None:
    def times(weight: float, operator: str = "Mul") -> bytes:
        value = helper.make_tensor("w", TensorProto.FLOAT, [3], [weight] * 3)
        graph = helper.make_graph(
            [helper.make_node("Constant", [], ["w"], value=value), helper.make_node(operator, ["x", "w"], ["y"])],
            "times",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()

    with pytest.raises(ModelCheckFailed, match="outputs are NaN"):
        loaded(times(math.nan))
    loaded(times(0.0, "Div"))  # zero by zero is no number, one by zero is infinite


def test_what_cannot_be_served_is_refused_in_one_line() -> None:
    for content, words in (
        (b"broken", "truncated or damaged"),
        (graph_file()[:60], "truncated or damaged"),
        (graph_file(operator="Nonsense"), "operator"),
        (graph_file(operator="Neg", domain="com.example"), "operator"),
        (graph_file(TensorProto.STRING, operator="Identity"), "only tensors of numbers"),
        (with_outside_weights(), "outside its file"),
    ):
        with pytest.raises(EngineError, match=words) as caught:
            loaded(content)
        assert "\n" not in str(caught.value)


def with_outside_weights() -> bytes:
    model = onnx.load_model_from_string(graph_file())
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="../secret.bin")
    model.graph.initializer.append(weights)
    return model.SerializeToString()


def test_the_folder_says_which_file_was_refused(tmp_path: Path) -> None:
    write_graph_file(tmp_path, "far", with_outside_weights())
    with pytest.raises(ModelRepositoryError, match=r"far/1/model.onnx: the model keeps weights outside"):
        load(ModelFile("far", "1", tmp_path / "far" / "1" / "model.onnx"), providers="cpu", max_batch=None)


async def test_a_server_can_have_nothing_else(tmp_path: Path, red: bytes) -> None:
    write_graph_file(tmp_path, "minus", graph_file())
    app = create_app(Settings(models=tmp_path, engine_threads=1))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client,
    ):
        assert (await client.get("/health/ready")).json()["models"][0]["name"] == "minus"
        (listed,) = (await client.get("/models")).json()["models"]
        assert "labels" not in listed
        assert listed["default"]
        for path in ("/classify", "/explain", "/embed"):
            answer = await client.post(path, content=red)
            assert (answer.status_code, answer.json()["code"]) == (400, "no_model_card")


def test_the_command_line_says_what_is_missing(tmp_path: Path) -> None:
    write_graph_file(tmp_path, "minus", graph_file())
    command = [sys.executable, "-m", "service.cli.classify", "--models", tmp_path, tmp_path / "a.jpg"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "no model card" in done.stderr
    assert "Traceback" not in done.stderr
