"""One request with its retries, without the sending, so that it serves threads and asyncio.

`Requests.send` is a generator: it yields requests to send and seconds to wait, and receives what became of them.
"""

import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import httpx

from resnet_service.results import ResnetError

_LATER = (429, 503)  # rate limited, overloaded
_LONGEST_WAIT_S, _USUAL_WAIT_S = 10.0, 1.0  # between two attempts
_JITTER = 0.25  # of the wait, so that clients do not return together
_GRACE_S = 1.0  # for a response that the server sent before the deadline to arrive

Result = TypeVar("Result")
Attempt: TypeAlias = httpx.Request | float  # a request to send, or seconds to wait
Outcome: TypeAlias = httpx.Response | httpx.TransportError | None  # of a request; None after a wait
Steps: TypeAlias = Generator[Attempt, Outcome, Result]


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests to one server, each with a deadline and a limited number of retries."""

    build: Callable[..., httpx.Request]
    timeout_s: float  # of a call that names none
    retries: int

    def send(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Any],
        timeout_s: float | None,
        headers: Mapping[str, str] = MappingProxyType({}),
        **body: Any,
    ) -> Steps[httpx.Response]:
        """Return the successful response to a request, after retries if needed. Raises ResnetError."""
        query = {name: value for name, value in parameters.items() if value is not None}
        expires_at = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        for attempt in range(self.retries + 1):
            left_s = expires_at - time.monotonic()
            deadline = {"x-request-timeout-ms": str(max(1, int(left_s * 1000)))} if method == "POST" else {}
            timeout = max(left_s, 0.001) + _GRACE_S
            all_headers = {**headers, **deadline}
            outcome = yield self.build(method, path, params=query, headers=all_headers, timeout=timeout, **body)
            wait_s = _wait_after(outcome)
            if wait_s is None or attempt == self.retries or time.monotonic() + wait_s >= expires_at:
                break
            yield wait_s
        return _checked_response(outcome)


def document_of(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of a response. Raises ResnetError if it has none, and so comes from another service."""
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise _bad_response(response)
    return document


def _wait_after(outcome: Outcome) -> float | None:
    """Return the seconds until the next attempt, or None if the outcome is final."""
    if isinstance(outcome, httpx.Response):
        if outcome.status_code not in _LATER:
            return None
        named = outcome.headers.get("retry-after", "")
        wait_s = float(named) if named.isdigit() else _USUAL_WAIT_S
    elif isinstance(outcome, httpx.TimeoutException):
        return None  # the deadline has passed
    else:
        wait_s = _USUAL_WAIT_S / 4
    return min(wait_s, _LONGEST_WAIT_S) * (1 + _JITTER * random.random())  # noqa: S311 - no secret


def _checked_response(outcome: Outcome) -> httpx.Response:
    """Return a successful response. Raises ResnetError for any other outcome."""
    if isinstance(outcome, httpx.TimeoutException):
        raise ResnetError("The server did not answer in time.", code="timeout")
    if not isinstance(outcome, httpx.Response):
        reason = str(outcome) or type(outcome).__name__
        raise ResnetError(f"The server cannot be reached: {reason}", code="unreachable")
    if outcome.is_success:
        return outcome
    problem = document_of(outcome)
    if not isinstance(problem.get("detail"), str):
        raise _bad_response(outcome)
    raise ResnetError(problem["detail"], code=str(problem.get("code")), status=outcome.status_code)


def _bad_response(response: httpx.Response) -> ResnetError:
    return ResnetError(
        f"The response is not one of this service: status {response.status_code}; check the address.",
        code="bad_response",
        status=response.status_code,
    )
