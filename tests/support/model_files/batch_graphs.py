"""ONNX graphs with an open first axis: some answer each row as it is answered alone, the others only seem to."""

from collections.abc import Sequence
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, helper

FLOAT, INT64, BOOL, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.UINT8

node = helper.make_node


def model(
    *nodes: NodeProto,
    takes: tuple[int, Sequence[Any]] = (FLOAT, ("N", 4)),
    gives: tuple[int, Sequence[Any]] = (FLOAT, ("N", 4)),
    opset: int = 17,
    **constants: TensorProto,
) -> bytes:
    """Return a file with input `x` and output `y`, each of a type and shape."""
    for name, constant in constants.items():
        constant.name = name
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", takes[0], list(takes[1]))],
        [helper.make_tensor_value_info("y", gives[0], list(gives[1]))],
        list(constants.values()),
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    made: ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return made.SerializeToString()


def whole(*numbers: int) -> TensorProto:
    return helper.make_tensor("", INT64, [len(numbers)], numbers)


def scalar(number: float, kind: int = FLOAT) -> TensorProto:
    return helper.make_tensor("", kind, [], [number])


def floats(*shape: int, value: float = 1.0) -> TensorProto:
    size = 1
    for axis in shape:
        size *= axis
    return helper.make_tensor("", FLOAT, list(shape), [value] * size)


def _hidden(*nodes: NodeProto, last: str = "x", **constants: TensorProto) -> bytes:
    """A graph whose rows change each other only where the maximum `a` is beyond what a random row ever has."""
    return model(
        *nodes,
        node("Greater", ["a", "limit"], ["is_large"]),
        node("Where", ["is_large", "zero", last], ["chosen"]),
        node("Identity" if last == "x" else "Transpose", ["chosen"], ["y"]),
        limit=scalar(1e30),
        zero=scalar(0.0),
        **constants,
    )


_STATISTICS = {"one": floats(4), "zero": floats(4, value=0.0)}
IMAGES = (FLOAT, ("N", 3, 4, 4))

MIXED = {
    "mean over rows": model(
        node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1), node("Sub", ["x", "mean"], ["y"])
    ),
    "range of the batch": model(
        node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ),
    "range inside a product": model(
        node("DynamicQuantizeMatMul", ["x", "w", "scale", "zero"], ["y"], domain="com.microsoft"),
        w=helper.make_tensor("", UINT8, [4, 4], range(16)),
        scale=scalar(0.1),
        zero=scalar(3, UINT8),
    ),
    "rare: maximum of all": _hidden(node("ReduceMax", ["x"], ["a"], keepdims=1)),
    "rare: maximum over rows": _hidden(node("ReduceMax", ["x"], ["a"], axes=[0], keepdims=1)),
    "rare: negative axis": _hidden(node("ReduceMax", ["x"], ["a"], axes=[-2], keepdims=1)),
    "rare: transposed": _hidden(
        node("Transpose", ["x"], ["turned"], perm=[1, 0]),
        node("ReduceMax", ["turned"], ["a"], axes=[1], keepdims=1),
        last="turned",
    ),
    "softmax over rows": model(node("Softmax", ["x"], ["y"], axis=0)),
    "softmax, negative axis": model(node("Softmax", ["x"], ["y"], axis=-2)),
    "softmax, old opset": model(node("Softmax", ["x"], ["y"], axis=0), opset=11),
    "running sum": model(node("CumSum", ["x", "axis"], ["y"]), axis=scalar(0, INT64)),
    "best rows": model(node("TopK", ["x", "k"], ["y", "indices"], axis=0), gives=(FLOAT, ("M", 4)), k=whole(1)),
    "row of the maximum": model(node("ArgMax", ["x"], ["y"], axis=0, keepdims=1), gives=(INT64, ("M", 4))),
    "first row": model(node("Gather", ["x", "i"], ["y"], axis=0), gives=(FLOAT, ("M", 4)), i=whole(0)),
    "rows twice": model(node("Concat", ["x", "x"], ["y"], axis=0), gives=(FLOAT, ("M", 4))),
    "rows backwards": model(
        node("Slice", ["x", "start", "end", "axis", "step"], ["y"]),
        start=whole(-1),
        end=whole(-9999),
        axis=whole(0),
        step=whole(-1),
    ),
    "batch norm in training": model(
        node("BatchNormalization", ["x", "one", "zero", "zero", "one"], ["y", "mean", "var"], training_mode=1),
        **_STATISTICS,
    ),
    "mean and variance": model(node("MeanVarianceNormalization", ["x"], ["y"]), takes=IMAGES, gives=IMAGES),
    "layer norm of all": model(node("LayerNormalization", ["x", "one"], ["y"], axis=0), one=floats(1, 4)),
    "reshaped": model(
        node("Reshape", ["x", "flat"], ["a"]),
        node("Softmax", ["a"], ["b"], axis=1),
        node("Reshape", ["b", "rows"], ["y"]),
        flat=whole(1, -1),
        rows=whole(-1, 4),
    ),
    "rows times rows": model(
        node("Gemm", ["x", "x"], ["products"], transB=1), node("MatMul", ["products", "x"], ["y"])
    ),
    "sum over rows": model(node("Gemm", ["x", "x"], ["sums"], transA=1), node("MatMul", ["x", "sums"], ["y"])),
    "number of rows": model(
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "i"], ["count"]),
        node("Cast", ["count"], ["factor"], to=FLOAT),
        node("Mul", ["x", "factor"], ["y"]),
        i=scalar(0, INT64),
    ),
    "noise": model(node("RandomNormalLike", ["x"], ["noise"]), node("Add", ["x", "noise"], ["y"])),
    "dropout in training": model(
        node("Dropout", ["x", "ratio", "training"], ["y"]), ratio=scalar(0.5), training=scalar(1, BOOL)
    ),
    "one long row": model(
        node("CumSum", ["x", "axis"], ["y"]), takes=(FLOAT, ("N",)), gives=(FLOAT, ("N",)), axis=scalar(-1, INT64)
    ),
}

APART = {
    "element by element": model(node("Neg", ["x"], ["y"])),
    "softmax of a row": model(node("Softmax", ["x"], ["y"], axis=-1)),
    "softmax of a row, old opset": model(node("Softmax", ["x"], ["y"]), opset=11),
    "mean of a row": model(node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=1), gives=(FLOAT, ("N", 1))),
    "mean of an image": model(
        node("Relu", ["x"], ["a"]),
        node("ReduceMean", ["a"], ["y"], axes=[-1, -2], keepdims=0),
        takes=IMAGES,
        gives=(FLOAT, ("N", 3)),
    ),
    "a shape put together": model(
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "i"], ["count"], axis=0),
        node("Unsqueeze", ["count", "axis"], ["counts"]),
        node("Concat", ["counts", "width"], ["wanted"], axis=0),
        node("Reshape", ["x", "wanted"], ["y"]),
        takes=(FLOAT, ("N", 2, 2)),
        i=scalar(0, INT64),
        axis=whole(0),
        width=whole(4),
    ),
    "dropout": model(node("Dropout", ["x"], ["y"])),
    "dropout that says it is none": model(
        node("Dropout", ["x", "ratio", "training"], ["y"]), ratio=scalar(0.5), training=scalar(0, BOOL)
    ),
    "batch norm": model(node("BatchNormalization", ["x", "one", "zero", "zero", "one"], ["y"]), **_STATISTICS),
    "table of seven": model(  # an index of 7 and more fails
        node("Gather", ["table", "x"], ["rows"], axis=0),
        node("ReduceMean", ["rows"], ["y"], axes=[1], keepdims=0),
        takes=(INT64, ("N", 5)),
        table=helper.make_tensor("", FLOAT, [7, 4], range(28)),
    ),
    "whole slice": model(
        node("Slice", ["x", "start", "end", "axis"], ["y"]), start=whole(0), end=whole(2**62), axis=whole(0)
    ),
    "best of a row": model(node("TopK", ["x", "k"], ["v", "y"]), gives=(INT64, ("N", 2)), k=whole(2)),
    "fixed ranges": model(
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        scale=scalar(0.1),
        zero=scalar(128, UINT8),
    ),
    "a transposed row": model(
        node("Transpose", ["x"], ["turned"], perm=[1, 0]),
        node("Softmax", ["turned"], ["a"], axis=0),
        node("Transpose", ["a"], ["y"], perm=[1, 0]),
    ),
}
