"""Rows of several requests share a run only where no row can change another's answer."""

import numpy as np
import pytest
from onnx import helper, load_model_from_string

from service.engine.onnx_runtime import open_session
from service.inference.row_independence import has_independent_rows
from service.inference.row_mixing import mixing_operators
from service.inference.tensor_model import TensorModel, load_graph_model
from service.model_files.onnx_graph import read_graph_file
from service.model_files.tensor_spec import TensorSpec
from tests.support.model_files.batch_graphs import APART, MIXED, model, node

# What a graph shows when it runs, or for some numbers only, or by nothing but its random numbers.
SEEN_BY_RUNNING_ALONE = frozenset(("number of rows", "rows backwards"))
SEEN_BY_READING_ALONE = frozenset(name for name in MIXED if name.startswith("rare: "))


def loaded(content: bytes) -> TensorModel:
    return load_graph_model("graph", "1", content, providers="cpu", max_batch=8)


@pytest.mark.parametrize("name", MIXED)
def test_a_graph_whose_rows_change_each_other_is_not_batched(name: str) -> None:
    model = loaded(MIXED[name])
    assert (model.is_batched, model.max_batch) == (False, 1)


@pytest.mark.parametrize("name", APART)
def test_a_graph_whose_rows_are_apart_is_batched(name: str) -> None:
    assert mixing_operators(APART[name]) == frozenset()
    model = loaded(APART[name])
    assert (model.is_batched, model.max_batch) == (True, 8)


@pytest.mark.parametrize("name", MIXED)
def test_reading_a_graph_finds_what_running_it_may_not(name: str) -> None:
    assert bool(mixing_operators(MIXED[name])) == (name not in SEEN_BY_RUNNING_ALONE)


@pytest.mark.parametrize("name", MIXED)
def test_running_a_graph_finds_what_reading_it_may_not(name: str) -> None:
    session = open_session(MIXED[name])
    specs = loaded(MIXED[name]).inputs
    is_apart = has_independent_rows(lambda feed: session.run(None, feed), specs)
    assert is_apart == (name in SEEN_BY_READING_ALONE)


@pytest.mark.parametrize("name", ["mean over rows", "range of the batch"])
def test_a_request_of_several_rows_is_one_run_and_a_row_alone_has_its_own_answer(name: str) -> None:
    model, session = loaded(MIXED[name]), open_session(MIXED[name])
    row = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)
    (alone,) = session.run(["y"], {"x": row})
    wanted = [[0.0] * 4] if name == "mean over rows" else [[0.1004, 0.2008, 0.2996, 0.4]]
    np.testing.assert_allclose(alone, wanted, atol=1e-4)
    assert model.inputs == (TensorSpec("x", "FP32", (-1, 4)),)


def test_the_operators_of_functions_and_branches_count_too() -> None:
    inner = [node("ReduceMax", ["a"], ["m"], axes=[0], keepdims=1), node("Min", ["a", "m"], ["b"])]
    function = helper.make_function("local", "Capped", ["a"], ["b"], inner, [helper.make_opsetid("", 17)])
    made = load_model_from_string(model(node("Capped", ["x"], ["y"], domain="local")))
    made.functions.append(function)
    made.opset_import.append(helper.make_opsetid("local", 1))
    assert mixing_operators(made.SerializeToString()) == {"ReduceMax"}

    branches = [
        helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, 1, None)])
        for name, nodes in (
            ("yes", [node("Softmax", ["x"], ["yes"], axis=0)]),
            ("no", [node("Softmax", ["x"], ["no"], axis=1)]),
        )
    ]
    chosen = node("If", ["is_it"], ["y"], then_branch=branches[0], else_branch=branches[1])
    always = helper.make_tensor("", 9, [], [1])
    assert mixing_operators(model(chosen, is_it=always)) == {"Softmax"}


def test_what_is_not_read_is_not_batched() -> None:
    for content in (b"", b"\x00", b"ORTM" * 20, b"\xff" * 100, MIXED["noise"][:-20]):
        assert mixing_operators(content) is None


def test_a_graph_is_read_as_the_onnx_package_reads_it() -> None:
    for content in (*MIXED.values(), *APART.values()):
        graph, wanted = read_graph_file(content).graph, load_model_from_string(content).graph
        assert [(n.operator, n.domain, list(n.inputs), list(n.outputs)) for n in graph.nodes] == [
            (n.op_type, n.domain, list(n.input), list(n.output)) for n in wanted.node
        ]
        assert list(graph.constants) == [tensor.name for tensor in wanted.initializer]


def test_rows_that_no_random_number_suits_are_not_joined() -> None:
    def refuse(_: object) -> list[np.ndarray]:  # type: ignore[type-arg]
        raise RuntimeError("out of range")

    assert not has_independent_rows(refuse, (TensorSpec("x", "INT64", (-1, 3)),))


def test_rounding_is_no_difference_and_half_precision_is_enough() -> None:
    def run(feed: dict[str, np.ndarray]) -> list[np.ndarray]:  # type: ignore[type-arg]
        x = feed["x"]
        return [x * np.float16(1 + 0.001 * (len(x) > 1)), np.argmax(x, axis=1)]

    assert has_independent_rows(run, (TensorSpec("x", "FP16", (-1, 3)),))
