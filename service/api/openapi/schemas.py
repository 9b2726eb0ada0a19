"""The bodies of requests and responses as pydantic models, for the OpenAPI document only, each with an example.

The server does not validate its responses with these models, which would cost time for each request. A field with a
default is optional.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from service.api.endpoints.batch import MOST_IMAGES

_FILE = {"type": "string", "format": "binary"}
_TEXT = {"type": "string"}


class Body(BaseModel):
    """The base of all bodies. Models are built with the OpenAPI document, not at the start of a worker."""

    model_config = ConfigDict(defer_build=True)


class _Schemas(GenerateJsonSchema):
    """JSON schemas without titles, which repeat the names, and without defaults."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


def schemas_of(*bodies: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schemas of models, and of all models that they contain, by name."""
    wanted = [(body, "validation") for body in bodies]
    _, document = models_json_schema(wanted, ref_template=ref("{model}")["$ref"], schema_generator=_Schemas)  # type: ignore[arg-type]
    found: dict[str, Any] = document["$defs"]
    for schema in found.values():
        del schema["title"]
    return found


def ref(name: str) -> dict[str, Any]:
    """Return a reference to a named schema, so that generated clients have a class for it."""
    return {"$ref": f"#/components/schemas/{name}"}


def _one_of(schema: dict[str, Any]) -> None:
    """Replace `anyOf`, which pydantic writes for a union, by `oneOf`: an entry is never of both types."""
    schema["items"]["oneOf"] = schema["items"].pop("anyOf")


_Base64 = Annotated[str, Field(json_schema_extra={"format": "byte"})]
_Confident = Annotated[
    bool | None,
    Field(
        description="Whether the image looks like one of the model's classes: its score reaches the threshold in "
        "the model card, as 95% of the held-out images do. Null for a model without a threshold."
    ),
]


class Model(Body):
    """The identity of the model, and its execution provider and precision."""

    name: str
    version: str
    sha256: str
    provider: str
    precision: str


class Prediction(Body):
    """A label and its probability."""

    label: str
    index: int
    probability: float = Field(ge=0, le=1)


class Image(Body):
    """Properties of the image; width and height are as displayed."""

    format: Literal["JPEG", "PNG", "WEBP"]
    width: int
    height: int
    truncated: Literal[True] = Field(True, description="Present for a truncated JPEG of which enough could be decoded.")


class Timings(Body):
    """Timings in ms."""

    decode: float
    queue: float
    inference: float


class Result(Body):
    """One image of a batch."""

    predictions: list[Prediction] = Field(description="The best labels, best first.")
    confident: _Confident
    image: Image
    timings_ms: Timings


class Classification(Body):
    """The labels of an image."""

    model: Model
    predictions: list[Prediction] = Field(description="The best labels, best first.")
    confident: _Confident
    image: Image
    timings_ms: Timings


class Problem(Body):
    """A failure (RFC 9457)."""

    type: str = Field(json_schema_extra={"format": "uri-reference"})
    title: str
    status: int
    detail: str = Field(description="A message for people; it may change.")
    code: str = Field(description="A stable code for programs.")


class Failure(Body):
    """One image of a batch that failed."""

    problem: Problem


class Batch(Body):
    """The labels of several images."""

    model: Model
    results: list[Result | Failure] = Field(
        description="One entry for each image, in order: its labels or its problem.", json_schema_extra=_one_of
    )


class EncodedImage(Body):
    """An image file within JSON."""

    b64: _Base64


class Explained(Prediction):
    """A label, its probability and its heat map."""

    map: list[list[float]] = Field(
        description="The evidence for the label in each cell, row by row from the top left; the mean of all "
        "cells plus the label's bias is its logit."
    )
    png: str = Field(
        description="The map as an RGBA image with a pixel for each cell (a PNG as a data URI), to be "
        "scaled smoothly over the part of the image in `crop`. The opacity grows with the value, "
        "from 0 for 0 and below to 0.6 for the largest value of this map; the colour goes from dark blue "
        "over red to yellow."
    )


class Explanation(Body):
    """The best labels of an image, each with a heat map."""

    model: Model
    predictions: list[Explained]
    confident: _Confident
    crop: list[float] = Field(
        min_length=4,
        max_length=4,
        description="The part of the image that the model saw and that the maps cover: left, top, right and "
        "bottom in pixels of the displayed image. The area outside the image is black.",
    )
    image: Image
    timings_ms: Timings


class Embedding(Body):
    """The pooled features of an image."""

    model: Model
    embedding: list[float]
    normalized: bool
    image: Image
    timings_ms: Timings


class Live(Body):
    """The process is alive."""

    status: Literal["live"]


class Ready(Body):
    """The server is ready for requests."""

    status: Literal["ready"]
    models: list[Model]


BODIES = (Live, Ready, Classification, Batch, EncodedImage, Explanation, Embedding)

ANSWER_HEADERS = {
    "X-Request-Id": {
        "description": "The request's id if it is valid, else a new one.",
        "schema": _TEXT,
    },
    "Server-Timing": {
        "description": "Timings in milliseconds: decode, queue, inference, total; for heat maps also draw, which is "
        "decoding the image again, rendering and encoding.",
        "schema": _TEXT,
    },
}
TRACING_HEADERS = [
    {
        "name": "X-Request-Id",
        "in": "header",
        "description": "A request id of 1 to 128 letters, digits, `.`, `_` and `-`; an invalid one is replaced.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    },
    {
        "name": "traceparent",
        "in": "header",
        "description": "W3C Trace Context; a valid one is returned with the response.",
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


def _object(**fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(fields), "properties": fields}


_BINARY = {"schema": _FILE}
_FORMATS = ("image/jpeg", "image/png", "image/webp")
ONE_IMAGE: dict[str, Any] = {
    "multipart/form-data": {
        "schema": _object(file={**_FILE, "description": "The image; `image` is another name for the field."}),
        "encoding": {"file": {"contentType": ", ".join(_FORMATS)}},
    },
    **{kind: _BINARY for kind in (*_FORMATS, "application/octet-stream")},
}
_FILES = {"type": "array", "items": _FILE, "minItems": 1, "maxItems": MOST_IMAGES}
MANY_IMAGES: dict[str, Any] = {
    "multipart/form-data": {
        "schema": _object(
            files={
                **_FILES,
                "description": "1 to 64 images; `file`, `image` and `images` are other names of the field.",
            }
        ),
        "encoding": {"files": {"contentType": ", ".join(_FORMATS)}},
    },
    "application/json": {
        "schema": _object(
            images={
                "type": "array",
                "items": {"anyOf": [{"type": "string", "format": "byte"}, ref("EncodedImage")]},
                "minItems": 1,
                "maxItems": MOST_IMAGES,
            }
        ),
        "example": {"images": ["iVBORw0KGgo=", {"b64": "iVBORw0KGgo="}]},
    },
}
