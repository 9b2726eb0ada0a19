"""API keys: a file of hashed keys with one line for each key, `name sha256-of-the-key` in hexadecimal.

Keys are long random strings, so one round of SHA-256 protects them as well as a slow hash, at a microsecond a request.
The file holds digests only, so reading it does not give access to the service.
"""

import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from pathlib import Path

_BEARER = re.compile(rb"bearer +(\S+) *", re.IGNORECASE)
_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})\s+([0-9a-fA-F]{64})")


class BadKeyFile(Exception):
    """An unusable key file. The message is one line for an operator."""


class ApiKeys:
    """The accepted keys, as digests."""

    def __init__(self, digests: dict[str, bytes]) -> None:
        self._digests = digests  # by the name of the key's owner

    def owner(self, headers: Mapping[bytes, bytes]) -> str | None:
        """Return the owner of a request's key (`Authorization: Bearer …` or `X-Api-Key: …`), or None.

        The comparison takes constant time.
        """
        bearer = _BEARER.fullmatch(headers.get(b"authorization", b""))
        key = bearer[1] if bearer else headers.get(b"x-api-key", b"")
        given = hashlib.sha256(key).digest()
        found = [name for name, digest in self._digests.items() if hmac.compare_digest(given, digest)]
        return found[0] if found and key else None


def read_key_file(path: Path) -> ApiKeys:
    """Return the keys of a file. Raises BadKeyFile, which names the invalid line without its content."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadKeyFile(f"{path.absolute()} cannot be read as a file of API keys: {_why_unreadable(error)}") from None
    digests: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise BadKeyFile(f"{path}, line {number}: write `name` and the SHA-256 of the key in hexadecimal")
        if match[1] in digests:
            raise BadKeyFile(f"{path}, line {number}: the name {match[1]} appears twice; give each key its own name")
        digests[match[1]] = bytes.fromhex(match[2])
    if not digests:
        raise BadKeyFile(f"{path} holds no key; write a line for each: `name sha256-of-the-key`")
    return ApiKeys(digests)


def _why_unreadable(error: OSError | UnicodeDecodeError) -> str:
    match error:
        case FileNotFoundError():
            return "there is no such file; check the path, and in a container what is mounted there"
        case PermissionError():
            return f"user {os.geteuid()} may not read it; chmod a+r it (it holds digests, not keys) and a+x its folders"
        case IsADirectoryError():
            return "it is a folder; name the file in it"
        case UnicodeDecodeError():
            return "it is not text; write a line for each key: `name sha256-of-the-key`"
        case _:
            return "check the path and its permissions"
