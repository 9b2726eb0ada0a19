"""The bodies under /v2 as pydantic models, for the OpenAPI document only."""

from typing import Annotated, Any

from pydantic import Field, RootModel

from service.api.openapi.schemas import Body
from service.api.v2.tensors import LONGEST_NAME

_Count = Annotated[int, Field(ge=0)]
_Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
_Anything = dict[str, Any]


class V2Error(Body):
    """A failure."""

    error: str = Field(description="A message for people, one or two sentences; it may change.")


class V2Server(Body):
    """The server and the extensions of the protocol that it supports."""

    name: str
    version: str
    extensions: list[str]


class V2Live(Body):
    """Whether the process is alive."""

    live: bool


class V2Ready(Body):
    """Whether the server is ready for requests."""

    ready: bool


class V2ModelReady(Body):
    """Whether a model is ready for requests."""

    name: str
    ready: bool


class V2Tensor(Body):
    """A tensor that a model takes or returns."""

    name: str
    datatype: str = Field(description="UINT8, FP32, BYTES or another datatype of the protocol.")
    shape: list[int] = Field(description="The length of each axis; -1 for an axis of any length.")


class V2Model(Body):
    """A model's versions, inputs and outputs."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[V2Tensor]
    outputs: list[V2Tensor]


class V2ConfiguredTensor(Body):
    """A tensor in a model's configuration."""

    name: str
    data_type: str = Field(description="The datatype after `TYPE_`, for example TYPE_UINT8.")
    dims: list[int] = Field(description="The length of each axis without the batch; -1 for any length.")


class V2Config(Body):
    """The configuration of a model in the form of Triton's ModelConfig."""

    name: str
    platform: str
    backend: str
    max_batch_size: _Count = Field(description="Rows; 0 if the model has no batch axis.")
    input: list[V2ConfiguredTensor]
    output: list[V2ConfiguredTensor]
    version_policy: _Anything = Field({})
    dynamic_batching: _Anything = Field({})
    parameters: _Anything = Field({})


class V2Duration(Body):
    """A number of events and their total duration."""

    count: _Count
    ns: _Count = Field(description="The total duration in nanoseconds.")


_NONE = V2Duration.model_construct(count=0, ns=0)


class V2InferenceStatistics(Body):
    """Durations of each step, summed over requests."""

    success: V2Duration = _NONE
    fail: V2Duration = _NONE
    queue: V2Duration = _NONE
    compute_input: V2Duration = _NONE
    compute_infer: V2Duration = _NONE
    compute_output: V2Duration = _NONE
    cache_hit: V2Duration = _NONE
    cache_miss: V2Duration = _NONE


class V2ModelStatistics(Body):
    """Statistics of one version of a model, summed over all processes since their start."""

    name: str
    version: str
    last_inference: _Count = Field(
        description="The end of the last inference in milliseconds since 1970; 0 if there was none."
    )
    inference_count: _Count = Field(description="The number of rows that were inferred.")
    execution_count: _Count = Field(description="The number of batches that were run.")
    inference_stats: V2InferenceStatistics
    batch_stats: list[_Anything] = Field([])
    response_stats: _Anything = Field({})
    memory_usage: list[_Anything] = Field([])


class V2Statistics(Body):
    """Statistics of one or more versions of models."""

    model_stats: list[V2ModelStatistics]


class V2IndexEntry(Body):
    """The state of a version of a model."""

    name: str
    version: str
    state: str = Field(description="READY, LOADING or UNAVAILABLE.")
    reason: str = Field(description="Why the version is not served; empty if it is.")


class V2Index(RootModel[list[V2IndexEntry]]):
    """The state of every version."""


class V2IndexRequest(Body):
    """A filter of the index."""

    ready: bool = Field(False, description="Return only versions that are ready.")


class V2Input(Body):
    """An input tensor: its values in `data`, or the size of its raw bytes in the parameter `binary_data_size`."""

    name: _Name
    datatype: str = Field(examples=["UINT8", "BYTES", "FP32"])
    shape: list[_Count] = Field(description="The length of each axis, the number of rows first.")
    parameters: _Anything = Field({}, description="`binary_data_size`: the size of the raw bytes.")
    data: list[Any] = Field([], description="The values in row-major order, flat or nested; BYTES as base64.")


class V2RequestedOutput(Body):
    """An output to return."""

    name: _Name
    parameters: _Anything = Field(
        {}, description="`classification`: the number of best labels; `binary_data`: whether to return raw bytes."
    )


class V2Request(Body):
    """The inputs of a model, and the outputs to return. Raw bytes of inputs follow the JSON, in order."""

    inputs: list[V2Input] = Field(min_length=1)
    id: str = Field("", description="An identifier that the response repeats.")
    parameters: _Anything = Field({}, description="`timeout`: the deadline of the request in microseconds.")
    outputs: list[V2RequestedOutput] = Field(
        [], description="Without this field, all outputs but `energy` are returned."
    )


class V2Output(Body):
    """An output tensor: its values in `data`, or the size of its raw bytes in the parameter `binary_data_size`."""

    name: str
    datatype: str
    shape: list[int]
    parameters: _Anything = Field({})
    data: list[Any] = Field([])


class V2Response(Body):
    """The outputs of a model. Raw bytes of outputs follow the JSON, in order."""

    model_name: str
    model_version: str
    outputs: list[V2Output]
    id: str = ""


V2_BODIES = (
    V2Error,
    V2Server,
    V2Live,
    V2Ready,
    V2ModelReady,
    V2Model,
    V2Config,
    V2Statistics,
    V2Index,
    V2IndexRequest,
    V2Request,
    V2Response,
)
