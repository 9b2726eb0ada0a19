"""The client of `classify --server`."""

import http.client
import threading
import time
from typing import Any
from urllib.parse import urlencode, urlsplit

import orjson

_TIMEOUT_S = 60
_TRIES = 5  # of a request to an overloaded server
_LONGEST_WAIT_S = 10
_LATER = (http.HTTPStatus.TOO_MANY_REQUESTS, http.HTTPStatus.SERVICE_UNAVAILABLE)


class ServerError(Exception):
    """The server cannot be reached. The message is one line that names the next step."""


class Client:
    """Connections to one server, one for each thread that uses it, until `close`."""

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        scheme, host, port, path = _parts_of(url)
        self._url = url
        self._kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        self._address = (host, port)
        self._path = path.rstrip("/") + "/classify?"
        self._headers = _headers(api_key)
        self._own = threading.local()
        self._opened: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close the connections. No thread may use the client afterwards."""
        for connection in self._opened:
            connection.close()

    def classify(self, content: bytes, *, top_k: int, model: str | None) -> dict[str, Any]:
        """Return the server's response to an image, `{"error": …}` for a refusal. Raises ServerError."""
        question = urlencode({"top_k": top_k} | ({"model": model} if model else {}))
        for last in (*([False] * (_TRIES - 1)), True):
            status, retry_after, body = self._post(self._path + question, content)
            if status not in _LATER or last:
                break
            time.sleep(min(retry_after, _LONGEST_WAIT_S))
        try:
            answer: dict[str, Any] = orjson.loads(body)
            if status == http.HTTPStatus.OK and answer["predictions"]:
                return answer
            return {"error": {"status": status, "code": answer["code"], "detail": answer["detail"]}}
        except (ValueError, TypeError, KeyError):
            raise ServerError(f"the server at {self._url} is not serve-resnet (status {status})") from None

    def _post(self, path: str, content: bytes) -> tuple[int, int, bytes]:
        """Return the status, the seconds until the next attempt, and the body."""
        is_fresh = not hasattr(self._own, "connection")
        if is_fresh:
            self._own.connection = self._kind(*self._address, timeout=_TIMEOUT_S)
            self._opened.append(self._own.connection)
        try:
            self._own.connection.request("POST", path, content, self._headers)
            response = self._own.connection.getresponse()
            retry_after = response.headers.get("retry-after", "1")
            return response.status, int(retry_after) if retry_after.isdigit() else 1, response.read()
        except (OSError, http.client.HTTPException) as error:
            self._own.connection.close()
            del self._own.connection
            if is_fresh:
                reason = getattr(error, "strerror", None) or type(error).__name__
                raise ServerError(f"cannot reach {self._url}: {reason}; is the server running there?") from None
        return self._post(path, content)  # the kept connection may have been closed


def _parts_of(url: str) -> tuple[str, str, int | None, str]:
    """Return scheme, host, port and path. Raises ServerError."""
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or " " in url or parts.scheme not in ("http", "https"):
        raise ServerError(f"{url} is not an address of a server; give --server one such as http://localhost:8000")
    return parts.scheme, host, port, parts.path


def _headers(api_key: str | None) -> dict[str, str]:
    key = (api_key or "").strip()  # a key from a file may have a line end
    if not all("!" <= letter <= "~" for letter in key):
        raise ServerError("the value of --api-key or RESNET_API_KEY is not an API key: remove spaces and accents")
    return {"authorization": f"Bearer {key}"} if key else {}
