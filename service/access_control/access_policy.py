"""Access rules: API keys, allowed host names, CORS origins, and trusted proxies.

Each rule is off by default.
"""

import functools
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from service.access_control.api_keys import ApiKeys, read_key_file
from service.errors import BadRequest, Unauthorized

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Headers = Mapping[bytes, bytes]

_HEALTH = ("/health/", "/v2/health/")  # a health probe has no key, and often the wrong Host header
_PING = "/ping"  # TorchServe's
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:]*)(?::[0-9]*)?")
_HOST_NAME = re.compile(r"(?:\*\.)?[a-z0-9][a-z0-9.-]*|\[[0-9a-f:.]+\]")
_ORIGIN = re.compile(r"https?://(?:[a-z0-9][a-z0-9.-]*|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_PORT = re.compile(r"^(?:\[([0-9a-fA-F:.]+)\](?::[0-9]+)?|([0-9.]+):[0-9]+)$")  # some proxies append it
_LONGEST_CHAIN = 32
_LONGEST_ADDRESS = 64  # characters, port and spaces included
_EXPOSED = b"x-request-id, server-timing, retry-after, traceparent, inference-header-content-length"
_METHODS = b"GET, HEAD, POST"
_REQUEST_HEADERS = (
    b"authorization, x-api-key, content-type, x-request-id, x-request-timeout-ms, traceparent, "
    b"inference-header-content-length"
)
_PREFLIGHT_S = b"600"


def is_health(path: str) -> bool:
    """Return whether a path is a health check, which needs no key."""
    return path.startswith(_HEALTH) or path == _PING


def host_name(header: bytes) -> str:
    """Return the name or address in a Host header, in lower case and without the port; "" for an invalid one."""
    found = _HOST.fullmatch(header.decode("latin-1").lower())
    return found[1] if found else ""


def is_named(name: str, hosts: tuple[str, ...]) -> bool:
    """Return whether a name is one of these, which may be of the form *.name."""
    return any(name.endswith(host[1:]) if host.startswith("*.") else name == host for host in hosts)


@dataclass(frozen=True, slots=True)
class Access:
    """The access rules of one server."""

    keys: ApiKeys | None = None
    open_routes: frozenset[str] = frozenset()  # need no key; health checks never need one
    hosts: tuple[str, ...] = ()  # names, or *.names; empty: any
    origins: frozenset[str] = frozenset()  # allowed CORS origins; * for all
    proxies: "Proxies | None" = None  # whose X-Forwarded-For is trusted

    def check_host(self, route: str, headers: Headers) -> None:
        """Raise BadRequest if the Host header names none of the allowed hosts."""
        if self.hosts and not is_health(route) and not is_named(host_name(headers.get(b"host", b"")), self.hosts):
            raise BadRequest("The Host header names a host that this server does not serve.", code="bad_host")

    def check_key(self, route: str, headers: Headers) -> str | None:
        """Return the owner of the request's key, or None for a route that needs none. Raises Unauthorized."""
        if self.keys is None or route in self.open_routes or is_health(route):
            return None
        owner = self.keys.owner(headers)
        if owner is None:
            raise Unauthorized("A valid API key is required: send `Authorization: Bearer <key>` or `X-Api-Key`.")
        return owner

    def cors_headers(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """Return the CORS headers of a response; an origin that is not allowed gets `Vary` only."""
        if not self.origins:
            return []
        origin = headers.get(b"origin")
        vary = (b"vary", b"origin")
        if origin is None or not self._is_allowed_origin(origin):
            return [vary]
        allowed = b"*" if "*" in self.origins else origin
        return [(b"access-control-allow-origin", allowed), (b"access-control-expose-headers", _EXPOSED), vary]

    def _is_allowed_origin(self, origin: bytes) -> bool:
        return "*" in self.origins or origin.decode("latin-1") in self.origins

    def is_preflight(self, method: str, headers: Headers) -> bool:
        """Return whether a request is a CORS preflight of an allowed origin."""
        return (
            method == "OPTIONS"
            and bool(self.origins)
            and b"access-control-request-method" in headers
            and self._is_allowed_origin(headers.get(b"origin", b""))
        )

    def client_of(self, peer: str | None, headers: Headers) -> str | None:
        """Return the client's address: the peer's, or the one that trusted proxies report in X-Forwarded-For."""
        forwarded = None if self.proxies is None else headers.get(b"x-forwarded-for")
        if self.proxies is None or forwarded is None or peer is None:
            return peer
        return self.proxies.client_of(peer, forwarded.decode("latin-1"))


class Proxies:
    """Addresses and networks of trusted proxies. Checks of an address are cached: one takes 10 µs."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)
        self._read = functools.lru_cache(maxsize=1024)(self._read_address)

    def client_of(self, peer: str, forwarded: str) -> str:
        """Return the last address before the trusted proxies in X-Forwarded-For; `peer` if it is no such proxy.

        An entry that is no address ends the chain: its text is the client's, so it must not reach the log.
        """
        address, is_proxy = self._read(peer)
        for hop in reversed(forwarded.split(",")[-_LONGEST_CHAIN:]):
            if not is_proxy:
                break
            following, is_proxy = self._read(hop) if len(hop) <= _LONGEST_ADDRESS else (None, False)
            address = following or address
        return address or peer

    def _read_address(self, text: str) -> tuple[str | None, bool]:
        """Return the address in an entry, and whether it is a trusted proxy's."""
        try:
            address = ipaddress.ip_address(_PORT.sub(r"\1\2", text.strip()))
        except ValueError:
            return None, False
        return str(address), any(address in network for network in self._networks)


PREFLIGHT_HEADERS = [
    (b"access-control-allow-methods", _METHODS),
    (b"access-control-allow-headers", _REQUEST_HEADERS),
    (b"access-control-max-age", _PREFLIGHT_S),
]


def make_access(
    keys_file: Path | None, open_routes: frozenset[str], hosts: str | None, origins: str | None, proxies: str | None
) -> Access:
    """Return the rules of these settings; None turns a rule off. Raises BadKeyFile, ValueError."""
    return Access(
        keys=None if keys_file is None else read_key_file(keys_file),
        open_routes=open_routes,
        hosts=() if hosts is None else read_hosts(hosts),
        origins=frozenset() if origins is None else read_origins(origins),
        proxies=None if proxies is None else read_proxies(proxies),
    )


def read_hosts(text: str) -> tuple[str, ...]:
    """Return the host names of a comma-separated list. Raises ValueError for an invalid one."""
    return tuple(_matching(_HOST_NAME, part) for part in _parts(text))


def read_origins(text: str) -> frozenset[str]:
    """Return the origins of a comma-separated list, or `*`. Raises ValueError for an invalid one."""
    return frozenset(part if part == "*" else _matching(_ORIGIN, part) for part in _parts(text))


def read_proxies(text: str) -> Proxies:
    """Return the addresses and networks of a comma-separated list. Raises ValueError for an invalid one."""
    return Proxies(ipaddress.ip_network(part, strict=False) for part in _parts(text))


def _parts(text: str) -> list[str]:
    return [part.strip().lower() for part in text.split(",")]


def _matching(pattern: re.Pattern[str], text: str) -> str:
    if pattern.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not of the form {pattern.pattern}")
    return text
