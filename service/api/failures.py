"""Every failure that a client can meet: what its status means, its codes, and which paths have it."""

from collections.abc import Callable

from service.api import batch, classify, embed, explain

# Status → what it means and the codes that come with it.
FAILURES: dict[int, tuple[str, tuple[str, ...]]] = {
    400: (
        "The request is malformed.",
        (
            "bad_top_k",
            "bad_index",
            "bad_normalize",
            "bad_query",
            "bad_multipart",
            "bad_json",
            "no_file",
            "several_files",
            "too_many_images",
            "bad_base64",
            "bad_content_length",
            "bad_timeout",
            "no_model_card",
            "bad_host",
            "bad_request",
            "bad_http",
        ),
    ),
    401: ("The server wants an API key: `Authorization: Bearer …` or `X-Api-Key: …`.", ("unauthorized",)),
    404: ("There is no such path or model.", ("not_found", "model_not_found")),
    405: ("The path exists, the method does not; Allow names those that do.", ("method_not_allowed",)),
    406: ("Accept allows none of the formats that there are.", ("not_acceptable",)),
    408: ("The request did not arrive in time.", ("request_timeout",)),
    413: ("More bytes than the limit: 20 MiB a picture and 64 MiB a batch, unless set otherwise.", ("too_large",)),
    415: ("Not a JPEG, PNG or WebP file by its bytes, or encoded.", ("not_an_image", "unsupported_encoding")),
    422: (
        "The picture cannot be decoded, or has too many pixels or scans; or there is no heat map of that label.",
        ("bad_image", "label_not_in_top"),
    ),
    431: ("The path and the headers together have more than 64 KiB.", ("header_too_large",)),
    500: ("The server or its model failed.", ("engine_failed", "internal_error")),
    503: (
        "Not now: too much is waiting, or the server starts or stops. Retry-After says when to try again.",
        ("overloaded", "expired", "cannot_make_it", "client_left", "not_ready", "draining"),
    ),
}
# Codes that only some of the paths have that take pictures.
_ONLY = {
    "bad_top_k": (classify.PATH, batch.PATH),
    "bad_index": (explain.PATH,),
    "bad_normalize": (embed.PATH,),
    "bad_json": (batch.PATH,),
    "bad_base64": (batch.PATH,),
    "too_many_images": (batch.PATH,),
    "several_files": (classify.PATH, explain.PATH, embed.PATH),
    "not_acceptable": (explain.PATH, embed.PATH),
    "label_not_in_top": (explain.PATH,),
}
# What a path without a body can meet.
_ON_READING = frozenset(
    (
        "bad_content_length",
        "bad_host",
        "bad_request",
        "bad_http",
        "unauthorized",
        "method_not_allowed",
        "request_timeout",
        "header_too_large",
        "internal_error",
    )
)


def failures_of_post(path: str) -> dict[int, tuple[str, tuple[str, ...]]]:
    """Return status, meaning and codes of what a path that takes pictures can answer instead of 200."""
    return _having(lambda code: path in _ONLY.get(code, (path,)))


def failures_of_get(*further: str) -> dict[int, tuple[str, tuple[str, ...]]]:
    """Return status, meaning and codes of what a path without a body can answer instead of 200."""
    return _having(lambda code: code in _ON_READING or code in further)


def _having(belongs: Callable[[str], bool]) -> dict[int, tuple[str, tuple[str, ...]]]:
    found = {status: (text, tuple(filter(belongs, codes))) for status, (text, codes) in FAILURES.items()}
    return {status: (text, codes) for status, (text, codes) in found.items() if codes}
