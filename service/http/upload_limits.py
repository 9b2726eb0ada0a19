"""Limits on request bodies: the size of each body, and the memory of all bodies of a process."""

from collections.abc import Callable
from dataclasses import dataclass

from service.errors import Overloaded, TooLarge, image_too_large

FORM_BYTES = 64 * 1024  # what a form may add around its file


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """The limit of a request's body, and the error of a larger one."""

    most_bytes: int
    form_bytes: int = FORM_BYTES  # allowed in addition for the framing of a form
    refusal: Callable[[int], TooLarge] = image_too_large
    methods: frozenset[str] = frozenset(("POST",))  # whose bodies are accepted


class UploadMemory:
    """The memory limit of all request bodies of a process, so that many uploads do not exhaust its memory.

    A request is refused if the bodies of the other requests exceed the limit. A single request therefore always
    succeeds, up to its own limit.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.used_bytes = 0

    def set_limit(self, most_bytes: int) -> None:
        """Replace the limit, once the number of processes that share it is known."""
        self.most_bytes = most_bytes

    def take(self, size: int, own: int) -> None:
        """Count `size` more bytes of a request that then holds `own` bytes.

        Raises Overloaded if the other requests hold more than the limit.
        """
        self.used_bytes += size
        if self.used_bytes - own > self.most_bytes:
            raise Overloaded("Too many uploads are in progress; try again later.", retry_after_s=1)
