"""Who may use the admin port: no page of a browser, and for changes of models only owners of an admin key.

A page of another site can reach a port of this machine or network in two ways. It sends requests across sites, which
browsers mark in `Origin` or `Sec-Fetch-Site`. Or its name is changed to this machine's address (DNS rebinding): its
requests then count as those of the same site, and only their `Host` shows the name. Such a name is in the public DNS.
Addresses, and names that cannot be there, are therefore accepted without a setting.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from service.access_control.access_policy import host_name, is_named
from service.access_control.api_keys import ApiKeys
from service.errors import BadRequest, Forbidden, Unauthorized

# Reserved names (RFC 6761, RFC 6762, ICANN's for private use), which cannot be registered.
_PRIVATE = ("*.localhost", "*.local", "*.internal")
_FROM_PAGES = (b"cross-site", b"same-site", b"same-origin")  # a user who types the address sends none


@dataclass(frozen=True, slots=True)
class AdminAccess:
    """The access rules of the admin port."""

    keys: ApiKeys | None
    is_local: bool  # the port listens on the loopback address only
    hosts: tuple[str, ...] = ()  # names that are accepted beside addresses and private names

    def check_not_a_page(self, headers: Mapping[bytes, bytes]) -> None:
        """Raise Forbidden or BadRequest for a request of a page in a browser."""
        if b"origin" in headers or headers.get(b"sec-fetch-site") in _FROM_PAGES:
            raise Forbidden("Pages in a browser may not use the admin port.")
        if (host := headers.get(b"host")) is not None and not self._is_ours(host_name(host)):
            raise BadRequest(
                "The admin port does not serve this host name; use its address, or add the name to --trusted-hosts.",
                code="bad_host",
            )

    def _is_ours(self, name: str) -> bool:
        if name == "":  # not a valid header
            return False
        return "." not in name or _is_address(name) or is_named(name, _PRIVATE) or is_named(name, self.hosts)

    def check_change(self, headers: Mapping[bytes, bytes]) -> None:
        """Raise Forbidden or Unauthorized unless a request with these headers may change models."""
        if self.keys is None and not self.is_local:
            raise Forbidden("Changing models is disabled: start the server with --admin-keys-file to enable it.")
        if self.keys is not None and self.keys.owner(headers) is None:
            raise Unauthorized("Send a key of --admin-keys-file: `Authorization: Bearer …`.")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
