"""The bodies of requests and answers, as the OpenAPI document describes them, each with an example."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from service.api.endpoints.batch import MOST_IMAGES

_NUMBER = {"type": "number"}
_TEXT = {"type": "string"}
_FILE = {"type": "string", "format": "binary"}
_BASE64 = {"type": "string", "format": "byte"}


def an_object(
    properties: dict[str, Any], *, optional: Mapping[str, Any] = MappingProxyType({}), **further: Any
) -> dict[str, Any]:
    """Return the schema of an object that has all of these properties, and perhaps the optional ones."""
    return {"type": "object", "required": list(properties), "properties": {**properties, **optional}, **further}


def ref(name: str) -> dict[str, Any]:
    """Return a reference to a schema. What has a name, generated clients can name, too."""
    return {"$ref": f"#/components/schemas/{name}"}


def a_list(items: dict[str, Any], **further: Any) -> dict[str, Any]:
    """Return the schema of a list."""
    return {"type": "array", "items": items, **further}


_PREDICTION = {
    "label": _TEXT,
    "index": {"type": "integer"},
    "probability": {"type": "number", "minimum": 0, "maximum": 1},
}
_CIRCUMSTANCES = {"image": ref("Image"), "timings_ms": ref("Timings")}
_CONFIDENT = {
    "type": ["boolean", "null"],
    "description": "Whether the image looks like one of the model's classes: its score reaches the threshold in "
    "the model card, as 95% of the held-out images do. Null for a model without a threshold.",
}
_IMAGE = {
    "predictions": a_list(ref("Prediction"), description="The best labels, best first."),
    "confident": _CONFIDENT,
    **_CIRCUMSTANCES,
}

SCHEMAS: dict[str, Any] = {
    "Model": an_object(
        {name: _TEXT for name in ("name", "version", "sha256", "provider", "precision")},
        description="Which model answered, and on what.",
    ),
    "Prediction": an_object(_PREDICTION),
    "Image": an_object(
        {
            "format": {"type": "string", "enum": ["JPEG", "PNG", "WEBP"]},
            "width": {"type": "integer"},
            "height": {"type": "integer"},
        },
        optional={
            "truncated": {
                "type": "boolean",
                "enum": [True],
                "description": "Only of a JPEG whose end is missing, but that has enough to be shown.",
            }
        },
        description="What the image was; width and height as displayed.",
    ),
    "Timings": an_object(
        {step: _NUMBER for step in ("decode", "queue", "inference")}, description="Where the time went, in ms."
    ),
    "Classification": an_object({"model": ref("Model"), **_IMAGE}),
    "Batch": an_object(
        {
            "model": ref("Model"),
            "results": a_list(
                {"oneOf": [ref("Result"), ref("Failure")]},
                description="One entry for each image, in order: its labels or its problem.",
            ),
        }
    ),
    "EncodedImage": an_object({"b64": _BASE64}),
    "Result": an_object(_IMAGE, description="One image of a batch."),
    "Failure": an_object({"problem": ref("Problem")}, description="One image of a batch that has no answer."),
    "Explanation": an_object(
        {
            "model": ref("Model"),
            "predictions": a_list(ref("Explained")),
            "confident": _CONFIDENT,
            "crop": a_list(
                _NUMBER,
                minItems=4,
                maxItems=4,
                description="The part of the image that the network saw, and that the maps lie over: left, top, "
                "right and bottom in its pixels, as displayed. Beyond the image's edges the network saw black.",
            ),
            **_CIRCUMSTANCES,
        }
    ),
    "Explained": an_object(
        {
            **_PREDICTION,
            "map": a_list(
                a_list(_NUMBER),
                description="What speaks for the label at each place, row by row from the top left; the mean of all "
                "places, and the label's bias, is its logit.",
            ),
            "png": {
                "type": "string",
                "description": "The map as an RGBA image with a pixel for each number (a PNG as a data URI), to be "
                "scaled smoothly over the part of the image that `crop` names. The opacity grows with the number, "
                "from 0 for 0 and below to 0.6 for the largest number of this map; the colour goes from dark blue "
                "over red to yellow.",
            },
        }
    ),
    "Embedding": an_object(
        {
            "model": ref("Model"),
            "embedding": a_list(_NUMBER),
            "normalized": {"type": "boolean"},
            **_CIRCUMSTANCES,
        }
    ),
    "Live": an_object({"status": {"type": "string", "enum": ["live"]}}),
    "Ready": an_object({"status": {"type": "string", "enum": ["ready"]}, "models": a_list(ref("Model"))}),
    "Problem": an_object(
        {
            "type": {"type": "string", "format": "uri-reference"},
            "title": _TEXT,
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "For people; may change."},
            "code": {"type": "string", "description": "For programs; stays."},
        },
        description="A failure (RFC 9457).",
    ),
}

ANSWER_HEADERS = {
    "X-Request-Id": {
        "description": "The request's own if it had a harmless one, else a new one.",
        "schema": _TEXT,
    },
    "Server-Timing": {
        "description": "Where the time went, in milliseconds: decode, queue, inference, total; of heat maps also draw, "
        "which is decoding anew, drawing and writing.",
        "schema": _TEXT,
    },
}
TRACING_HEADERS = [
    {
        "name": "X-Request-Id",
        "in": "header",
        "description": "An id for the request, of 1 to 128 letters, digits, `.`, `_` and `-`; another is replaced.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    },
    {
        "name": "traceparent",
        "in": "header",
        "description": "W3C Trace Context; a valid one comes back with the answer.",
        "schema": {"type": "string", "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
    },
]

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

_BINARY = {"schema": _FILE}
_FORMATS = ("image/jpeg", "image/png", "image/webp")
ONE_IMAGE: dict[str, Any] = {
    "multipart/form-data": {
        "schema": an_object({"file": {**_FILE, "description": "The image; `image` is another name for the field."}}),
        "encoding": {"file": {"contentType": ", ".join(_FORMATS)}},
    },
    **{kind: _BINARY for kind in (*_FORMATS, "application/octet-stream")},
}
_FILES = a_list(_FILE, minItems=1, maxItems=MOST_IMAGES)
MANY_IMAGES: dict[str, Any] = {
    "multipart/form-data": {
        "schema": an_object(
            {"files": {**_FILES, "description": "1 to 64 images; `file`, `image` and `images` are the same."}}
        ),
        "encoding": {"files": {"contentType": ", ".join(_FORMATS)}},
    },
    "application/json": {
        "schema": an_object(
            {
                "images": a_list(
                    {"anyOf": [_BASE64, ref("EncodedImage")]},
                    minItems=1,
                    maxItems=MOST_IMAGES,
                )
            }
        ),
        "example": {"images": ["iVBORw0KGgo=", {"b64": "iVBORw0KGgo="}]},
    },
}
