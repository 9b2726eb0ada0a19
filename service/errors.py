"""Every way a request can fail, and the HTTP answer each one becomes (RFC 9457).

ServiceError
├── BadRequest         400  the request itself is malformed (`code` says how)
├── Unauthorized       401  no API key that is known
├── Forbidden          403  the path exists, but not for this port
├── NotFound           404  no such path or model
├── MethodNotAllowed   405  the path exists, the method does not
├── NotAcceptable      406  Accept allows nothing of what the path can answer
├── ModelRefused       409  a model that an operator wants to serve may not; what served before still does
├── TooLarge           413  more bytes than the limit
├── NotAnImage         415  not a JPEG, PNG or WebP file, whatever its name says
├── BadImage           422  claims to be an image and cannot be decoded, or breaks a limit on pixels or scans
├── LabelNotInTop      422  there is no heat map of that label for this image
├── RateLimited        429  more requests than one client may send; try again later
├── EngineFailed       500  the model itself broke; the log has the cause
├── Overloaded         503  too much is already waiting; try again later
├── Expired            503  waited longer than the limit or its client, or would have: dropped before any work was done
└── NotReady           503  starting, or draining before a stop

The message is for people and never holds an address, a path or a library's own words.
"""

from typing import ClassVar

_MIB = 1024 * 1024


class ServiceError(Exception):
    """A failure we expect, so the client gets its message instead of a bare 500."""

    status: ClassVar[int]
    code: str  # stable, for programs; the message is for people
    title: ClassVar[str]

    def __init__(self, message: str, *, code: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        if code is not None:
            self.code = code

    def as_answer(self) -> "ServiceError":
        """Return this error to be handed on as a value, without the frames that raised it: they hold the answers."""
        self.__traceback__ = self.__context__ = None
        return self


class BadRequest(ServiceError):
    status, code, title = 400, "bad_request", "Bad request"


class Unauthorized(ServiceError):
    status, code, title = 401, "unauthorized", "Unauthorized"


class Forbidden(ServiceError):
    status, code, title = 403, "forbidden", "Forbidden"


class NotFound(ServiceError):
    status, code, title = 404, "not_found", "Not found"


class ModelRefused(ServiceError):
    status, code, title = 409, "model_refused", "Model refused"


class MethodNotAllowed(ServiceError):
    status, code, title = 405, "method_not_allowed", "Method not allowed"


class NotAcceptable(ServiceError):
    status, code, title = 406, "not_acceptable", "Not acceptable"


class TooLarge(ServiceError):
    status, code, title = 413, "too_large", "Too large"


def image_too_large(most_bytes: int) -> TooLarge:
    """Return the refusal of a file above the limit, in the same words wherever it is noticed."""
    return TooLarge(f"An image may have at most {_size(most_bytes)}.")


def request_too_large(most_bytes: int) -> TooLarge:
    """Return the refusal of a body above the limit of its path."""
    return TooLarge(f"The body of this request may have at most {_size(most_bytes)}.")


def _size(count: int) -> str:
    return f"{count // _MIB} MiB ({count:,} bytes)" if count % _MIB == 0 else f"{count:,} bytes"


class NotAnImage(ServiceError):
    status, code, title = 415, "not_an_image", "Not a supported image"


class BadImage(ServiceError):
    status, code, title = 422, "bad_image", "Image cannot be used"


class LabelNotInTop(ServiceError):
    status, code, title = 422, "label_not_in_top", "Label not among the best"


class RateLimited(ServiceError):
    status, code, title = 429, "rate_limited", "Too many requests"


class EngineFailed(ServiceError):
    status, code, title = 500, "engine_failed", "Inference failed"


class Overloaded(ServiceError):
    status, code, title = 503, "overloaded", "Overloaded"


def queue_full(retry_after_s: int) -> Overloaded:
    """Return the refusal of a request that finds the queue full, in the same words wherever it is noticed."""
    return Overloaded("Too many images are waiting; try again later.", retry_after_s=retry_after_s)


class Expired(ServiceError):
    status, code, title = 503, "expired", "Waited too long"


class NotReady(ServiceError):
    status, code, title = 503, "not_ready", "Not ready"
