"""The JSON that a classification becomes, over HTTP and on the command line alike."""

from typing import Any

from service.classifier import Classification, ModelInfo


def classification_as_json(model: ModelInfo, classification: Classification) -> dict[str, Any]:
    """Return the whole answer, for orjson, which writes dataclasses too."""
    return {
        "model": model,
        "predictions": [
            {"label": best.label, "index": best.index, "probability": round(best.probability, 6)}
            for best in classification.predictions
        ],
        "image": classification.image,
        "timings_ms": {
            "decode": _milliseconds(classification.decode_s),
            "queue": _milliseconds(classification.queue_s),
            "inference": _milliseconds(classification.inference_s),
        },
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)
