"""All failures of a request, and the HTTP status of each (RFC 9457).

ServiceError
├── BadRequest         400  the request is malformed; `code` has the kind
├── Unauthorized       401  no valid API key
├── Forbidden          403  the path is not available on this port
├── NotFound           404  no such path or model
├── MethodNotAllowed   405  the path does not support the method
├── NotAcceptable      406  the Accept header allows no available media type
├── ModelRefused       409  an operator's model is rejected; the previous one is still served
├── TooLarge           413  the body exceeds the limit
├── NotAnImage         415  the content is not a JPEG, PNG or WebP file
├── BadImage           422  the image cannot be decoded, or exceeds a limit on pixels or scans
├── LabelNotInTop      422  the label has no heat map for this image
├── RateLimited        429  the client has sent more requests than its rate limit allows
├── EngineFailed       500  the model failed; the log has the cause
├── Overloaded         503  the queue or the memory is full; try again later
├── Expired            503  dropped from the queue: the limit on waiting, the deadline or the client has ended
└── NotReady           503  the server is starting, or draining before a stop

The message is for people. It contains no address, no path and no text of a library.
"""

from typing import ClassVar

_MIB = 1024 * 1024


class ServiceError(Exception):
    """An expected failure, whose message is sent to the client."""

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
        """Return this error as a value, without its traceback: the frames would keep images alive."""
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
    """Return the error for a file above the limit. All detectors use the same message."""
    return TooLarge(f"An image may have at most {_size(most_bytes)}.")


def request_too_large(most_bytes: int) -> TooLarge:
    """Return the error for a body above the limit of its path."""
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
    """Return the error for a full queue. All detectors use the same message."""
    return Overloaded("Too many images are waiting; try again later.", retry_after_s=retry_after_s)


def out_of_memory() -> Overloaded:
    """Return the error for an image whose decoding the system has no memory for. All detectors use the same message."""
    return Overloaded("The server has no memory for this image at present; try again later.", retry_after_s=1)


class Expired(ServiceError):
    status, code, title = 503, "expired", "Waited too long"


class NotReady(ServiceError):
    status, code, title = 503, "not_ready", "Not ready"
