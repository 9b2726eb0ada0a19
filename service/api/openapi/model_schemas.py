"""What GET /models and below answer, as the OpenAPI document has it: facts of the server, and the model's card."""

from typing import Any, Literal

from pydantic import Field

from service.api.openapi.schemas import Body, ref, schemas_of
from service.model_files.card import ModelCard

HIDDEN = frozenset(("schema_version", "precision", "golden"))  # of the card: told in another way, or too long


class VersionState(Body):
    """The state of a version of a model."""

    version: str
    state: Literal["LOADING", "READY", "UNAVAILABLE"]
    reason: str = Field(description="Why it does not serve, or not what lies there now; else empty.")


class ModelDescription(Body):
    """A version of a model. File fields are present while it serves; card fields only if it has a model card."""

    name: str
    version: str
    state: Literal["LOADING", "READY", "UNAVAILABLE"]
    reason: str = Field(description="Why it does not serve, or not what lies there now; else empty.")
    default: bool
    # Of its file.
    sha256: str = ""
    provider: str = ""
    precision: str = ""
    max_batch: int = 0


class ModelWithVersions(ModelDescription):
    """The version that answers when a request names none, and the state of each."""

    versions: list[VersionState]


class Models(Body):
    """Every version of every model."""

    models: list[ModelDescription]


def model_schemas() -> dict[str, Any]:
    """Return the schemas by name: descriptions have the fields of the card as well."""
    card = ModelCard.model_json_schema(mode="serialization", ref_template=ref("{model}")["$ref"])
    of_the_card = {name: part for name, part in card["properties"].items() if name not in HIDDEN}
    schemas = schemas_of(Models, ModelWithVersions)
    for name in ("ModelDescription", "ModelWithVersions"):
        schemas[name]["properties"] |= of_the_card
    return {name: part for name, part in card["$defs"].items() if name != "Golden"} | schemas
