"""A model's statistics in the format of Triton's clients and perf_analyzer: counts, and times in nanoseconds."""

from typing import Any

from service.inference.registry import ServedModel
from service.telemetry.model_statistics import MODEL_NUMBERS, batch_prefix, model_key
from service.telemetry.prometheus import Snapshot


def model_statistics(model: ServedModel, total: Snapshot) -> dict[str, Any]:
    """Return one entry of `model_stats`."""
    served_as = model.info.served_as
    numbers = total["counters"].get(model_key(served_as)) or [0.0] * MODEL_NUMBERS
    rows, executions, answered, answered_s, failed, failed_s, queue_s, decode_s, inference_s, output_s = numbers
    return {
        "name": model.info.name,
        "version": model.info.version,
        "last_inference": int(total.get("last_ms", {}).get(served_as, 0)),
        "inference_count": int(rows),
        "execution_count": _whole(executions),
        "inference_stats": {
            "success": _duration(answered, answered_s),
            "fail": _duration(failed, failed_s),
            "queue": _duration(answered, queue_s),
            "compute_input": _duration(answered, decode_s),
            "compute_infer": _duration(answered, inference_s),
            "compute_output": _duration(answered, output_s),
            "cache_hit": _duration(0, 0),
            "cache_miss": _duration(0, 0),
        },
        "response_stats": {},
        "batch_stats": _batch_statistics(served_as, total),
        "memory_usage": [],
    }


def _batch_statistics(model: str, total: Snapshot) -> list[dict[str, Any]]:
    prefix = batch_prefix(model)
    found = ((key, numbers) for key, numbers in total["counters"].items() if key.startswith(prefix))
    by_size = {int(key.removeprefix(prefix)): numbers for key, numbers in found}
    return [
        {
            "batch_size": size,
            "compute_input": _duration(executions, decode_s),
            "compute_infer": _duration(executions, inference_s),
            "compute_output": _duration(executions, 0),
        }
        for size, (executions, decode_s, inference_s) in sorted(by_size.items())
    ]


def _duration(count: float, seconds: float) -> dict[str, int]:
    return {"count": _whole(count), "ns": round(seconds * 1e9)}


def _whole(shares: float) -> int:
    """Return the number of executions from a sum of shares, which is rounded because thirds do not add up to one."""
    return round(shares)
