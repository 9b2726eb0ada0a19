"""A running server over HTTP: `Client`, and `AsyncClient` with the same methods for asyncio.

Connections are kept and reused. Each call has a deadline, which the server receives as X-Request-Timeout-Ms. A call is
retried if the server is overloaded (503), limits this client (429), cannot be reached or closes a kept connection. It
waits the seconds of Retry-After, and gives up at its deadline.

The signatures and descriptions of the methods are those of `Calls`, once for both classes.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, get_args
from urllib.parse import urlsplit

try:
    import httpx
except ImportError:
    raise ImportError(
        "resnet_service.Client needs httpx; install it with pip install 'resnet-service[client]'"
    ) from None

from resnet_service.attempts import Outcome, Requests, Result, Steps
from resnet_service.calls import Calls

Parameters = ParamSpec("Parameters")
_Call = Callable[Concatenate[Calls, Parameters], Steps[Result]]


def _blocking(call: _Call[Parameters, Result]) -> "Callable[Concatenate[Client, Parameters], Result]":
    """Return a call as a method of `Client`."""

    @wraps(call)
    def method(client: "Client", /, *arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        return client._run(call(client._calls, *arguments, **options))

    method.__signature__ = _signature_of(call)  # type: ignore[attr-defined]
    return method


def _awaitable(call: _Call[Parameters, Result]) -> "Callable[Concatenate[AsyncClient, Parameters], Awaitable[Result]]":
    """Return a call as a method of `AsyncClient`."""

    @wraps(call)
    async def method(client: "AsyncClient", /, *arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        return await client._run(call(client._calls, *arguments, **options))

    method.__signature__ = _signature_of(call)  # type: ignore[attr-defined]
    return method


def _signature_of(call: Callable[..., Any]) -> inspect.Signature:
    """Return a call's signature with the type of its result, for `help` and editors."""
    signature = inspect.signature(call)
    _, _, result = get_args(signature.return_annotation)  # of a generator: what it yields, receives and returns
    return signature.replace(return_annotation=result)


class Client:
    """A client for threads, which may share one. Close it, or use it as a context manager."""

    def __init__(self, url: str, *, api_key: str | None = None, timeout_s: float = 60.0, retries: int = 3) -> None:
        """`timeout_s` limits each call with its retries; a call's own `timeout_s` takes precedence.

        Raises ValueError for an invalid URL or key.
        """
        _check_limits(timeout_s, retries)
        self._http = httpx.Client(base_url=_checked(url), headers=_key_header(api_key))
        self._calls = Calls(Requests(self._http.build_request, timeout_s, retries))

    classify = _blocking(Calls.classify)
    classify_many = _blocking(Calls.classify_many)
    explain = _blocking(Calls.explain)
    overlay = _blocking(Calls.overlay)
    embed = _blocking(Calls.embed)
    models = _blocking(Calls.models)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

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


class AsyncClient:
    """A client for asyncio. Close it, or use it as an asynchronous context manager."""

    def __init__(self, url: str, *, api_key: str | None = None, timeout_s: float = 60.0, retries: int = 3) -> None:
        """As `Client`."""
        _check_limits(timeout_s, retries)
        self._http = httpx.AsyncClient(base_url=_checked(url), headers=_key_header(api_key))
        self._calls = Calls(Requests(self._http.build_request, timeout_s, retries))

    classify = _awaitable(Calls.classify)
    classify_many = _awaitable(Calls.classify_many)
    explain = _awaitable(Calls.explain)
    overlay = _awaitable(Calls.overlay)
    embed = _awaitable(Calls.embed)
    models = _awaitable(Calls.models)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

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


def _check_limits(timeout_s: float, retries: int) -> None:
    if timeout_s <= 0 or retries < 0:
        raise ValueError(f"timeout_s must be above 0 and retries from 0, not {timeout_s} and {retries}")


def _checked(url: str) -> str:
    """Return the address of a server. Raises ValueError."""
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
