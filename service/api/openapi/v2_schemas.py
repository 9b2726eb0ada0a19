"""The bodies under /v2 as pydantic models, for the OpenAPI document only."""

from typing import Annotated, Any

from pydantic import Field, RootModel

from service.api.openapi.schemas import Body
from service.api.v2.tensors import LONGEST_NAME

_Count = Annotated[int, Field(ge=0)]
_Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
_Anything = dict[str, Any]


class V2Error(Body):
    """A failure, in one sentence."""

    error: str


class V2Server(Body):
    """The server and the extensions of the protocol that it supports."""

    name: str
    version: str
    extensions: list[str]


class V2Live(Body):
    """Whether the process answers."""

    live: bool


class V2Ready(Body):
    """Whether requests can be sent here."""

    ready: bool


class V2ModelReady(Body):
    """Whether a model answers."""

    name: str
    ready: bool


class V2Tensor(Body):
    """An axis of any length is -1."""

    name: str
    datatype: str
    shape: list[int]


class V2Model(Body):
    """A model's versions, inputs and outputs."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[V2Tensor]
    outputs: list[V2Tensor]


class V2ConfiguredTensor(Body):
    """`dims` are without the batch."""

    name: str
    data_type: str
    dims: list[int]


class V2Config(Body):
    """Triton's ModelConfig, and in its words."""

    name: str
    platform: str
    backend: str
    max_batch_size: _Count
    input: list[V2ConfiguredTensor]
    output: list[V2ConfiguredTensor]
    version_policy: _Anything = Field({})
    dynamic_batching: _Anything = Field({})
    parameters: _Anything = Field({})


class V2Duration(Body):
    """A number of events, and how long they took together."""

    count: _Count
    ns: _Count


_NONE = V2Duration.model_construct(count=0, ns=0)


class V2InferenceStatistics(Body):
    """Durations of the steps of requests."""

    success: V2Duration = _NONE
    fail: V2Duration = _NONE
    queue: V2Duration = _NONE
    compute_input: V2Duration = _NONE
    compute_infer: V2Duration = _NONE
    compute_output: V2Duration = _NONE
    cache_hit: V2Duration = _NONE
    cache_miss: V2Duration = _NONE


class V2ModelStatistics(Body):
    """Statistics of a version of a model, over all processes."""

    name: str
    version: str
    last_inference: _Count = Field(description="Milliseconds since 1970; 0: none yet.")
    inference_count: _Count = Field(description="Rows.")
    execution_count: _Count = Field(description="Batches.")
    inference_stats: V2InferenceStatistics
    batch_stats: list[_Anything] = Field([])
    response_stats: _Anything = Field({})
    memory_usage: list[_Anything] = Field([])


class V2Statistics(Body):
    """Statistics of several versions."""

    model_stats: list[V2ModelStatistics]


class V2IndexEntry(Body):
    """The state of a version of a model."""

    name: str
    version: str
    state: str
    reason: str


class V2Index(RootModel[list[V2IndexEntry]]):
    """The state of every version."""


class V2IndexRequest(Body):
    """Which versions the index has."""

    ready: bool = Field(False, description="Only versions that serve.")


class V2Input(Body):
    """An input tensor, with `data` or with the size of its raw bytes."""

    name: _Name
    datatype: str = Field(examples=["UINT8", "BYTES", "FP32"])
    shape: list[_Count]
    parameters: _Anything = Field({})
    data: list[Any] = Field([])


class V2RequestedOutput(Body):
    """An output to return."""

    name: _Name
    parameters: _Anything = Field({})


class V2Request(Body):
    """Tensors, each with `data` or with the size of its raw bytes, which then follow the JSON."""

    inputs: list[V2Input] = Field(min_length=1)
    id: str = ""
    parameters: _Anything = Field({})
    outputs: list[V2RequestedOutput] = Field([])


class V2Output(Body):
    """An output tensor, with `data` or with the size of its raw bytes."""

    name: str
    datatype: str
    shape: list[int]
    parameters: _Anything = Field({})
    data: list[Any] = Field([])


class V2Response(Body):
    """Tensors, each with `data` or with the size of its raw bytes, which then follow the JSON."""

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
