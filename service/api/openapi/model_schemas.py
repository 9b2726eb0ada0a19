"""What GET /models and below answer, as the OpenAPI document has it: facts of the server, and the model's card."""

from typing import Any

from service.api.openapi.schemas import a_list, an_object, ref
from service.model_files.card import ModelCard

HIDDEN = frozenset(("schema_version", "precision", "golden"))  # of the card: told in another way, or too long

_TEXT = {"type": "string"}
_STATE = {
    "version": _TEXT,
    "state": {"type": "string", "enum": ["LOADING", "READY", "UNAVAILABLE"]},
    "reason": {"type": "string", "description": "Why it does not serve, or not what lies there now; else empty."},
}
_ALWAYS = {"name": _TEXT, **_STATE, "default": {"type": "boolean"}}
# What a version has that serves.
_OF_ITS_FILE = {"sha256": _TEXT, "provider": _TEXT, "precision": _TEXT, "max_batch": {"type": "integer"}}


def _model_schemas() -> dict[str, Any]:
    card = ModelCard.model_json_schema(mode="serialization", ref_template=ref("{model}")["$ref"])
    parts = {name: part for name, part in card["$defs"].items() if name != "Golden"}
    of_the_card = {name: part for name, part in card["properties"].items() if name not in HIDDEN}
    properties = {**_ALWAYS, **_OF_ITS_FILE, **of_the_card}
    text = (
        "A version of a model: with what its file is only while it serves, with what its card says only if it has one."
    )
    described = {"type": "object", "required": list(_ALWAYS), "properties": properties, "description": text}
    versions = {"versions": a_list(ref("VersionState"))}
    return {
        **parts,
        "ModelDescription": described,
        "ModelWithVersions": {
            **described,
            "required": [*_ALWAYS, *versions],
            "properties": {**properties, **versions},
            "description": "The version that answers when a request names none, and the state of each.",
        },
        "VersionState": an_object(_STATE),
        "Models": an_object({"models": a_list(ref("ModelDescription"))}),
    }


MODEL_SCHEMAS = _model_schemas()
