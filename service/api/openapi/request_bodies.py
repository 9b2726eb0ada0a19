"""The media types of requests with one image and with several, for the OpenAPI document."""

from typing import Any

from service.api.endpoints.batch import MOST_IMAGES
from service.api.openapi.schemas import ref

_FILE = {"type": "string", "format": "binary"}


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
