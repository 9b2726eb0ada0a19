"""The bodies of requests and responses as pydantic models, for the OpenAPI document only.

The server does not validate its responses with these models, which would cost time for each request. A field with a
default is optional.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

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
    with_modes = [(body, "validation") for body in bodies]
    _, document = models_json_schema(with_modes, ref_template=ref("{model}")["$ref"], schema_generator=_Schemas)  # type: ignore[arg-type]
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
