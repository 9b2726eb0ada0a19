"""All error responses: the meaning of each status, its codes with examples, and the paths that return them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from service.api.endpoints import batch, classify, embed, explain
from service.errors import (
    BadImage,
    BadRequest,
    EngineFailed,
    Expired,
    LabelNotInTop,
    MethodNotAllowed,
    NotAcceptable,
    NotAnImage,
    NotFound,
    NotReady,
    Overloaded,
    RateLimited,
    ServiceError,
    TooLarge,
    Unauthorized,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """The meaning of a status, and its codes, each with a title and an example of a detail."""

    meaning: str
    codes: Mapping[str, tuple[str, str]]


def _of(kind: type[ServiceError], /, **details: str) -> dict[str, tuple[str, str]]:
    return {code: (kind.title, detail) for code, detail in details.items()}


FAILURES: dict[int, Failure] = {
    400: Failure(
        "The request is malformed.",
        _of(
            BadRequest,
            bad_top_k="top_k must be a whole number from 1 to 1000.",
            bad_index="index must be the number of a class, counted from 0.",
            bad_normalize="normalize must be true or false.",
            bad_query="The query has more than 32 parameters.",
            bad_multipart="The form is truncated: its closing boundary is missing.",
            bad_json='Send a multipart form of files, or JSON as {"images": ["base64 of a file", …]}.',
            no_file="The request has no image: the file is empty.",
            several_files="The form has several files; send one image a request.",
            too_many_images="A request may have at most 64 images; send several requests.",
            bad_base64='An image must be base64 or a data URL with base64, or {"b64": base64}.',
            unknown_parameter="There is no parameter `topk`; did you mean `top_k`?",
            bad_content_length="Content-Length must be a number.",
            bad_timeout="X-Request-Timeout-Ms must be a whole number from 1 to 3600000.",
            no_model_card="This model has no model card and accepts only tensors, not images: "
            "use POST /v2/models/other/infer.",
            bad_host="The Host header names a host that this server does not serve.",
            tiny_chunks="The body has too many tiny chunks; send chunks of at least 64 bytes.",
            bad_request="The request's parameters are not as /docs describes them.",
            bad_http="The request is not valid HTTP.",
        ),
    ),
    401: Failure(
        "The server requires an API key: `Authorization: Bearer …` or `X-Api-Key: …`.",
        _of(
            Unauthorized,
            unauthorized="A valid API key is required: send `Authorization: Bearer <key>` or `X-Api-Key`.",
        ),
    ),
    404: Failure(
        "The path or the model does not exist.",
        _of(
            NotFound,
            not_found="No endpoint has this path; see /docs for the available endpoints.",
            model_not_found="There is no such model; choose one of: cifar10-resnet20, cifar10-resnet56.",
        ),
    ),
    405: Failure(
        "The path does not support the method; see the Allow header.",
        _of(
            MethodNotAllowed,
            method_not_allowed="This path supports only POST; POST an image, for example with "
            "curl -F file=@photo.jpg, or use the page at /.",
        ),
    ),
    406: Failure(
        "The Accept header allows no available format.",
        _of(
            NotAcceptable,
            not_acceptable="The Accept header allows no available media type; available: application/json, image/png.",
        ),
    ),
    408: Failure(
        "The request did not arrive in time.",
        {"request_timeout": ("Request timeout", "The request did not arrive in time.")},
    ),
    413: Failure(
        "The body exceeds the limit: by default 20 MiB for an image and 64 MiB for a batch.",
        _of(TooLarge, too_large="An image may have at most 20 MiB (20,971,520 bytes)."),
    ),
    415: Failure(
        "The file is not JPEG, PNG or WebP by its bytes, or the body is compressed.",
        _of(
            NotAnImage,
            not_an_image="Only JPEG, PNG and WebP images are accepted, and this is a HEIC file: convert it to JPEG.",
            unsupported_encoding="Content-Encoding is not supported; send the body uncompressed.",
        ),
    ),
    422: Failure(
        "The image cannot be decoded or exceeds a limit, or the label has no heat map.",
        {
            **_of(BadImage, bad_image="The JPEG image is broken or truncated and cannot be decoded."),
            **_of(
                LabelNotInTop,
                label_not_in_top="Only the best labels have a map; choose one of: cat, dog, bird, frog.",
            ),
        },
    ),
    429: Failure(
        "The client has sent more requests than its rate limit allows; see the Retry-After header.",
        _of(
            RateLimited,
            rate_limited="This client has sent more requests than its rate limit allows; send fewer, or wait.",
        ),
    ),
    431: Failure(
        "The request line and the headers have more than 64 KiB, or more than 256 lines.",
        {
            "header_too_large": (
                "Request header fields too large",
                "The request line and the headers may have at most 64 KiB (65,536 bytes) and 256 lines.",
            )
        },
    ),
    500: Failure(
        "The server or its model failed.",
        {
            **_of(EngineFailed, engine_failed="The model failed on this image; the server's log has the cause."),
            "internal_error": ("Internal Server Error", "The server failed on this request; its log has the cause."),
        },
    ),
    501: Failure(
        "The body has a Transfer-Encoding other than chunked.",
        {
            "unknown_transfer_coding": (
                "Not implemented",
                "The only supported Transfer-Encoding is chunked; declare compression of the body in Content-Encoding.",
            )
        },
    ),
    503: Failure(
        "The server is overloaded, starting or stopping; see the Retry-After header.",
        {
            **_of(Overloaded, overloaded="Too many images are waiting; try again later."),
            **_of(
                Expired,
                expired="The image waited too long; try again later.",
                cannot_make_it="The result would arrive after the deadline that the request has set.",
                client_left="The client disconnected before its image was processed.",
            ),
            **_of(
                NotReady,
                not_ready="The server is still loading its models; try again soon.",
                draining="The server is about to stop; send requests elsewhere.",
            ),
            "too_many_connections": (
                "Too many connections",
                "All connections of this server are in use; try again a little later.",
            ),
        },
    ),
    505: Failure(
        "The request line names another version than HTTP/1.1 or HTTP/1.0.",
        {
            "unknown_http_version": (
                "HTTP version not supported",
                "This server supports HTTP/1.1 and HTTP/1.0; send one of these versions in the request line.",
            )
        },
    ),
}
# Codes that only some of the image endpoints return.
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
# Codes of paths without a body.
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
        "too_many_connections",
        "unknown_http_version",
    )
)


def failures_of_post(path: str) -> dict[int, Failure]:
    """Return the failures of an image endpoint, by status."""
    return _having(lambda code: path in _ONLY.get(code, (path,)))


def failures_of_get(*further: str) -> dict[int, Failure]:
    """Return the failures of a path without a body, by status; `further` are additional codes."""
    return _having(lambda code: code in _ON_READING or code in further)


def _having(belongs: Callable[[str], bool]) -> dict[int, Failure]:
    found = {
        status: Failure(failure.meaning, {code: texts for code, texts in failure.codes.items() if belongs(code)})
        for status, failure in FAILURES.items()
    }
    return {status: failure for status, failure in found.items() if failure.codes}
