"""The bodies under /v2, as the OpenAPI document describes them."""

from typing import Any

from service.api.openapi.schemas import a_list, an_object, ref
from service.api.v2.tensors import LONGEST_NAME

_TEXT, _COUNT, _FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
_NAME = {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME}
_SHAPE = a_list({"type": "integer"})
_ANY = {"type": "object"}
_STATISTICS = (
    "success",
    "fail",
    "queue",
    "compute_input",
    "compute_infer",
    "compute_output",
    "cache_hit",
    "cache_miss",
)


def _with_optional(required: dict[str, Any], optional: dict[str, Any], **further: Any) -> dict[str, Any]:
    schema = an_object(required, **further)
    return {**schema, "properties": {**required, **optional}}


V2_SCHEMAS: dict[str, Any] = {
    "V2Error": an_object({"error": _TEXT}),
    "V2Server": an_object({"name": _TEXT, "version": _TEXT, "extensions": a_list(_TEXT)}),
    "V2Live": an_object({"live": _FLAG}),
    "V2Ready": an_object({"ready": _FLAG}),
    "V2ModelReady": an_object({"name": _TEXT, "ready": _FLAG}),
    "V2Tensor": an_object(
        {"name": _TEXT, "datatype": _TEXT, "shape": _SHAPE}, description="An axis of any length is -1."
    ),
    "V2Model": an_object(
        {
            "name": _TEXT,
            "versions": a_list(_TEXT),
            "platform": _TEXT,
            "inputs": a_list(ref("V2Tensor")),
            "outputs": a_list(ref("V2Tensor")),
        }
    ),
    "V2Config": _with_optional(
        {
            "name": _TEXT,
            "platform": _TEXT,
            "backend": _TEXT,
            "max_batch_size": _COUNT,
            "input": a_list(ref("V2ConfiguredTensor")),
            "output": a_list(ref("V2ConfiguredTensor")),
        },
        {name: _ANY for name in ("version_policy", "dynamic_batching", "parameters")},
        description="Triton's ModelConfig, and in its words.",
    ),
    "V2ConfiguredTensor": an_object(
        {"name": _TEXT, "data_type": _TEXT, "dims": _SHAPE}, description="`dims` are without the batch."
    ),
    "V2Duration": an_object({"count": _COUNT, "ns": _COUNT}),
    "V2ModelStatistics": _with_optional(
        {
            "name": _TEXT,
            "version": _TEXT,
            "last_inference": {**_COUNT, "description": "Milliseconds since 1970; 0: none yet."},
            "inference_count": {**_COUNT, "description": "Rows."},
            "execution_count": {**_COUNT, "description": "Batches."},
            "inference_stats": ref("V2InferenceStatistics"),
        },
        {"batch_stats": a_list(_ANY), "response_stats": _ANY, "memory_usage": a_list(_ANY)},
    ),
    "V2InferenceStatistics": {"type": "object", "properties": {name: ref("V2Duration") for name in _STATISTICS}},
    "V2Statistics": an_object({"model_stats": a_list(ref("V2ModelStatistics"))}),
    "V2Index": a_list(ref("V2IndexEntry")),
    "V2IndexEntry": an_object({name: _TEXT for name in ("name", "version", "state", "reason")}),
    "V2IndexRequest": _with_optional({}, {"ready": {**_FLAG, "description": "Only versions that serve."}}),
    "V2Request": _with_optional(
        {"inputs": a_list(ref("V2Input"), minItems=1)},
        {"id": _TEXT, "parameters": _ANY, "outputs": a_list(ref("V2RequestedOutput"))},
        description="Tensors, each with `data` or with the size of its raw bytes, which then follow the JSON.",
    ),
    "V2Input": _with_optional(
        {
            "name": _NAME,
            "datatype": {"type": "string", "examples": ["UINT8", "BYTES", "FP32"]},
            "shape": a_list(_COUNT),
        },
        {"parameters": _ANY, "data": a_list({})},
    ),
    "V2RequestedOutput": _with_optional({"name": _NAME}, {"parameters": _ANY}),
    "V2Response": _with_optional(
        {"model_name": _TEXT, "model_version": _TEXT, "outputs": a_list(ref("V2Output"))}, {"id": _TEXT}
    ),
    "V2Output": _with_optional(
        {"name": _TEXT, "datatype": _TEXT, "shape": _SHAPE}, {"parameters": _ANY, "data": a_list({})}
    ),
}
