"""Errors of other services' clients: each path has the format that its client reads."""

import json
from typing import Any

import pytest

from service.http.client_errors import client_error


@pytest.mark.parametrize(
    ("path", "status", "code", "document"),
    [
        ("/hf/tiny", 503, "overloaded", {"error": "why"}),
        ("/ping", 503, "starting", {"code": 503, "type": "ServiceUnavailableException", "message": "why"}),
        ("/predictions/a", 404, "model_not_found", {"code": 404, "type": "ModelNotFoundException", "message": "why"}),
        ("/predictions/a", 404, "not_found", {"code": 404, "type": "ResourceNotFoundException", "message": "why"}),
        ("/predictions/a", 500, "failed", {"code": 500, "type": "InternalServerException", "message": "why"}),
    ],
)
def test_an_error_has_the_format_of_the_paths_client(path: str, status: int, code: str, document: Any) -> None:
    assert json.loads(client_error(path, status, code, "why") or b"") == document


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/models", "/v1/models/tiny"])
@pytest.mark.parametrize(
    ("status", "kind"), [(401, "authentication_error"), (422, "invalid_request_error"), (500, "server_error")]
)
def test_openais_clients_get_the_kind_of_an_error_from_its_status(path: str, status: int, kind: str) -> None:
    error = {"message": "why", "type": kind, "param": None, "code": "c"}
    assert json.loads(client_error(path, status, "c", "why") or b"") == {"error": error}


@pytest.mark.parametrize("path", ["/classify", "/v2/models/tiny/infer", "/v1/other", "/pings"])
def test_a_path_of_no_such_client_has_no_such_format(path: str) -> None:
    assert client_error(path, 503, "overloaded", "why") is None
