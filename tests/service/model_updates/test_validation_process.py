"""What is looked for in a new model file beyond what loading it shows."""

import math

import onnx
import pytest
from onnx import TensorProto, helper

from service.model_files.repository import ModelRepositoryError
from service.model_updates.validation_process import _check_graph


def graph_with_constant(**value: object) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["w"], **value), helper.make_node("Mul", ["x", "w"], ["y"])],
        "times",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_a_constant_that_is_no_number_is_found_in_every_form() -> None:
    for number in (1.0, math.nan):
        for value in (
            {"value": helper.make_tensor("w", TensorProto.FLOAT, [3], [number] * 3)},
            {"value_floats": [number] * 3},
            {"value_float": number},
        ):
            model = graph_with_constant(**value)
            if math.isnan(number):
                with pytest.raises(ModelRepositoryError, match="not numbers"):
                    _check_graph(model)
            else:
                _check_graph(model)
