"""Ask a server of this project to classify a picture, as `classify --server` does."""

import http.client
import threading
import time
from typing import Any
from urllib.parse import urlencode, urlsplit

import orjson

_TIMEOUT_S = 60
_TRIES = 5  # where the server says that it is overloaded
_LONGEST_WAIT_S = 10


class ServerError(Exception):
    """The server cannot be asked. The message is one line that names the next step."""


class Client:
    """Connections to one server, one for each thread that asks, until it is closed."""

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServerError(f"{url} is no address of a server; give --server one such as http://localhost:8000")
        self._url = url
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._address = (parts.hostname, parts.port)
        self._path = parts.path.rstrip("/") + "/classify?"
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._own = threading.local()
        self._opened: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close the connections. No thread may be asking."""
        for connection in self._opened:
            connection.close()

    def classify(self, content: bytes, *, top_k: int, model: str | None) -> dict[str, Any]:
        """Return the server's answer to a picture, or `{"error": …}` as it gives it. Raises ServerError."""
        question = urlencode({"top_k": top_k} | ({"model": model} if model else {}))
        for last in (*([False] * (_TRIES - 1)), True):
            status, retry_after, body = self._post(self._path + question, content)
            if status != http.HTTPStatus.SERVICE_UNAVAILABLE or last:
                break
            time.sleep(min(retry_after, _LONGEST_WAIT_S))
        try:
            answer: dict[str, Any] = orjson.loads(body)
            if status == http.HTTPStatus.OK and answer["predictions"]:
                return answer
            return {"error": {"status": status, "code": answer["code"], "detail": answer["detail"]}}
        except (ValueError, TypeError, KeyError):
            raise ServerError(f"what answers at {self._url} is not serve-resnet (status {status})") from None

    def _post(self, path: str, content: bytes) -> tuple[int, int, bytes]:
        """Return status, seconds to wait before another try, and body."""
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
        return self._post(path, content)  # a connection that was kept open may have ended meanwhile
