"""The bodies of requests and answers, as the OpenAPI document describes them, each with an example."""

from typing import Any

from service.api.batch import MOST_IMAGES

_NUMBER = {"type": "number"}
_TEXT = {"type": "string"}
_FILE = {"type": "string", "format": "binary"}


def _object(properties: dict[str, Any], **further: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties, **further}


_MODEL = _object({name: _TEXT for name in ("name", "version", "sha256", "provider", "precision")})
_PREDICTION = {
    "label": _TEXT,
    "index": {"type": "integer"},
    "probability": {"type": "number", "minimum": 0, "maximum": 1},
}
_PREDICTIONS = {"type": "array", "description": "The best labels, best first.", "items": _object(_PREDICTION)}
_CIRCUMSTANCES = {
    "image": _object(
        {
            "format": {"type": "string", "enum": ["JPEG", "PNG", "WEBP"]},
            "width": {"type": "integer"},
            "height": {"type": "integer"},
        },
        description="What the picture was; width and height as displayed.",
    ),
    "timings_ms": _object({step: _NUMBER for step in ("decode", "queue", "inference")}),
}
_PICTURE = {"predictions": _PREDICTIONS, **_CIRCUMSTANCES}
_PROBLEM = _object(
    {
        "type": {"type": "string", "format": "uri-reference"},
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "For people; may change."},
        "code": {"type": "string", "description": "For programs; stays."},
    },
    description="A failure (RFC 9457).",
)
_EXPLAINED = {
    **_PREDICTION,
    "map": {
        "type": "array",
        "description": "What each place adds to the label's logit, row by row from the top left.",
        "items": {"type": "array", "items": _NUMBER},
    },
    "png": {"type": "string", "description": "The map as a data URI: colour and opacity, to lay over the picture."},
}

SCHEMAS: dict[str, Any] = {
    "Classification": _object({"model": _MODEL, **_PICTURE}),
    "Batch": _object(
        {
            "model": _MODEL,
            "results": {
                "type": "array",
                "description": "One entry for each picture, in order: its labels or its problem.",
                "items": {"oneOf": [_object(_PICTURE), _object({"problem": {"$ref": "#/components/schemas/Problem"}})]},
            },
        }
    ),
    "Explanation": _object(
        {"model": _MODEL, "predictions": {"type": "array", "items": _object(_EXPLAINED)}, **_CIRCUMSTANCES}
    ),
    "Embedding": _object(
        {
            "model": _MODEL,
            "embedding": {"type": "array", "items": _NUMBER},
            "normalized": {"type": "boolean"},
            **_CIRCUMSTANCES,
        }
    ),
    "Problem": _PROBLEM,
}

_MODEL_EXAMPLE = {
    "name": "cifar10-resnet20",
    "version": "1",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "provider": "CPUExecutionProvider",
    "precision": "fp32",
}
_CAT = {"label": "cat", "index": 3, "probability": 0.934512}
_PICTURE_EXAMPLE: dict[str, Any] = {
    "predictions": [_CAT, {"label": "dog", "index": 5, "probability": 0.051208}],
    "image": {"format": "JPEG", "width": 500, "height": 375},
    "timings_ms": {"decode": 1.9, "queue": 0.0, "inference": 0.5},
}
_CIRCUMSTANCES_EXAMPLE = {name: _PICTURE_EXAMPLE[name] for name in ("image", "timings_ms")}
_PROBLEM_EXAMPLE = {
    "type": "/docs#not_an_image",
    "title": "Not a supported image",
    "status": 415,
    "detail": "The file is not a JPEG, PNG or WebP image.",
    "code": "not_an_image",
}
EXAMPLES: dict[str, Any] = {
    "Classification": {"model": _MODEL_EXAMPLE, **_PICTURE_EXAMPLE},
    "Batch": {"model": _MODEL_EXAMPLE, "results": [_PICTURE_EXAMPLE, {"problem": _PROBLEM_EXAMPLE}]},
    "Explanation": {
        "model": _MODEL_EXAMPLE,
        "predictions": [{**_CAT, "map": [[0.1, 2.5], [-0.3, 4.75]], "png": "data:image/png;base64,iVBORw0KGgo="}],
        **_CIRCUMSTANCES_EXAMPLE,
    },
    "Embedding": {
        "model": _MODEL_EXAMPLE,
        "embedding": [0.6, 0.0, 0.8],
        "normalized": True,
        **_CIRCUMSTANCES_EXAMPLE,
    },
}

_BINARY = {"schema": _FILE}
ONE_PICTURE: dict[str, Any] = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {
                "file": {**_FILE, "description": "The picture."},
                "image": {**_FILE, "description": "Another name for `file`; send one."},
            },
        }
    },
    **{kind: _BINARY for kind in ("image/jpeg", "image/png", "image/webp", "application/octet-stream")},
}
_FILES = {"type": "array", "items": _FILE, "maxItems": MOST_IMAGES}
_BASE64 = {"type": "string", "format": "byte"}
MANY_PICTURES: dict[str, Any] = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {
                "files": {**_FILES, "description": "1 to 64 pictures; `file`, `image` and `images` are the same."}
            },
        }
    },
    "application/json": {
        "schema": _object(
            {
                "images": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MOST_IMAGES,
                    "items": {"anyOf": [_BASE64, _object({"b64": _BASE64})]},
                }
            }
        ),
        "example": {"images": ["iVBORw0KGgo=", {"b64": "iVBORw0KGgo="}]},
    },
}
