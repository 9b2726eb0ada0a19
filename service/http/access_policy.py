"""Who may ask: keys, the names this server goes by, pages of other sites, and proxies whose word counts.

Everything here is off until an operator sets it.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.errors import BadRequest, Unauthorized
from service.http.api_keys import ApiKeys, read_key_file

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Headers = Mapping[bytes, bytes]

_HEALTH = ("/health/", "/v2/health/")  # whoever watches the server has neither a key nor always its name
_PING = "/ping"  # TorchServe's
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:]*)(?::[0-9]*)?")
_HOST_NAME = re.compile(r"(?:\*\.)?[a-z0-9][a-z0-9.-]*|\[[0-9a-f:.]+\]")
_ORIGIN = re.compile(r"https?://(?:[a-z0-9][a-z0-9.-]*|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_PORT = re.compile(r"^(?:\[([0-9a-fA-F:.]+)\](?::[0-9]+)?|([0-9.]+):[0-9]+)$")  # some proxies name it
_LONGEST_CHAIN = 32
_EXPOSED = b"x-request-id, server-timing, retry-after, traceparent, inference-header-content-length"
_METHODS = b"GET, HEAD, POST"
_ASKED_HEADERS = (
    b"authorization, x-api-key, content-type, x-request-id, x-request-timeout-ms, traceparent, "
    b"inference-header-content-length"
)
_PREFLIGHT_S = b"600"


def is_health(path: str) -> bool:
    """Whether a path is for those who watch the server: it needs no key."""
    return path.startswith(_HEALTH) or path == _PING


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one server."""

    keys: ApiKeys | None = None
    open_routes: frozenset[str] = frozenset()  # need no key; health never does
    hosts: tuple[str, ...] = ()  # names, or *.names; empty: any
    origins: frozenset[str] = frozenset()  # whose pages may ask from a browser; * for all
    proxies: tuple[Network, ...] = ()  # whose X-Forwarded-For counts

    def check_host(self, route: str, headers: Headers) -> None:
        """Raise BadRequest for a name that is not this server's."""
        if self.hosts and not is_health(route) and not self._is_ours(headers.get(b"host", b"")):
            raise BadRequest("This server does not go by that name; check the Host header.", code="bad_host")

    def check_key(self, route: str, headers: Headers) -> None:
        """Raise Unauthorized without a key that is known."""
        if self.keys is None or route in self.open_routes or is_health(route):
            return
        if self.keys.owner(headers) is None:
            raise Unauthorized("An API key is needed: send `Authorization: Bearer` and the key, or `X-Api-Key`.")

    def _is_ours(self, given: bytes) -> bool:
        found = _HOST.fullmatch(given.decode("latin-1").lower())
        name = found[1] if found else ""
        return any(name.endswith(host[1:]) if host.startswith("*.") else name == host for host in self.hosts)

    def cors_headers(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """Return what an answer has to say so that a page of another site may read it: nothing if it may not."""
        if not self.origins:
            return []
        origin = headers.get(b"origin")
        vary = (b"vary", b"origin")
        if origin is None or not self._is_welcome(origin):
            return [vary]
        return [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED), vary]

    def _is_welcome(self, origin: bytes) -> bool:
        return "*" in self.origins or origin.decode("latin-1") in self.origins

    def is_preflight(self, method: str, headers: Headers) -> bool:
        """Whether a browser asks on behalf of a welcome page what it may send."""
        return (
            method == "OPTIONS"
            and bool(self.origins)
            and b"access-control-request-method" in headers
            and self._is_welcome(headers.get(b"origin", b""))
        )

    def client_of(self, peer: str | None, headers: Headers) -> str | None:
        """Return the address of whoever asked: the peer's, or what proxies that are trusted say of it."""
        forwarded = headers.get(b"x-forwarded-for") if self.proxies else None
        if peer is None or forwarded is None or not self._is_proxy(peer):
            return peer
        for hop in reversed(forwarded.decode("latin-1").split(",")[-_LONGEST_CHAIN:]):
            address = _address(_PORT.sub(r"\1\2", hop.strip()))
            if address is None:
                return peer
            peer = address
            if not self._is_proxy(peer):
                return peer
        return peer

    def _is_proxy(self, address: str) -> bool:
        return _address(address) is not None and any(ipaddress.ip_address(address) in net for net in self.proxies)


PREFLIGHT_HEADERS = [
    (b"access-control-allow-methods", _METHODS),
    (b"access-control-allow-headers", _ASKED_HEADERS),
    (b"access-control-max-age", _PREFLIGHT_S),
]


def _address(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def make_access(
    keys_file: Path | None, open_routes: frozenset[str], hosts: str | None, origins: str | None, proxies: str | None
) -> Access:
    """Return the rules as an operator wrote them; None leaves one off. Raises BadKeyFile, ValueError."""
    return Access(
        keys=None if keys_file is None else read_key_file(keys_file),
        open_routes=open_routes,
        hosts=() if hosts is None else read_hosts(hosts),
        origins=frozenset() if origins is None else read_origins(origins),
        proxies=() if proxies is None else read_proxies(proxies),
    )


def read_hosts(text: str) -> tuple[str, ...]:
    """Return the names in a list with commas. Raises ValueError for what is none."""
    return tuple(_matching(_HOST_NAME, part) for part in _parts(text))


def read_origins(text: str) -> frozenset[str]:
    """Return the origins in a list with commas, or `*`. Raises ValueError for what is none."""
    return frozenset(part if part == "*" else _matching(_ORIGIN, part) for part in _parts(text))


def read_proxies(text: str) -> tuple[Network, ...]:
    """Return the addresses and networks in a list with commas. Raises ValueError for what is none."""
    return tuple(ipaddress.ip_network(part, strict=False) for part in _parts(text))


def _parts(text: str) -> list[str]:
    return [part.strip().lower() for part in text.split(",")]


def _matching(pattern: re.Pattern[str], text: str) -> str:
    if pattern.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not of the form {pattern.pattern}")
    return text
