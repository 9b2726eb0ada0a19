"""Parsing of a request that came complete in one read, for responses that need its head only."""

import httptools


class WholeRequestParser:
    """Parses requests of any number of connections, each of which must be complete.

    The parser is httptools' own, so that a request cannot mean one thing here and another in `parser.py`. Its state is
    discarded after any input that is not exactly one request.
    """

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_kept_alive = True
        self._begun = self._ended = 0
        self._parser = httptools.HttpRequestParser(self)

    def parse(self, data: bytes) -> bool:
        """Return whether the bytes are exactly one HTTP/1.1 POST request, whose head is then in the attributes."""
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
            self._parser = httptools.HttpRequestParser(self)  # it accepts nothing after such a request
        return is_post

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._begun += 1
        self.target, self.headers = b"", []

    def on_url(self, target: bytes) -> None:
        """Take the request target."""
        self.target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """End a head: only now does the parser know whether the connection is kept."""
        self.is_kept_alive = self._parser.should_keep_alive()

    def on_message_complete(self) -> None:
        """End a request."""
        self._ended += 1
