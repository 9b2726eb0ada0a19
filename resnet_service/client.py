"""A running server over HTTP: `Client`, and `AsyncClient` with the same methods for asyncio.

Connections are kept and reused. Each call has a deadline, which the server learns by X-Request-Timeout-Ms. A server
that is overloaded (503), limits this client (429), cannot be reached, or closes a kept connection is tried again, after
the seconds that its Retry-After names, as long as the deadline allows.
"""

import asyncio
import random
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from resnet_service.images import ImageInput, image_bytes
from resnet_service.results import (
    Classification,
    Embedding,
    Explanation,
    ModelInfo,
    ResnetError,
    ServedModel,
    classification_of,
    embedding_of,
    explanation_of,
    served_model_of,
)

try:
    import httpx
except ImportError:
    raise ImportError(
        "resnet_service.Client needs httpx; install it with pip install 'resnet-service[client]'"
    ) from None

DEFAULT_TOP_K = 5
_LATER = (429, 503)  # rate limited, overloaded
_LONGEST_WAIT_S, _USUAL_WAIT_S = 10.0, 1.0  # between two attempts
_JITTER = 0.25  # of the wait, so that clients do not return together
_GRACE_S = 1.0  # for an answer to arrive that the server has sent in time
_MOST_IMAGES, _MOST_BATCH_BYTES = 64, 32 * 1024 * 1024  # in one request, half of what a server accepts by default

Result = TypeVar("Result")
# What a call does: yields requests to send and seconds to wait, and receives the responses or why there is none.
Attempt: TypeAlias = "httpx.Request | float"
Outcome: TypeAlias = "httpx.Response | httpx.TransportError | None"
Steps: TypeAlias = Generator[Attempt, Outcome, Result]


@dataclass(frozen=True, slots=True)
class _Calls:
    """The calls of a client, without the sending: what is sent, and what becomes of the responses."""

    build: Callable[..., httpx.Request]
    timeout_s: float
    retries: int

    def classify(self, image: ImageInput, top_k: int, model: str | None) -> Steps[Classification]:
        document = yield from self._post("classify", image_bytes(image), {"top_k": top_k, "model": model})
        return classification_of(document)

    def explain(self, image: ImageInput, label: str | None, index: int | None, model: str | None) -> Steps[Explanation]:
        parameters = {"label": label, "index": index, "model": model}
        document = yield from self._post("explain", image_bytes(image), parameters)
        return explanation_of(document)

    def overlay(self, image: ImageInput, label: str | None, index: int | None, model: str | None) -> Steps[bytes]:
        parameters = {"label": label, "index": index, "model": model}
        headers = {"accept": "image/png"}
        response = yield from self._send("POST", "explain", parameters, headers, content=image_bytes(image))
        return response.content

    def embed(self, image: ImageInput, normalize: bool, model: str | None) -> Steps[Embedding]:
        parameters = {"normalize": str(normalize).lower(), "model": model}
        document = yield from self._post("embed", image_bytes(image), parameters)
        return embedding_of(document)

    def models(self) -> Steps[tuple[ServedModel, ...]]:
        response = yield from self._send("GET", "models", {})
        return tuple(served_model_of(entry) for entry in _document_of(response)["models"])

    def classify_many(
        self, images: Iterable[ImageInput], top_k: int, model: str | None
    ) -> Steps[list[Classification | ResnetError]]:
        answers: list[Classification | ResnetError] = []
        for batch in _batches_of(images):
            answers += yield from self._classify_batch(batch, top_k, model)
        return answers

    def _classify_batch(
        self, batch: Sequence[bytes | ResnetError], top_k: int, model: str | None
    ) -> Steps[list[Classification | ResnetError]]:
        files = [("files", ("image", image)) for image in batch if isinstance(image, bytes)]
        if not files:
            return [image for image in batch if isinstance(image, ResnetError)]
        parameters = {"top_k": top_k, "model": model}
        document = _document_of((yield from self._send("POST", "classify/batch", parameters, files=files)))
        results, info = iter(document["results"]), ModelInfo(**document["model"])
        return [image if isinstance(image, ResnetError) else _result_of(next(results), info) for image in batch]

    def _post(self, path: str, image: bytes, parameters: Mapping[str, Any]) -> Steps[dict[str, Any]]:
        return _document_of((yield from self._send("POST", path, parameters, content=image)))

    def _send(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Any],
        headers: Mapping[str, str] = MappingProxyType({}),
        **body: Any,
    ) -> "Steps[httpx.Response]":
        """Send a request until it has a response that stands, of status 200. Raises ResnetError."""
        query = {name: value for name, value in parameters.items() if value is not None}
        expires_at = time.monotonic() + self.timeout_s
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


class _Connection:
    """What both clients share: the address, the key, and the calls."""

    def __init__(self, url: str, api_key: str | None, timeout_s: float, retries: int) -> None:
        if timeout_s <= 0 or retries < 0:
            raise ValueError(f"timeout_s must be above 0 and retries from 0, not {timeout_s} and {retries}")
        self._url = _checked(url)
        self._headers = _key_header(api_key)
        self._timeout_s, self._retries = timeout_s, retries

    def _calls(self, http: "httpx.Client | httpx.AsyncClient", timeout_s: float | None) -> _Calls:
        return _Calls(http.build_request, self._timeout_s if timeout_s is None else timeout_s, self._retries)


class Client(_Connection):
    """A server, for threads: one client may be used by many. Close it, or use it as a context manager."""

    def __init__(self, url: str, *, api_key: str | None = None, timeout_s: float = 60.0, retries: int = 3) -> None:
        """`timeout_s` limits each call with its retries; a call's own `timeout_s` takes precedence.

        Raises ValueError for a URL or key that cannot be one.
        """
        super().__init__(url, api_key, timeout_s, retries)
        self._http = httpx.Client(base_url=self._url, headers=self._headers)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def classify(
        self,
        image: ImageInput,
        *,
        top_k: int = DEFAULT_TOP_K,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> Classification:
        """Return the best `top_k` labels of an image, or all if there are fewer. Raises ResnetError."""
        return self._run(self._calls(self._http, timeout_s).classify(image, top_k, model))

    def classify_many(
        self,
        images: Iterable[ImageInput],
        *,
        top_k: int = DEFAULT_TOP_K,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> list[Classification | ResnetError]:
        """Return for each image, in order, its best labels, or the error that it has.

        Up to 64 images share a request, and `timeout_s` is for each request. Raises ResnetError if one fails whole.
        """
        return self._run(self._calls(self._http, timeout_s).classify_many(images, top_k, model))

    def explain(
        self,
        image: ImageInput,
        *,
        label: str | None = None,
        index: int | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> Explanation:
        """Return the heat maps of the five best labels, or that of one of them. Raises ResnetError."""
        return self._run(self._calls(self._http, timeout_s).explain(image, label, index, model))

    def overlay(
        self,
        image: ImageInput,
        *,
        label: str | None = None,
        index: int | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        """Return the image as a PNG with the heat map of a label over it, by default the best. Raises ResnetError."""
        return self._run(self._calls(self._http, timeout_s).overlay(image, label, index, model))

    def embed(
        self,
        image: ImageInput,
        *,
        normalize: bool = False,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> Embedding:
        """Return the embedding of an image, of length 1 if wanted. Raises ResnetError."""
        return self._run(self._calls(self._http, timeout_s).embed(image, normalize, model))

    def models(self, *, timeout_s: float | None = None) -> tuple[ServedModel, ...]:
        """Return every version that serves, was refused or was unloaded. Raises ResnetError."""
        return self._run(self._calls(self._http, timeout_s).models())

    def _run(self, steps: Steps[Result]) -> Result:
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as stop:
                result: Result = stop.value
                return result
            if isinstance(step, float):
                time.sleep(step)
                outcome = None
                continue
            try:
                outcome = self._http.send(step)
            except httpx.TransportError as error:
                outcome = error


class AsyncClient(_Connection):
    """A server, for asyncio. Close it, or use it as an asynchronous context manager."""

    def __init__(self, url: str, *, api_key: str | None = None, timeout_s: float = 60.0, retries: int = 3) -> None:
        """As `Client`."""
        super().__init__(url, api_key, timeout_s, retries)
        self._http = httpx.AsyncClient(base_url=self._url, headers=self._headers)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def classify(
        self,
        image: ImageInput,
        *,
        top_k: int = DEFAULT_TOP_K,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> Classification:
        """As `Client.classify`."""
        return await self._run(self._calls(self._http, timeout_s).classify(image, top_k, model))

    async def classify_many(
        self,
        images: Iterable[ImageInput],
        *,
        top_k: int = DEFAULT_TOP_K,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> list[Classification | ResnetError]:
        """As `Client.classify_many`."""
        return await self._run(self._calls(self._http, timeout_s).classify_many(images, top_k, model))

    async def explain(
        self,
        image: ImageInput,
        *,
        label: str | None = None,
        index: int | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> Explanation:
        """As `Client.explain`."""
        return await self._run(self._calls(self._http, timeout_s).explain(image, label, index, model))

    async def overlay(
        self,
        image: ImageInput,
        *,
        label: str | None = None,
        index: int | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        """As `Client.overlay`."""
        return await self._run(self._calls(self._http, timeout_s).overlay(image, label, index, model))

    async def embed(
        self,
        image: ImageInput,
        *,
        normalize: bool = False,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> Embedding:
        """As `Client.embed`."""
        return await self._run(self._calls(self._http, timeout_s).embed(image, normalize, model))

    async def models(self, *, timeout_s: float | None = None) -> tuple[ServedModel, ...]:
        """As `Client.models`."""
        return await self._run(self._calls(self._http, timeout_s).models())

    async def _run(self, steps: Steps[Result]) -> Result:
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as stop:
                result: Result = stop.value
                return result
            if isinstance(step, float):
                await asyncio.sleep(step)
                outcome = None
                continue
            try:
                outcome = await self._http.send(step)
            except httpx.TransportError as error:
                outcome = error


def _batches_of(images: Iterable[ImageInput]) -> Iterable[list[bytes | ResnetError]]:
    """Yield images as bytes in parts that fit a request; one that cannot be read is its error."""
    batch: list[bytes | ResnetError] = []
    size = 0
    for image in images:
        try:
            content: bytes | ResnetError = image_bytes(image)
        except ResnetError as error:
            content = error
        own = len(content) if isinstance(content, bytes) else 0
        if batch and (len(batch) == _MOST_IMAGES or size + own > _MOST_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(content)
        size += own
    if batch:
        yield batch


def _result_of(entry: Mapping[str, Any], model: ModelInfo) -> Classification | ResnetError:
    problem = entry.get("problem")
    if problem is None:
        return classification_of(entry, model)
    return ResnetError(problem["detail"], code=problem["code"], status=problem["status"])


def _wait_after(outcome: Outcome) -> float | None:
    """Return the seconds until the next attempt, or None if the outcome stands."""
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


def _checked_response(outcome: Outcome) -> "httpx.Response":
    """Return a response of status 200. Raises ResnetError for any other outcome."""
    if isinstance(outcome, httpx.TimeoutException):
        raise ResnetError("The server did not answer in time.", code="timeout")
    if not isinstance(outcome, httpx.Response):
        reason = str(outcome) or type(outcome).__name__
        raise ResnetError(f"The server cannot be reached: {reason}", code="unreachable")
    if outcome.is_success:
        return outcome
    problem = _document_of(outcome)
    if not isinstance(problem.get("detail"), str):
        raise _bad_response(outcome)
    raise ResnetError(problem["detail"], code=str(problem.get("code")), status=outcome.status_code)


def _document_of(response: "httpx.Response") -> dict[str, Any]:
    """Return the JSON object of a response. Raises ResnetError if it has none, so is none of this service."""
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise _bad_response(response)
    return document


def _bad_response(response: "httpx.Response") -> ResnetError:
    return ResnetError(
        f"The response is not one of this service: status {response.status_code}; check the address.",
        code="bad_response",
        status=response.status_code,
    )


def _checked(url: str) -> str:
    """Return an address of a server. Raises ValueError."""
    whole = url if "//" in url else f"http://{url}"
    try:
        parts = urlsplit(whole)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # of brackets and ports
        is_address = False
    if not is_address or " " in whole:
        raise ValueError(f"the address of a server is like http://localhost:8000, not {url!r}")
    return whole


def _key_header(api_key: str | None) -> dict[str, str]:
    key = (api_key or "").strip()  # of a file with a line end
    if not all("!" <= letter <= "~" for letter in key):
        raise ValueError("an API key has no spaces and no accents")
    return {"authorization": f"Bearer {key}"} if key else {}
