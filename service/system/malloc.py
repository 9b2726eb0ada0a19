"""The allocator: fewer arenas, and freed memory returned to the system.

glibc gives threads that allocate at the same time their own arenas, up to eight a core. Memory freed in one arena is
not available to the others. A new thread loads each model, so every reload would leave pages in another arena.
"""

import contextlib
import ctypes
import os

_M_ARENA_MAX = -8  # glibc's malloc.h
_ARENAS = 2
_SET_BY_THE_OPERATOR = "MALLOC_ARENA_MAX"


def limit_arenas() -> None:
    """Let all threads of this process share two arenas, unless the environment says how many.

    Call it while the process has one thread. Without glibc it does nothing.
    """
    if _SET_BY_THE_OPERATOR not in os.environ:
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def trim() -> None:
    """Return freed memory to the system, which takes some milliseconds. Without glibc it does nothing."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
