"""An example of each response body, for the OpenAPI document."""

from typing import Any

_MODEL_EXAMPLE = {
    "name": "cifar10-resnet56",
    "version": "1",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "provider": "CPUExecutionProvider",
    "precision": "fp32",
}
_CAT = {"label": "cat", "index": 3, "probability": 0.934512}
_IMAGE_EXAMPLE: dict[str, Any] = {
    "predictions": [_CAT, {"label": "dog", "index": 5, "probability": 0.051208}],
    "confident": True,
    "image": {"format": "JPEG", "width": 500, "height": 375},
    "timings_ms": {"decode": 1.7, "queue": 0.1, "inference": 1.2},
}
_CIRCUMSTANCES_EXAMPLE = {name: _IMAGE_EXAMPLE[name] for name in ("image", "timings_ms")}
_PROBLEM_EXAMPLE = {
    "type": "/docs#not_an_image",
    "title": "Not a supported image",
    "status": 415,
    "detail": "Only JPEG, PNG and WebP images are accepted, and this is a BMP file: convert it to JPEG.",
    "code": "not_an_image",
}
EXAMPLES: dict[str, Any] = {
    "Live": {"status": "live"},
    "Ready": {"status": "ready", "models": [_MODEL_EXAMPLE]},
    "Classification": {"model": _MODEL_EXAMPLE, **_IMAGE_EXAMPLE},
    "Batch": {"model": _MODEL_EXAMPLE, "results": [_IMAGE_EXAMPLE, {"problem": _PROBLEM_EXAMPLE}]},
    "Explanation": {
        "model": _MODEL_EXAMPLE,
        "predictions": [{**_CAT, "map": [[0.1, 2.5], [-0.3, 4.75]], "png": "data:image/png;base64,iVBORw0KGgo="}],
        "confident": True,
        "crop": [62.5, 0.0, 437.5, 375.0],
        **_CIRCUMSTANCES_EXAMPLE,
    },
    "Embedding": {
        "model": _MODEL_EXAMPLE,
        "embedding": [0.6, 0.0, 0.8],
        "normalized": True,
        **_CIRCUMSTANCES_EXAMPLE,
    },
}
