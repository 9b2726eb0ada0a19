"""uvicorn's HTTP protocol, with this server's own words where uvicorn would send plain text."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.problem import MEDIA_TYPE, problem_body

_BODY = problem_body(400, "bad_http", "Bad request", "The request is not valid HTTP.")
_BAD_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\n"
    b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n"
    b"cache-control: no-store\r\nx-content-type-options: nosniff\r\n\r\n%b"
) % (MEDIA_TYPE.encode(), len(_BODY), _BODY)


class Connection(HttpToolsProtocol):
    """One client's connection."""

    @property
    def is_silent(self) -> bool:
        """Whether the client has connected and not asked for anything yet."""
        return self.cycle is None

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self.transport.write(_BAD_HTTP)
        self.transport.close()
