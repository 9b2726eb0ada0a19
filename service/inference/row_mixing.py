"""A static check for operators that work across the rows of a batch.

The check tracks the row axis of each value that depends on an input. An operator over that axis, or one that uses a
range or selection of the whole tensor, lets the rows of one request change the results of another. Some graphs do so
for rare values only, which the run-time check in `row_independence.py` would not find.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from service.model_files.onnx_graph import Graph, GraphFile, Node, Numbers, Unreadable, read_graph_file

_ONNX = frozenset(("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.ms.internal.nhwc"))
_RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
)
# Independent of their attributes: these use the whole tensor, or change the order of rows.
_WHOLE = frozenset(
    ("NonZero", "NonMaxSuppression", "Unique", "Compress", "Loop", "Scan", "RoiAlign", "MaxRoiPool", "ScatterND")
) | frozenset(
    ("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss", "SequenceConstruct", "SequenceInsert", "SplitToSequence")
)
# The default axis of operators.
_AXES = {
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "TopK", "BiasSoftmax"), -1),
    **dict.fromkeys(("Concat", "Split", "Gather", "GatherElements", "ArgMax", "ArgMin"), 0),
    **dict.fromkeys(("ScatterElements", "Scatter"), 0),
}
_FROM_AXIS = {"LayerNormalization": -1, "RMSNormalization": -1, "SimplifiedLayerNormalization": -1, "Flatten": 1}
_COERCING = frozenset(("Softmax", "LogSoftmax", "Hardmax"))  # before opset 13 over all axes from the given one
_RECURRENT = frozenset(("LSTM", "GRU", "RNN"))
_OTHER_RANK = frozenset(  # except reductions: the rank of the output may differ from that of the first input
    ("Reshape", "Squeeze", "Unsqueeze", "Gather", "GatherND", "MatMul", "MatMulInteger", "QLinearMatMul", "Einsum")
) | frozenset(("OneHot", "If", "LSTM", "GRU", "RNN", "Expand", "ArgMax", "ArgMin", "Det", "SequenceAt", "STFT"))


def mixing_operators(model: bytes) -> frozenset[str] | None:
    """Return the operators by which rows can change each other's results; None if the graph cannot be parsed."""
    try:
        file = read_graph_file(model)
        if not file.graph.nodes:
            return None
        look = _RowTracker(file)
        look.follow(file.graph, {name: 0 for name in file.graph.inputs if name not in file.graph.constants})
    except (Unreadable, RecursionError):
        return None
    return frozenset(look.found)


@dataclass(slots=True)
class _Values:
    """Known properties of a graph's values, by name."""

    rows: dict[str, int]  # the row axis of values that depend on an input
    constants: dict[str, Numbers | None]
    ranks: dict[str, int]

    def axis(self, axis: int, name: str) -> int:
        """Return an axis counted from the front; a negative one stays if the rank is unknown."""
        return axis + self.ranks.get(name, 0) if axis < 0 else axis


@dataclass(slots=True)
class _RowTracker:
    file: GraphFile
    found: set[str] = field(default_factory=set)

    def follow(self, graph: Graph, rows: dict[str, int], outer: _Values | None = None) -> _Values:
        """Find the mixing operators of a graph; `rows` has the row axes of its inputs, `outer` the enclosing values."""
        constants = {**(outer.constants if outer else {}), **graph.constants}
        values = _Values({**(outer.rows if outer else {}), **rows}, constants, dict(graph.ranks))
        for node in graph.nodes:
            self._follow_node(node, values)
        return values

    def _follow_node(self, node: Node, values: _Values) -> None:
        if node.operator == "Constant" and node.domain in _ONNX:
            numbers = next(iter(node.numbers.values()), None)
            values.constants.update(dict.fromkeys(node.outputs, numbers))
            return
        if node.operator in _RANDOM:
            self.found.add(node.operator)
        carried = [name for name in node.inputs if name in values.rows]
        captured = _captured(node.graphs) & values.rows.keys()
        if not (carried or captured) or node.operator in ("Shape", "Size"):
            return
        function = self.file.functions.get((node.domain, node.operator))
        if function is not None:
            self._follow_function(function, node, values)
        elif node.operator == "If" and not carried:
            self._follow_branches(node, values)
        else:
            first = carried[0] if carried else min(captured)
            if _mixes(node, values, self.file.opset):
                self.found.add(node.operator)
            after = _rows_after(node, values, first)
            for number, name in enumerate(node.outputs):
                values.rows[name] = after - (node.operator in _RECURRENT and number > 0 and after > 0)
            _note_ranks(node, values)

    def _follow_function(self, function: Graph, node: Node, values: _Values) -> None:
        given = dict(zip(function.inputs, node.inputs, strict=False))
        rows = {inner: values.rows[name] for inner, name in given.items() if name in values.rows}
        body = Graph(
            constants={inner: values.constants[name] for inner, name in given.items() if name in values.constants},
            ranks={inner: values.ranks[name] for inner, name in given.items() if name in values.ranks},
            nodes=function.nodes,
        )
        inside = self.follow(body, rows)
        for inner, name in zip(function.outputs, node.outputs, strict=False):
            if inner in inside.rows:
                values.rows[name] = inside.rows[inner]

    def _follow_branches(self, node: Node, values: _Values) -> None:
        for branch in node.graphs:
            inside = self.follow(branch, {}, values)
            for inner, name in zip(branch.outputs, node.outputs, strict=False):
                if inner in inside.rows:
                    values.rows[name] = inside.rows[inner]


def _captured(graphs: tuple[Graph, ...]) -> set[str]:
    """Return the names that subgraphs use, including their own values."""
    nodes = [node for graph in graphs for node in graph.nodes]
    used = {name for node in nodes for name in node.inputs} | {name for graph in graphs for name in graph.outputs}
    return used.union(*(_captured(node.graphs) for node in nodes))


def _mixes(node: Node, values: _Values, opset: int) -> bool:
    operator = node.operator.removeprefix("QLinear")
    data = next((name for name in node.inputs if name in values.rows), "")
    rows = values.rows.get(data, 0)
    if operator in _WHOLE or operator == "If" or operator.startswith("DynamicQuantize"):
        return True
    if operator.startswith("Reduce"):
        return _reduces(node, values, data, rows)
    if operator in _AXES:
        return _is_over(node, operator, values, data, rows, opset)
    if operator in _FROM_AXIS:
        axis = node.numbers.get("axis", (_FROM_AXIS[operator],))[0]
        return axis != -1 and values.axis(axis, data) <= rows and not (axis < 0 and data not in values.ranks)
    special = _SPECIAL.get(operator)
    return special is not None and special(node, values, data, rows)


def _reduces(node: Node, values: _Values, data: str, rows: int) -> bool:
    axes = node.numbers.get("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1]:
        axes = values.constants.get(node.inputs[1])
        if axes is None:
            return True  # the axes are computed at run time, so they are unknown
    if not axes:
        return node.numbers.get("noop_with_empty_axes", (0,)) == (0,)
    return any(values.axis(axis, data) == rows for axis in axes)


def _is_over(node: Node, operator: str, values: _Values, data: str, rows: int, opset: int) -> bool:
    if operator in ("Gather", "GatherElements") and node.inputs[0] not in values.rows:
        return False  # the rows of a constant table, as in an embedding
    default = 1 if operator in _COERCING and opset < 13 else _AXES[operator]
    axis = node.numbers.get("axis", (default,))[0]
    counted = values.axis(axis, data)
    return counted == rows or (operator in _COERCING and opset < 13 and 0 <= counted < rows)


def _cumulates(node: Node, values: _Values, data: str, rows: int) -> bool:
    axis = values.constants.get(node.inputs[1])
    return axis is None or any(values.axis(one, data) == rows for one in axis)


def _is_training(node: Node, values: _Values, data: str, rows: int) -> bool:
    if node.operator == "BatchNormalization":
        return node.numbers.get("training_mode", (0,)) != (0,)
    return len(node.inputs) > 2 and node.inputs[2] != "" and values.constants.get(node.inputs[2]) not in ((0,), ())


def _normalises(node: Node, values: _Values, data: str, rows: int) -> bool:
    return any(values.axis(axis, data) == rows for axis in node.numbers.get("axes", (0, 2, 3)))


def _reverses(node: Node, values: _Values, data: str, rows: int) -> bool:
    return node.numbers.get("time_axis", (0,)) == (rows,)


def _gathers(node: Node, values: _Values, data: str, rows: int) -> bool:
    return node.inputs[0] in values.rows and node.numbers.get("batch_dims", (0,))[0] <= rows


def _multiplies(node: Node, values: _Values, data: str, rows: int) -> bool:
    """Return whether a product sums over rows, or multiplies the values of different rows."""
    left, right = node.inputs[:2]
    if right in values.rows and (node.operator == "Gemm" or values.ranks.get(right) in (1, 2)):
        return True
    return left in values.rows and node.numbers.get("transA", (0,)) != (0,) and rows == 0


def _is_filtered_by_rows(node: Node, values: _Values, data: str, rows: int) -> bool:
    return any(name in values.rows for name in node.inputs[1:2])


def _reshapes(node: Node, values: _Values, data: str, rows: int) -> bool:
    shape = node.numbers.get("shape") or values.constants.get(node.inputs[1] if len(node.inputs) > 1 else "")
    return rows != 0 or bool(shape and shape[0] > 0)


_SPECIAL: dict[str, Callable[[Node, _Values, str, int], bool]] = {
    "CumSum": _cumulates,
    "Dropout": _is_training,
    "BatchNormalization": _is_training,
    "MeanVarianceNormalization": _normalises,
    "ReverseSequence": _reverses,
    "GatherND": _gathers,
    "Gemm": _multiplies,
    "MatMul": _multiplies,
    "FusedMatMul": _multiplies,
    "Reshape": _reshapes,
    **dict.fromkeys(("Conv", "ConvTranspose", "ConvInteger", "InstanceNormalization"), _is_filtered_by_rows),
}


def _rows_after(node: Node, values: _Values, data: str) -> int:
    """Return the row axis of an operator's first output."""
    rows = max((values.rows[name] for name in node.inputs if name in values.rows), default=0)
    if node.operator == "Transpose":
        return _transposed(rows, node, values, data)
    if node.operator == "Unsqueeze":
        return _unsqueezed(rows, _axes(node, values))
    if node.operator in _RECURRENT:
        return 0 if node.numbers.get("layout") == (1,) else 2
    if node.operator in ("Reshape", "Flatten", "Gemm"):
        return 0
    gone = _axes_gone(node, values)
    return rows - sum(1 for axis in gone if 0 <= values.axis(axis, data) < rows)


def _axes(node: Node, values: _Values) -> Numbers:
    listed = values.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
    return node.numbers.get("axes") or listed or ()


def _axes_gone(node: Node, values: _Values) -> Numbers:
    """Return the axes of the input that the output does not have."""
    if node.operator == "Gather":  # a scalar index removes its axis
        return node.numbers.get("axis", (0,)) if values.ranks.get(node.inputs[1]) == 0 else ()
    if node.operator in ("ArgMax", "ArgMin"):
        return node.numbers.get("axis", (0,)) if node.numbers.get("keepdims") == (0,) else ()
    reduces = node.operator.startswith("Reduce") and node.numbers.get("keepdims") == (0,)
    return _axes(node, values) if reduces or node.operator == "Squeeze" else ()


def _transposed(rows: int, node: Node, values: _Values, data: str) -> int:
    order = node.numbers.get("perm")
    if order is not None:
        return order.index(rows) if rows in order else 0
    return values.ranks.get(data, 1) - 1 - rows  # the axes are reversed


def _unsqueezed(rows: int, axes: Numbers) -> int:
    for axis in sorted(axes):
        rows += 0 <= axis <= rows
    return rows


def _note_ranks(node: Node, values: _Values) -> None:
    """Record the rank of the outputs, if known. Without a rank, a negative axis does not count as the row axis."""
    ranks = [values.ranks[name] for name in node.inputs if name in values.rows and name in values.ranks]
    rank = None
    if node.operator in ("Flatten", "Gemm"):
        rank = 2
    elif node.operator == "Transpose":
        rank = len(node.numbers.get("perm", ())) or (ranks[0] if ranks else None)
    elif node.operator.startswith("Reduce"):
        rank = ranks[0] if ranks and node.numbers.get("keepdims", (1,)) == (1,) else None
    elif node.operator not in _OTHER_RANK and node.domain in _ONNX and ranks:
        rank = max(ranks)
    if rank is not None:
        for name in node.outputs:
            values.ranks.setdefault(name, rank)
