"""Parsing of a request that arrives complete in one read, for responses that need its head only."""

import httptools


class WholeRequestParser:
    """Parses complete requests of any number of connections.

    It uses httptools like `parser.py`, so that both interpret a request in the same way. The state of the parser is
    discarded after any input that is not exactly one request.
    """

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_kept_alive = True
        self._begun = self._ended = 0
        self._parser = httptools.HttpRequestParser(self)

    def parse(self, data: bytes) -> bool:
        """Return whether the bytes are exactly one HTTP/1.1 POST request; its head is then in the attributes."""
        self._begun = self._ended = 0
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._ended = 0
        if self._begun != 1 or self._ended != 1 or self._parser.get_http_version() != "1.1":
            self._parser = httptools.HttpRequestParser(self)
            return False
        is_post = self._parser.get_method() == b"POST"
        if not self.is_kept_alive:
            self._parser = httptools.HttpRequestParser(self)  # the old one accepts no further request
        return is_post

    def on_message_begin(self) -> None:
        """Start a request."""
        self._begun += 1
        self.target, self.headers = b"", []

    def on_url(self, target: bytes) -> None:
        """Store the request target."""
        self.target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store one header, with its name in lower case."""
        self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Store whether the connection stays open, which httptools determines from the whole head."""
        self.is_kept_alive = self._parser.should_keep_alive()

    def on_message_complete(self) -> None:
        """End a request."""
        self._ended += 1
