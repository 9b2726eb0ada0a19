"""The response schemas of GET /models and its sub-paths: fields of the server, and fields of the model card."""

from typing import Any, Literal

from pydantic import Field

from service.api.openapi.schemas import Body, ref, schemas_of
from service.model_files.card import ModelCard

HIDDEN = frozenset(("schema_version", "precision", "golden"))  # of the card: duplicated elsewhere, or too long


class VersionState(Body):
    """The state of a version of a model."""

    version: str
    state: Literal["LOADING", "READY", "UNAVAILABLE"]
    reason: str = Field(description="The reason why the version, or the newest file of it, does not serve; else empty.")


class ModelDescription(Body):
    """A version of a model. File fields are present while it serves; card fields only if it has a model card."""

    name: str
    version: str
    state: Literal["LOADING", "READY", "UNAVAILABLE"]
    reason: str = Field(description="The reason why the version, or the newest file of it, does not serve; else empty.")
    default: bool
    # Of its file.
    sha256: str = ""
    provider: str = ""
    precision: str = ""
    max_batch: int = 0


class ModelWithVersions(ModelDescription):
    """The version that serves requests without a version, and the state of each version."""

    versions: list[VersionState]


class UploadLimits(Body):
    """The limits on one image. A JPEG may have more pixels, because it is decoded at a reduced scale."""

    max_image_bytes: int
    max_pixels: int
    max_side: int = Field(description="Longest side, in pixels.")


class Models(Body):
    """Every version of every model, and the limits on an image."""

    models: list[ModelDescription]
    limits: UploadLimits


def model_schemas() -> dict[str, Any]:
    """Return the schemas by name, with the fields of the card added to the descriptions of models."""
    card = ModelCard.model_json_schema(mode="serialization", ref_template=ref("{model}")["$ref"])
    of_the_card = {name: part for name, part in card["properties"].items() if name not in HIDDEN}
    schemas = schemas_of(Models, ModelWithVersions)
    for name in ("ModelDescription", "ModelWithVersions"):
        schemas[name]["properties"] |= of_the_card
    return {name: part for name, part in card["$defs"].items() if name != "Golden"} | schemas
